# SPDX-License-Identifier: Apache-2.0
"""`tickpath capture NAME`: the captures, each found by its entry point."""

from __future__ import annotations

from tickpath.command import family

command = family("tickpath.captures", metavar="CAPTURE", help="take a NIC's frames without the kernel")
