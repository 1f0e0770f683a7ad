"""A lock on an open file, so that one process at a time writes what belongs to it."""

import sys
from typing import IO


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
