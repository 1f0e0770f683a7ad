"""The texts that a dump continues. A file of any size is read again in each pass, never kept."""

import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

from gpt2.text_stream import stdin_chunks, text_chunks, text_record, unescape
from user_error import UserError, require

Prompt = tuple[str, str | None]  # where it comes from, for an error about it; and its text
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
        if path == "-":
            self._copy(stdin_chunks())
        elif _is_pipe(path):
            self._copy(text_chunks(path))
        self._state = self._look()

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

    def _look(self) -> tuple[int, int, int]:
        """What tells that a file has changed; zeros if there is none, as reading it will say."""
        try:
            found = os.stat(self._path)  # noqa: PTH116
        except (OSError, ValueError):
            return 0, 0, 0
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _check(self, n_read: int) -> None:
        if self._look() != self._state:
            raise UserError(f"{self.name} was changed while it was read")


def _is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)  # noqa: PTH116
    except (OSError, ValueError):
        return False


def split_texts(chunks: Iterable[str], separator: str) -> Iterator[str]:
    """What stands between separators in a text that comes in chunks.

    CRLF is read as a line feed, and a line feed that ends the text is not part of it.
    """
    held: list[str] = []
    begun = ""  # what a separator may have begun in
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
