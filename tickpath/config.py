# SPDX-License-Identifier: Apache-2.0
"""Typed configuration: defaults, then one TOML file, then environment variables, then flags; the later one wins.

A part owns one section as a frozen msgspec.Struct and registers it under the entry-point group `tickpath.config`
(section name -> struct type), in a module that imports little: any command may load it to check the file.

    class ExporterConfig(msgspec.Struct, frozen=True, kw_only=True):
        port: Annotated[int, Meta(ge=1, le=65535, description="port to listen on")] = 18064

`[exporter] port = 1` in the file, TICKPATH_EXPORTER_PORT=1 and `--port 1` then mean the same. The keys of CommonConfig
stand at the top of the file and have no section in their variables (TICKPATH_DIRECTORY). Lists are comma-separated in
variables and flags, a flag may be repeated; an IntEnum is given by the name of its member; an empty variable counts as
not set.
"""

from __future__ import annotations

import argparse
import os
import tomllib
import types
import typing
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from enum import IntEnum
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from tickpath.errors import ConfigError

GROUP = "tickpath.config"
COMMON = ""
DEFAULT_FILE = Path("tickpath.toml")
MAX_FILE_BYTES = 1 << 20
PREFIX = "TICKPATH_"

S = TypeVar("S", bound=msgspec.Struct)
_Section = type[msgspec.Struct]


class CommonConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What every command knows."""

    directory: Annotated[Path, Meta(description="directory of the rings")] = Path("/dev/shm/tickpath")
    log_format: Annotated[
        Literal["auto", "console", "logfmt", "json"],
        Meta(description="how logs are written; auto: console on a terminal, else logfmt"),
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="the least severe line to log")
    ] = "info"


def add_flags(parser: argparse.ArgumentParser, struct: _Section) -> None:
    """One flag per field of the struct, with its description as help; load() finds them in the parsed arguments."""
    group = parser.add_argument_group()
    for field in msgspec.structs.fields(struct):
        kind, text = _described(field.type)
        flag: dict[str, Any] = {"dest": _dest(struct, field.name), "default": None}
        flag["help"] = (text + _shown_default(field)).replace("%", "%%")
        if kind is bool:
            group.add_argument(_flag(field.name), action=argparse.BooleanOptionalAction, **flag)
            continue
        if typing.get_origin(kind) is list:
            flag["action"] = "append"
        group.add_argument(_flag(field.name), metavar=_metavar(kind), **flag)


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """`--config` and the flags of CommonConfig."""
    add_flags(parser, CommonConfig)
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"configuration (default: $TICKPATH_CONFIG, else ./{DEFAULT_FILE})"
    )


def load(struct: type[S], section: str, args: argparse.Namespace | None = None) -> S:
    """The section as file, environment and flags together say; COMMON for CommonConfig.

    Raises ConfigError naming where the wrong value stands. The whole file is checked, other parts' sections too.
    """
    args = args or argparse.Namespace()
    values: dict[str, Any] = {}
    if file := _file(args):
        values |= _checked_file(file, section, struct)
    for field in msgspec.structs.fields(struct):
        variable = _variable(section, field.name)
        if text := os.environ.get(variable, ""):
            values[field.name] = _from_text(text, field.type, f"environment variable {variable}")
        given = getattr(args, _dest(struct, field.name), None)
        if given is not None:
            values[field.name] = _from_flag(given, field.type, f"flag {_flag(field.name)}")
        if field.required and field.name not in values:
            raise ConfigError(
                f"{_place(section)}{field.name} is not set: give it in the file, {variable} or {_flag(field.name)}"
            )
    try:
        return struct(**values)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{_place(section)}{error}") from error


def unknown_variables() -> list[str]:
    """One line per environment variable TICKPATH_* that no section knows, with the nearest that one does.

    Not an error: compose files and shells carry variables of the same prefix for other readers.
    """
    ours = sorted(name for name in os.environ if name.startswith(PREFIX))
    known = {f"{PREFIX}CONFIG", *_variables(COMMON, CommonConfig)}
    if set(ours) <= known:
        return []
    for section in _registered():
        if any(name.startswith(_variable(section, "")) for name in ours):
            known |= _variables(section, _section_type(section))
    return [
        f"environment variable {name} is not known and has no effect{_nearest(name, known)}"
        for name in ours
        if name not in known
    ]


# Where a value comes from


def _file(args: argparse.Namespace) -> Path | None:
    given: Path | None = getattr(args, "config", None)
    if given is None and (named := os.environ.get(f"{PREFIX}CONFIG")):
        given = Path(named)
    if given is None:
        return DEFAULT_FILE if os.access(DEFAULT_FILE, os.F_OK) else None
    return given


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigError(f"configuration {str(path)!r} cannot be read: {reason}") from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"configuration {str(path)!r} is larger than {MAX_FILE_BYTES} bytes")
    try:
        return tomllib.loads(content.decode())
    except RecursionError as error:
        raise ConfigError(f"configuration {str(path)!r} is nested too deeply") from error
    except ValueError as error:
        raise ConfigError(f"configuration {str(path)!r} is not TOML: {_one_line(error)}") from error


def _checked_file(path: Path, wanted: str, struct: _Section) -> dict[str, Any]:
    """The wanted section of the file, after every section in it has been checked."""
    content = _read(path)
    common = {field.name for field in msgspec.structs.fields(CommonConfig)}
    sections = {*_registered(), wanted} - {COMMON}
    found: dict[str, Any] = {}
    for key, value in content.items():
        if key in common:
            continue
        if key not in sections:
            kind, known = ("section", sections) if isinstance(value, dict) else ("key", common)
            raise ConfigError(f"unknown {kind} {key!r} in {str(path)!r}{_nearest(key, known)}")
        if not isinstance(value, dict):
            raise ConfigError(f"{key!r} in {str(path)!r} is a section: write [{key}] above its keys")
        checked = _checked_table(value, key, struct if key == wanted else _section_type(key), path)
        found |= checked if key == wanted else {}
    top = {key: value for key, value in content.items() if key in common}
    checked = _checked_table(top, COMMON, struct if wanted == COMMON else CommonConfig, path)
    return checked if wanted == COMMON else found


def _checked_table(table: dict[str, Any], section: str, struct: _Section, path: Path) -> dict[str, Any]:
    fields = {field.name: field.type for field in msgspec.structs.fields(struct)}
    values = {}
    for key, value in table.items():
        if key not in fields:
            raise ConfigError(f"unknown key {key!r} in [{section}] of {str(path)!r}{_nearest(key, fields)}")
        values[key] = _typed(value, fields[key], f"{_place(section)}{key} in {str(path)!r}", strict=True)
    return values


def _from_text(text: str, declared: Any, where: str) -> Any:
    kind, _ = _described(declared)
    if typing.get_origin(kind) is list:
        return _typed([item for item in text.split(",") if item], declared, where, strict=False)
    return _typed(text, declared, where, strict=False)


def _from_flag(given: Any, declared: Any, where: str) -> Any:
    if isinstance(given, list):
        return _from_text(",".join(given), declared, where)
    return given if isinstance(given, bool) else _from_text(given, declared, where)


# What a value must be


def _described(declared: Any) -> tuple[Any, str]:
    """A field's type without description and without `| None`; and its description."""
    text = ""
    if typing.get_origin(declared) is Annotated:
        declared, *extras = typing.get_args(declared)
        text = next((extra.description or "" for extra in extras if isinstance(extra, Meta)), "")
    if typing.get_origin(declared) in (typing.Union, types.UnionType):
        others = [kind for kind in typing.get_args(declared) if kind is not type(None)]
        if len(others) == 1:
            inner, inner_text = _described(others[0])
            return inner, text or inner_text
    return declared, text


