"""Standard input, output and error of all scripts: UTF-8, and safe for a terminal."""

import io
import os
import sys

from gpt2.terminal import VisibleText


def prepare_streams() -> None:
    """Let files and pipes be UTF-8 with line feeds, whatever the locale is.

    A terminal keeps its own encoding, and gets no control characters from models and files.
    """
    # What the shell has closed (<&-, >&-, 2>&-), in this order: each gets the lowest descriptor.
    for name, mode in ("stdin", "r"), ("stdout", "w"), ("stderr", "w"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a notebook has others
            if stream.isatty():
                stream.reconfigure(errors="replace")
            else:
                stream.reconfigure(encoding="utf-8", errors="replace", newline="\n")
    if sys.stdout.isatty():
        sys.stdout = VisibleText(sys.stdout)
    if sys.stderr.isatty():
        sys.stderr = VisibleText(sys.stderr, kept="\r")  # progress bars begin with it
