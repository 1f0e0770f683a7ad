"""Files that are opened only if they are what they seem."""

import contextlib
import os
import stat
from pathlib import Path
from typing import IO, Any


def is_plain(path: Path) -> bool:
    """Whether there is a file, or nothing: no link, no device."""
    with contextlib.suppress(FileNotFoundError):
        return stat.S_ISREG(path.lstat().st_mode)
    return True


def open_plain(path: Path, mode: str, **options: Any) -> IO[Any]:
    """Open a file as `open` does, but follow no link, and do not wait for a device's other end.

    Raises: OSError.
    """

    def opener(name: str, flags: int) -> int:
        extra = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        return os.open(name, flags | extra, 0o666)

    return open(path, mode, opener=opener, **options)
