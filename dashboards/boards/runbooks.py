# SPDX-License-Identifier: Apache-2.0
"""Runbooks as the pages that Prometheus serves at /consoles, so that an alert's link leads somewhere while it fires."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from boards.files import FOLDER

SOURCE = FOLDER.parent / "docs" / "runbooks"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>tickpath: {title}</title><style>
body {{ font: 16px/1.5 sans-serif; max-width: 52em; margin: 2em auto; padding: 0 1em; color: #222; background: #fff }}
code, pre {{ background: #f2f2f2 }} td, th {{ border: 1px solid #ccc; padding: .3em .6em; text-align: left }}
table {{ border-collapse: collapse }} :target {{ background: #fff3bf }}
@media (prefers-color-scheme: dark) {{ body {{ color: #ccc; background: #111 }} code, pre {{ background: #222 }}
:target {{ background: #443a00 }} a {{ color: #8ab4f8 }} }}
</style></head><body>
{body}</body></html>
"""


def anchor(heading: str) -> str:
    """Of a heading, as GitHub makes it: one link is right in both places."""
    return heading.strip().lower().replace(" ", "-")


def _inline(tokens: list[Token]) -> Iterator[Token]:
    """Without links out of the folder, which lead nowhere from here; to another runbook, to its page."""
    kept: list[bool] = []
    for token in tokens:
        if token.type == "link_open":
            target = str(token.attrs["href"])
            here = re.fullmatch(r"(\w+)\.md(#.*)?", target)
            if here:
                token.attrs["href"] = f"{here[1]}.html{here[2] or ''}"
            kept.append(bool(here) or target.startswith(("http", "#")))
        if token.type not in ("link_open", "link_close") or kept[-1]:
            yield token
        if token.type == "link_close":
            kept.pop()


def _page(text: str) -> str:
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(text)
    for token, inline in pairwise(tokens):
        if token.type == "heading_open":
            token.attrs["id"] = anchor(inline.content)
    for token in tokens:
        token.children = list(_inline(token.children)) if token.children else token.children
    title = tokens[1].content
    body = str(reader.renderer.render(tokens, reader.options, {}))
    # Prometheus takes the page for a template.
    return _PAGE.format(title=title, body=body.replace("{{", '{{"{{"}}'))


def runbooks() -> Iterator[tuple[Path, str]]:
    """Path and text of each page."""
    for source in sorted(SOURCE.glob("*.md")):
        yield FOLDER / "runbooks" / f"{source.stem}.html", _page(source.read_text())
