# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from tickpath.event import Counter

SUFFIX: str

def make_directory(directory: Path) -> None: ...

class RingWriter:
    """The producer's end of the ring DIRECTORY/NAME.ring; one thread only.

    Takes over the file of a dead predecessor of that name and goes on where it stopped. Writes HELLO at once and BYE on
    close. Raises RingError: a live producer of that name, no permission, a full file system.
    """

    name: str
    kind: str
    path: Path
    def __init__(self, directory: Path, name: str, kind: str, *, capacity: int = ..., rows: int = ...) -> None: ...
    @property
    def head(self) -> int:
        """Number of the last record written."""
    @property
    def truncated(self) -> bool:
        """Whether the file was cut short under this producer: what it writes there reaches nobody, and does no harm."""
    def write(self, records: npt.NDArray[Any] | bytes | memoryview) -> None:
        """Append whole records (contiguous, as bytes: `array.view("u1")`); their `seq` is ignored."""
    def count(self, counter: Counter, add: int = 1) -> None: ...
    def open_row(self, row: npt.NDArray[Any] | np.void) -> int | None:
        """Take a row (dtype ROW) for a connection; the handle for records, None when all rows are taken (counted)."""
    def update_row(self, handle: int, row: npt.NDArray[Any] | np.void) -> None: ...
    def close_row(self, handle: int, closed_ns: int) -> None: ...
    def close(self) -> None:
        """End of its own will. As a context manager a writer does so unless the block fails (an Exception)."""
    def abandon(self) -> None:
        """End as one that failed: without BYE, so that who watches over producers is told."""
    def __enter__(self) -> RingWriter: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

class RingReader:
    """A reader's end: maps the file read-only; one thread only.

    Starts at the head, or with `from_start` at the oldest record that is still there (for a ring made while the reader
    was already looking for it; what was overwritten by then counts as lost).

    Raises RingError on opening what is no ring of this ABI, and from every call once the file was cut short.
    """

    path: Path
    def __init__(self, path: Path, *, from_start: bool = False) -> None: ...
    def read(self, out: npt.NDArray[Any] | memoryview) -> int:
        """Copy what is new into `out` (contiguous, as bytes: `array.view("u1")`); the number of records."""
    def row(self, handle: int) -> np.void | None:
        """The row (dtype ROW) that a record's `row` means; None when it belongs to another connection by now."""
    def rows(self) -> dict[int, np.void]:
        """Every row that was ever used, by the handle that records of it carry."""
    def modes(self) -> dict[str, dict[str, str]]:
        """How the producer sees, where it says so: by probe the mode of each hook ("tp_btf"), from a row of its own."""
    def counters(self) -> dict[Counter, int]: ...
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def capacity(self) -> int: ...
    @property
    def instance(self) -> int:
        """How many producers the file has had."""
    @property
    def head(self) -> int: ...
    @property
    def cursor(self) -> int:
        """Number of the last record taken or given up."""
    @property
    def lost(self) -> int:
        """Records that were overwritten before this reader came to them."""
    @property
    def inode(self) -> int: ...
    @property
    def alive(self) -> bool:
        """Whether a producer holds the file's lock."""
    @property
    def stopped(self) -> bool:
        """Whether the last producer ended of its own will: the newest record is its BYE."""
    def close(self) -> None: ...
    def __enter__(self) -> RingReader: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
