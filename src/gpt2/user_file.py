"""Opening files that users name, except those that could block for ever or have no end."""

import errno
import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

from user_error import UserError

PIPES = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")  # what a shell writes for <(command)


def open_file(path: str | Path, pipes: bool = False) -> BufferedReader:
    """Open a file to read its bytes.

    Args:
      path: of a regular file. Opening a named pipe would wait for its writer, and a device may
        have no end.
      pipes: whether to accept a pipe that is open already, `<(command)` in a shell.
    Raises: OSError, with a reason in `strerror`.
    """
    try:
        mode = Path(path).stat().st_mode
    except ValueError as error:  # a NUL
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    open_pipe = pipes and stat.S_ISFIFO(mode) and str(path).startswith(PIPES)
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or open_pipe):
        raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(path))
    return Path(path).open("rb")


def expand(path: str) -> Path:
    """A path with `~` and `$NAME` expanded; what is unknown stays as it is."""
    filled = Path(os.path.expandvars(path))
    try:
        return filled.expanduser()
    except RuntimeError:
        return filled


def read_text(path: str | Path) -> str:
    """All of a UTF-8 text file, without a byte order mark.

    Raises: OSError as open_file; UnicodeDecodeError, which is a ValueError.
    """
    with open_file(path) as file:
        return file.read().decode("utf-8-sig")


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises: ValueError, also if it is nested too deeply to read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise UserError("the JSON is nested too deeply") from None
