"""Standard input, output and error of all scripts: UTF-8, and safe for a terminal."""

import codecs
import io
import os
import sys

from gpt2.terminal import VisibleText, log_once
from user_error import UserError

REPLACE_AND_REPORT = "gpt2.replace_and_report"  # what Python does with bytes that are not UTF-8


def prepare_streams() -> None:
    """Let files and pipes be UTF-8 with line feeds, whatever the locale is.

    Bytes of standard input that are not UTF-8 become U+FFFD, and one line on stderr reports that. A
    terminal keeps its own encoding, and gets no control characters from models and files.
    """
    _open_closed_streams()
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a notebook has others
            errors = REPLACE_AND_REPORT if stream is sys.stdin else "replace"
            if stream.isatty():
                stream.reconfigure(errors=errors)
            else:
                stream.reconfigure(encoding="utf-8", errors=errors, newline="\n")
    if sys.stdout.isatty():
        sys.stdout = VisibleText(sys.stdout)
    if sys.stderr.isatty():
        sys.stderr = VisibleText(sys.stderr, kept="\r")  # progress bars begin with it


class ClosedOutput(io.TextIOWrapper):
    """Standard output that the shell has closed: anything printed would be lost."""

    def write(self, text: str) -> int:
        """Raise UserError."""
        raise UserError("standard output is closed; use > /dev/null to discard it")


def _open_closed_streams() -> None:
    """Put an empty stream where the shell closed one (`<&-`, `>&-`, `2>&-`).

    Each takes the lowest free descriptor, so the order matters.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115
    if sys.stdout is None:
        sys.stdout = ClosedOutput(open(os.devnull, "wb"), encoding="utf-8")  # noqa: PTH123, SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def _replace_and_report(error: UnicodeError) -> tuple[str | bytes, int]:
    log_once("standard input is not UTF-8 text: U+FFFD stands for each wrong byte")
    return codecs.replace_errors(error)


codecs.register_error(REPLACE_AND_REPORT, _replace_and_report)
