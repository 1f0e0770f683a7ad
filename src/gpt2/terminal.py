"""What a terminal shows: a status line, and text without control characters."""

import builtins
import contextlib
import functools
import logging
import re
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

log = logging.getLogger("gpt2")
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)")


@contextlib.contextmanager
def status_line(text: str) -> Iterator[None]:
    """Show a line on a terminal while the block runs.

    A pipe or a file gets nothing, as the line would stay there.
    """
    if not sys.stderr.isatty():
        yield
        return
    sys.stderr.write(text)
    sys.stderr.flush()
    try:
        yield
    finally:
        sys.stderr.write("\r" + " " * len(text) + "\r")
        sys.stderr.flush()


def in_notebook() -> bool:
    """Whether Python runs in a notebook, where `input` asks in the browser."""
    return not isinstance(builtins.input, types.BuiltinFunctionType)


def escaped(text: str) -> str:
    """One line that is safe on a terminal: unprintable characters are written as `\\x1b`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@functools.cache
def log_once(line: str) -> None:
    """Log a line once in this process; scripts print it on stderr."""
    log.warning(escaped(line))


class VisibleText:
    """A terminal's stream that shows control characters, except tab and line end, as U+FFFD.

    Text of models and files may hold escape sequences, which could change what the terminal shows
    and does.

    Args:
      stream: the text stream to write to; everything else is passed on to it.
      kept: control characters that are written unchanged.
    """

    def __init__(self, stream: Any, kept: str = ""):
        self._stream, self._kept = stream, kept

    def write(self, text: str) -> int:
        """Write text to the terminal."""
        self._stream.write(CONTROL_CHARACTERS.sub(self._shown, text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts to the terminal."""
        for line in lines:
            self.write(line)

    def _shown(self, found: re.Match[str]) -> str:
        return found[0] if found[0] in self._kept else "\ufffd"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
