"""Text on a terminal."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def status_line(text: str) -> Iterator[None]:
    """Say on a terminal what is going on, in a line that is gone when it has ended.

    Elsewhere nothing is said: a line in a log would stay, and an error would be a second one.
    """
    if not sys.stderr.isatty():
        yield
        return
    print(text, end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r" + " " * len(text) + "\r", end="", file=sys.stderr, flush=True)
