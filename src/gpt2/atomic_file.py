"""Atomic file replacement: neither a reader nor a crash ever sees half a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path, suffix: str = ".new") -> Iterator[IO[bytes]]:
    """A file to write that becomes `path` once it is complete; after an error nothing is left.

    Args:
      path: may exist.
      suffix: of the temporary name; if several processes may write the file, each needs its own.
    Raises: OSError, with the name of the file, if it cannot be written.
    """
    new = path.with_name(path.name + suffix)
    try:
        new.unlink(missing_ok=True)  # it may be a link, or what a kill left
        with new.open("xb") as file:
            yield file
        new.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        new.unlink(missing_ok=True)
