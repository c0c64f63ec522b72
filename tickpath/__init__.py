# SPDX-License-Identifier: Apache-2.0
"""tickpath: where the time of every WebSocket market-data message went."""

from importlib.metadata import version as _version

__version__ = _version("tickpath")
