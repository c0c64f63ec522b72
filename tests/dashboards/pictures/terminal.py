# SPDX-License-Identifier: Apache-2.0
"""A picture of what a command leaves on a terminal, as in the README:

python -P tests/dashboards/pictures/terminal.py build/demo.png 'make demo' .venv/bin/tickpath demo --duration 20
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
from io import StringIO
from pathlib import Path

from browser import screenshot
from rich.console import Console
from rich.text import Text

_COLUMNS = 80
_SCALE = 1.5
# What rich erases a live display with, before what stays.
_ERASED = re.compile(r".*\x1b\[2K", re.DOTALL)
_FONT_FACE = re.compile(r"@font-face \{.*?\}", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("title")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    flags = parser.parse_args()
    terminal = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": str(_COLUMNS)}
    said = subprocess.run(flags.command, env=terminal, stdout=subprocess.PIPE, text=True, check=True).stdout
    shown = Text.from_ansi(_ERASED.sub("", said))
    width = max(len(line.rstrip()) for line in shown.plain.splitlines()) + 1
    console = Console(record=True, width=width, file=StringIO(), force_terminal=True)
    console.print(shown)
    # Without the fonts that it would fetch: the system's own serve.
    svg = _FONT_FACE.sub("", console.export_svg(title=flags.title))
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert found
    page = flags.picture.with_suffix(".html").absolute()
    page.write_text(f"<!doctype html><meta charset=utf-8><style>body{{margin:0}} svg{{display:block}}</style>{svg}")
    size = (round(float(side)) for side in found.groups())
    screenshot(page, flags.picture.absolute(), *size, f"--force-device-scale-factor={_SCALE}")
    print(flags.picture)


if __name__ == "__main__":
    main()