def _decode(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str) and value and "\0" not in value:
        return Path(value)
    raise ValueError("Expected `path`")


def _typed(value: Any, declared: Any, where: str, *, strict: bool) -> Any:
    kind, _ = _described(declared)
    if isinstance(kind, type) and issubclass(kind, IntEnum):
        members = {member.name.lower(): member for member in kind}
        if isinstance(value, str) and value.lower() in members:
            return members[value.lower()]
        raise ConfigError(f"{where}: expected one of {', '.join(members)}, got {_shown(value)}")
    try:
        return msgspec.convert(value, declared, strict=strict, dec_hook=_decode)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: {_expectation(error, kind)}, got {_shown(value)}") from error


def _expectation(error: Exception, kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return f"expected one of {', '.join(map(str, typing.get_args(kind)))}"
    if kind is bool:
        return "expected true or false"
    words = _one_line(error).replace("`", "").split(" - at ")[0].split(", got ")[0]
    return words[:1].lower() + words[1:]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# Names


def _registered() -> dict[str, Callable[[], Any]]:
    return {entry.name: entry.load for entry in entry_points(group=GROUP)}


def _section_type(section: str) -> _Section:
    loaded: _Section = _registered()[section]()
    return loaded


def _nearest(name: str, known: Iterable[str]) -> str:
    # Without the common prefix, which would make all variables look alike.
    near = get_close_matches(name.removeprefix(PREFIX), [other.removeprefix(PREFIX) for other in known], n=1)
    prefix = PREFIX if name.startswith(PREFIX) else ""
    return f"; did you mean {prefix + near[0]!r}?" if near else ""


def _place(section: str) -> str:
    return f"[{section}] " if section else ""


def _variable(section: str, field: str) -> str:
    return f"{PREFIX}{section}_{field}".upper() if section else f"{PREFIX}{field}".upper()


def _variables(section: str, struct: _Section) -> set[str]:
    return {_variable(section, field.name) for field in msgspec.structs.fields(struct)}


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")


def _dest(struct: _Section, field: str) -> str:
    # Two sections may both have a `port`; flags of one command may not, and argparse says so.
    return f"{struct.__name__}.{field}"


def _metavar(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "{" + ",".join(map(str, typing.get_args(kind))) + "}"
    if isinstance(kind, type) and issubclass(kind, IntEnum):
        return "{" + ",".join(member.name.lower() for member in kind) + "}"
    if typing.get_origin(kind) is list:
        return _metavar(_described(typing.get_args(kind)[0])[0]) + "[,...]"
    return {Path: "PATH", int: "N", float: "X"}.get(kind, "TEXT")


def _shown_default(field: msgspec.structs.FieldInfo) -> str:
    if field.default is msgspec.NODEFAULT or field.default is None:
        return ""
    default = field.default.name.lower() if isinstance(field.default, IntEnum) else field.default
    return f" (default: {default})"
