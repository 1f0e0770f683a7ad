"""Locks, so that two runs do not write the same file or folder at once."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from user_error import UserError


@contextlib.contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """Keep other runs from writing a file, or to a folder, while this one does.

    The lock is on a file of its own, `PATH.lock`, or `PATH/.lock` for a folder that exists,
    because the file itself may be replaced. The lock file is removed at the end. If the process
    is killed, the lock file stays, but the lock does not: the next run uses the same file.

    Raises: UserError if another run holds the lock; OSError if the lock file can't be written.
    """
    place = path / ".lock" if path.is_dir() else path.with_name(path.name + ".lock")
    while True:
        with place.open("a", encoding="utf-8") as file:
            if not try_lock(file):
                raise UserError(
                    f"another run is writing to {path}; wait until it ends, or choose another name"
                )
            if not is_open_file(place, file):
                continue  # the run that held the lock has removed the file since it was opened
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # Windows removes no open file; it may stay
                    place.unlink()
            return


def try_lock(file: IO[str]) -> bool:
    """Lock an open file, unless another process has. The lock ends with the process."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 30)  # Windows keeps others from reading what is locked
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a network disk that has no locks
        return True
    return True


def is_open_file(path: Path, file: IO[str] | IO[bytes]) -> bool:
    """Whether a path still leads to this open file, so that nobody has moved or removed it."""
    with contextlib.suppress(OSError):
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    return False
