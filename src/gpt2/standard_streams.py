"""Standard input, output and error of all scripts: UTF-8, and safe for a terminal."""

import codecs
import io
import os
import sys

from gpt2.terminal import VisibleText, log_once

REPLACE_AND_REPORT = "gpt2.replace_and_report"  # what Python does with bytes that are not UTF-8


def prepare_streams() -> None:
    """Let files and pipes be UTF-8 with line feeds, whatever the locale is.

    Bytes of standard input that are not UTF-8 become U+FFFD, and one line on stderr reports that. A
    terminal keeps its own encoding, and gets no control characters from models and files.
    """
    # What the shell has closed (<&-, >&-, 2>&-), in this order: each gets the lowest descriptor.
    for name, mode in ("stdin", "r"), ("stdout", "w"), ("stderr", "w"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
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


def _replace_and_report(error: UnicodeError) -> tuple[str | bytes, int]:
    log_once("standard input is not UTF-8 text: U+FFFD stands for each wrong byte")
    return codecs.replace_errors(error)


codecs.register_error(REPLACE_AND_REPORT, _replace_and_report)
