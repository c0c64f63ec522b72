# SPDX-License-Identifier: Apache-2.0
"""Every error that tickpath raises on purpose: one line that says what, which and why, with the remedy."""

from __future__ import annotations


class TickpathError(Exception):
    """Base of all. Its text is shown to the operator as it stands: one line, no traceback."""

    exit_code = 1


class ConfigError(TickpathError):
    """A configuration, an environment variable or a flag that cannot be used."""

    exit_code = 2


class RingError(TickpathError):
    """A ring file that cannot be made, opened, or trusted."""


class InputError(TickpathError):
    """Bytes from outside (a recording, a URL, a frame) that are not what they claim to be."""

    exit_code = 2


class NotHereError(TickpathError):
    """This host, or this installation, has no such thing; nothing is wrong with what was asked."""

    exit_code = 69  # EX_UNAVAILABLE of sysexits.h: who starts us need not try again


class PermissionMissingError(TickpathError):
    """The host forbids what was asked; the text names the capability or the command that would allow it."""

    exit_code = 77  # EX_NOPERM of sysexits.h: who starts us can tell this from a fault
