# SPDX-License-Identifier: Apache-2.0
"""Configuration: what wins, what is refused and in which words, and that no file gives a traceback."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Meta

from tickpath import config
from tickpath.config import COMMON, CommonConfig
from tickpath.errors import ConfigError


class Match(IntEnum):
    OFFSET = 0
    SOCKET = 1


class ShopConfig(msgspec.Struct, frozen=True, kw_only=True):
    port: Annotated[int, Meta(ge=1, le=65535, description="port to listen on")] = 18064
    match: Annotated[Match, Meta(description="100% of what is matched")] = Match.OFFSET
    mode: Literal["mirror", "inline"] = "mirror"
    feeds: list[str] = []
    tls: bool = True
    speed: float = 1.0
    file: Path | None = None


class OtherConfig(msgspec.Struct, frozen=True, kw_only=True):
    url: str


SECTIONS = {"shop": ShopConfig, "other": OtherConfig}
Load = Callable[..., ShopConfig]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """load(toml, *flags) of the section "shop", in an environment without TICKPATH_ variables."""
    monkeypatch.setattr(
        config, "_registered", lambda: {name: lambda kind=kind: kind for name, kind in SECTIONS.items()}
    )
    monkeypatch.chdir(tmp_path)
    for name in [name for name in config.os.environ if name.startswith("TICKPATH_")]:
        monkeypatch.delenv(name)

    def _load(toml: str | None = None, *flags: str) -> ShopConfig:
        if toml is not None:
            (tmp_path / "tickpath.toml").write_text(toml)
        return config.load(ShopConfig, "shop", parsed(*flags))

    yield _load


def parsed(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    config.add_common_flags(parser)
    config.add_flags(parser, ShopConfig)
    return parser.parse_args(flags)


def test_without_anything_the_defaults_hold(load: Load) -> None:
    assert load() == ShopConfig()


def test_file_then_environment_then_flag(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    toml = "[shop]\nport = 1\nspeed = 2\nmode = 'inline'"
    assert load(toml) == ShopConfig(port=1, speed=2.0, mode="inline")
    monkeypatch.setenv("TICKPATH_SHOP_PORT", "2")
    monkeypatch.setenv("TICKPATH_SHOP_SPEED", "3")
    assert load(toml, "--port", "3") == ShopConfig(port=3, speed=3.0, mode="inline")


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("port", "7", 7),
        ("match", "socket", Match.SOCKET),
        ("mode", "inline", "inline"),
        ("feeds", "a,b", ["a", "b"]),
        ("speed", "0.5", 0.5),
        ("file", "/x/y", Path("/x/y")),
        ("tls", "false", False),
    ],
)
def test_every_kind_of_field_comes_from_environment_and_flag(
    load: Load, monkeypatch: pytest.MonkeyPatch, field: str, text: str, value: Any
) -> None:
    flags = ["--no-tls"] if field == "tls" else [f"--{field}", text]
    assert getattr(load(None, *flags), field) == value
    monkeypatch.setenv(f"TICKPATH_SHOP_{field.upper()}", text)
    assert getattr(load(), field) == value


def test_a_repeated_flag_adds_to_a_list(load: Load) -> None:
    assert load(None, "--feeds", "a,b", "--feeds", "c").feeds == ["a", "b", "c"]


def test_an_empty_variable_is_not_set(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKPATH_SHOP_PORT", "")
    assert load("[shop]\nport = 5").port == 5


def test_an_intenum_is_named_in_the_file_too(load: Load) -> None:
    assert load("[shop]\nmatch = 'socket'").match is Match.SOCKET


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[shop]\nprot = 1", "unknown key 'prot' in [shop] of 'tickpath.toml'; did you mean 'port'?"),
        ("[shopp]", "unknown section 'shopp' in 'tickpath.toml'; did you mean 'shop'?"),
        ("directry = 'x'", "unknown key 'directry' in 'tickpath.toml'; did you mean 'directory'?"),
        ("[shop]\nport = 'x'", "[shop] port in 'tickpath.toml': expected int, got 'x'"),
        ("[shop]\nport = 70000", "[shop] port in 'tickpath.toml': expected int <= 65535, got 70000"),
        ("[shop]\ntls = 1", "[shop] tls in 'tickpath.toml': expected true or false, got 1"),
        ("[shop]\nmode = 'tap'", "[shop] mode in 'tickpath.toml': expected one of mirror, inline, got 'tap'"),
        ("[shop]\nmatch = 1", "[shop] match in 'tickpath.toml': expected one of offset, socket, got 1"),
        ("[shop]\nfeeds = 'a'", "[shop] feeds in 'tickpath.toml': expected array, got 'a'"),
        ("[other]\nurl = 1", "[other] url in 'tickpath.toml': expected str, got 1"),
        ("shop = 1", "'shop' in 'tickpath.toml' is a section: write [shop] above its keys"),
        ("[shop", "configuration 'tickpath.toml' is not TOML: Expected ']'"),
        ("x = " + "[" * 5000, "configuration 'tickpath.toml' is"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(load: Load, toml: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(toml)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_a_wrong_variable_and_a_wrong_flag_are_named(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"^flag --port: expected int, got 'x'$"):
        load(None, "--port", "x")
    monkeypatch.setenv("TICKPATH_SHOP_PORT", "x")
    with pytest.raises(ConfigError, match=r"^environment variable TICKPATH_SHOP_PORT: expected int, got 'x'$"):
        load()


def test_a_missing_value_says_where_it_can_be_given(load: Load) -> None:
    with pytest.raises(
        ConfigError, match=r"^\[other\] url is not set: give it in the file, TICKPATH_OTHER_URL or --url$"
    ):
        config.load(OtherConfig, "other")


def test_a_named_file_must_be_there(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"'none.toml' cannot be read: No such file"):
        load(None, "--config", "none.toml")
    monkeypatch.setenv("TICKPATH_CONFIG", str(tmp_path))
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load()
    with pytest.raises(ConfigError, match="larger than"):
        load(None, "--config", "/dev/zero")


def test_the_common_keys_stand_at_the_top(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    load("directory = '/a'\n[shop]\nport = 1")
    assert config.load(CommonConfig, COMMON).directory == Path("/a")
    monkeypatch.setenv("TICKPATH_DIRECTORY", "/b")
    assert config.load(CommonConfig, COMMON).directory == Path("/b")
    assert config.load(CommonConfig, COMMON, parsed("--directory", "/c")).directory == Path("/c")


def test_unknown_variables_are_told_with_the_nearest(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.unknown_variables() == []
    for name in ("TICKPATH_DIRECTORY", "TICKPATH_SHOP_PORT", "TICKPATH_CONFIG"):
        monkeypatch.setenv(name, "x")
    assert config.unknown_variables() == []
    monkeypatch.setenv("TICKPATH_SHOP_PROT", "1")
    monkeypatch.setenv("TICKPATH_REGION", "tokyo")
    region, prot = config.unknown_variables()
    assert region == "environment variable TICKPATH_REGION is not known and has no effect"
    assert prot.endswith("TICKPATH_SHOP_PROT is not known and has no effect; did you mean 'TICKPATH_SHOP_PORT'?")


def test_help_shows_descriptions_defaults_and_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "--port N port to listen on (default: 18064)" in text
    assert "--match {offset,socket} 100% of what is matched (default: offset)" in text


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def _one_line_or_fine(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    try:
        config.load(ShopConfig, "shop", argparse.Namespace(config=path))
    except ConfigError as error:
        assert "\n" not in str(error)


quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_give_one_line_or_a_configuration(load: Load, tmp_path: Path, content: bytes) -> None:
    _one_line_or_fine(content, tmp_path / "any.toml")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(str(key))} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool | type(None)):
        return "true" if value else "false"
    if isinstance(value, str):
        return msgspec.json.encode(value.encode("utf-8", "replace").decode()).decode().replace("\x7f", "\\u007f")
    return str(value)


@quick
@given(st.sampled_from([*ShopConfig.__struct_fields__, "other"]), values)
def test_any_value_in_any_key_gives_one_line_or_a_configuration(
    load: Load, tmp_path: Path, key: str, value: Any
) -> None:
    _one_line_or_fine(f"[shop]\n{key} = {_toml(value)}\n".encode(), tmp_path / "any.toml")


@quick
@given(st.sampled_from(ShopConfig.__struct_fields__), st.text(st.characters(exclude_characters="\0"), min_size=1))
def test_any_text_in_a_flag_gives_one_line_or_a_configuration(load: Load, key: str, text: str) -> None:
    dest = config._dest(ShopConfig, key)
    given_value = [text] if key == "feeds" else text
    try:
        config.load(ShopConfig, "shop", argparse.Namespace(**{dest: given_value}))
    except ConfigError as error:
        assert "\n" not in str(error)
