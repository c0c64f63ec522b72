# SPDX-License-Identifier: Apache-2.0
"""`tickpath probe NAME`: the probes, each found by its entry point."""

from __future__ import annotations

from tickpath.command import family

command = family("tickpath.probes", metavar="PROBE", help="watch from outside the measured application")
