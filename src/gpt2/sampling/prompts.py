"""The texts that a dump continues. A file is read again in each pass, so it may have any size."""

import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

from gpt2.text_stream import stdin_chunks, text_chunks, text_record, unescape
from user_error import UserError, require

Prompt = tuple[str, str | None]  # its place, for error messages, and its text
NO_PROMPT: list[Prompt] = [("", None)]  # samples start from `<|endoftext|>`


class PromptFile:
    r"""The texts of a file, each with its place, such as "prompts.txt, line 3".

    CRLF is read as a line feed; empty texts are left out. Only a regular file can be read twice,
    so standard input and pipes are first copied to a temporary one.

    Args:
      path: a .jsonl file has a JSON object with a `text` in each line; - is standard input.
      separator: what stands between the texts in other files. \n is a line end.
    Raises: UserError, also in a pass, if a text cannot be read, or the file has changed since.
    """

    def __init__(self, path: str, separator: str = "\\n"):
        self.name = path
        self._jsonl = path.endswith(".jsonl")
        self._separator = "\n" if self._jsonl else unescape(separator)
        require("separator", repr(separator), self._separator != "", "some text")
        self._path = path
        found = _stat(path)
        if path == "-":
            self._copy(stdin_chunks())
        elif found and stat.S_ISFIFO(found.st_mode):
            self._copy(text_chunks(path))
        self._state = _state(self._path)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        line = 1
        for part in split_texts(text_chunks(self._path, on_read=self._check), self._separator):
            place = f"{self.name}, line {line}"
            text = part.strip() if self._jsonl else part  # an empty line is not a record
            if text and self._jsonl:
                text = text_record(place, text)["text"]
            if text:
                yield place, text
            line += (part + self._separator).count("\n")

    def _copy(self, chunks: Iterable[str]) -> None:
        folder = tempfile.mkdtemp(prefix="prompts-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._path = str(Path(folder, "copy"))
        with Path(self._path).open("w", encoding="utf-8", newline="") as file:
            file.writelines(chunks)

    def _check(self, n_read: int) -> None:
        if _state(self._path) != self._state:
            raise UserError(f"{self.name} was changed while it was read")


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):  # reading the file gives the reason
        return None


def _state(path: str) -> tuple[int, int, int] | None:
    """Differs after a file has changed."""
    found = _stat(path)
    return found and (found.st_ino, found.st_size, found.st_mtime_ns)


def split_texts(chunks: Iterable[str], separator: str) -> Iterator[str]:
    """Split a text that comes in chunks at a separator.

    CRLF is read as a line feed, and a line feed at the end of the text is dropped.
    """
    held: list[str] = []
    begun = ""  # may be the beginning of a separator
    for chunk in _line_feeds(chunks):
        *parts, rest = (begun + chunk).split(separator)
        for part in parts:
            yield "".join([*held, part])
            held.clear()
        cut = max(0, len(rest) - len(separator) + 1)
        held.append(rest[:cut])
        begun = rest[cut:]
    yield "".join([*held, begun])


def _line_feeds(chunks: Iterable[str]) -> Iterator[str]:
    held = ""  # a character that may belong to the last line end
    for chunk in chunks:
        text = (held + chunk).replace("\r\n", "\n")
        held = text[-1:] if text.endswith(("\r", "\n")) else ""
        yield text.removesuffix(held)
    yield held.removesuffix("\n")
