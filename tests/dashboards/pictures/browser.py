# SPDX-License-Identifier: Apache-2.0
"""A page drawn by a headless Chromium."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def screenshot(page: Path, picture: Path, width: int, height: int, *flags: str) -> None:
    """Draw the upper left part of a page, so many pixels of it."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or "google-chrome"
    subprocess.run(
        [
            browser,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--allow-file-access-from-files",
            f"--window-size={width},{height}",
            f"--screenshot={picture}",
            *flags,
            page.as_uri(),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
