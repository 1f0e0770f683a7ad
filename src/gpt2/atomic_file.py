"""A file that is replaced as a whole, so that no reader and no kill finds half of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path, suffix: str = ".new") -> Iterator[IO[bytes]]:
    """A file to write that becomes `path` once it is whole; on an error nothing is left of it.

    Args:
      path: may be there already.
      suffix: of the name until then; where several processes may write it, one for each.
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
