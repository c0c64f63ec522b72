# SPDX-License-Identifier: Apache-2.0
"""tickpath: where the time of every WebSocket market-data message went."""

# typing.TYPE_CHECKING without the import: the command catches Ctrl-C only once this module is loaded.
TYPE_CHECKING = False

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name):
        """The version, looked up when it is asked for."""
        if name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415 - costs tens of milliseconds

            return version("tickpath")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
