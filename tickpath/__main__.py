# SPDX-License-Identifier: Apache-2.0
"""The command's first lines: Ctrl-C ends it in silence from here on, the imports of everything else included."""

import gc
import os
import sys


def main() -> int:
    """Run the command line; returns its exit code, 130 after Ctrl-C."""
    # Nothing here multiplies matrices: the library for that would start a thread per processor, and each would spin.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # What imports make stays: it is not looked through for garbage meanwhile, nor later (cli.run).
    gc.disable()
    try:
        from tickpath.cli import run  # noqa: PLC0415 - see above

        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
