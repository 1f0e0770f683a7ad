"""A long text in constant memory: read in chunks, cut where tokens end, and counted."""

import codecs
import dataclasses
import hashlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from gpt2.user_file import open_file, parse_json
from user_error import UserError

CHUNK_BYTES = 1 << 16
BYTE_ORDER_MARK = "\ufeff"  # editors on Windows put it at the beginning of a file
# No token contains a character that is not a space together with the space or line end after it, so
# cutting between the two does not change the token ids.
LAST_SAFE_CUT = re.compile(r".*\S(?=[ \n])", re.DOTALL)


@dataclasses.dataclass
class Counts:
    """The units of a text."""

    words: int = 0  # separated by white space
    lines: int = 0  # line ends
    characters: int = 0
    bytes: int = 0  # of UTF-8

    def add(self, text: str) -> None:
        """Count a text that does not continue a word."""
        self.words += len(text.split())
        self.lines += text.count("\n")
        self.characters += len(text)
        self.bytes += len(text.encode("utf-8", "surrogatepass"))  # the encoder reports those


def text_chunks(
    path: str,
    *,
    start: int = 0,
    cut: bool = False,
    on_read: Callable[[int], object] = lambda _: None,
) -> Iterator[str]:
    """The text of a UTF-8 file in chunks: line ends as they are, without a byte order mark.

    Args:
      path: the file; `-` is stdin, of which a line that is typed or piped comes at once.
      start: byte to begin at.
      cut: the text may begin and end inside a character, which is then left out.
      on_read: called with the number of bytes of each chunk.
    Raises: UserError if the file cannot be read, or is not UTF-8.
    """
    decoder, skipping, at_start = codecs.getincrementaldecoder("utf-8")(), cut, not start
    stdin: Any = sys.stdin
    try:
        with stdin.buffer if path == "-" else open_file(path, pipes=True) as file:
            if start:
                file.seek(start)
            while data := file.read1(CHUNK_BYTES):
                on_read(len(data))
                if skipping:
                    data, skipping = data.lstrip(bytes(range(0x80, 0xC0))), False
                text = decoder.decode(data)
                yield text.removeprefix(BYTE_ORDER_MARK) if at_start else text
                at_start = False
        if not cut:
            decoder.decode(b"", final=True)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason}") from None


def unescape(text: str) -> str:
    r"""The text that a flag means: \n in it is a line end, \t a tab."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def fingerprint(path: str | Path) -> str:
    """SHA-256 of a file. Raises: UserError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open_file(path) as file:
            while data := file.read(CHUNK_BYTES):
                digest.update(data)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    return digest.hexdigest()


def text_record(place: str, line: str) -> dict[str, Any]:
    """The object in a line of JSON Lines. Its `text` must be a string.

    Raises: UserError, which names the place of the line, if it is no such object.
    """
    try:
        record = parse_json(line)
        if isinstance(record["text"], str):
            return record
    except (ValueError, TypeError, KeyError):
        pass
    raise UserError(f'{place}: expected a JSON object with a text, {{"text": "..."}}')


def lines(chunks: Iterable[str]) -> Iterator[str]:
    """The lines of a text, each ending in a line feed, for CRLF too; the last may have none."""
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split("\n")
        yield from (line.removesuffix("\r") + "\n" for line in whole)
    if rest:
        yield rest


def safe_pieces(chunks: Iterable[str]) -> Iterator[str]:
    """The same text, cut only where that does not change its token ids.

    A piece is about as long as a chunk, or as long as a run of text without a space.
    """
    held: list[str] = []
    for chunk in chunks:
        found = LAST_SAFE_CUT.match(chunk)
        if found:
            yield "".join([*held, found[0]])
            held = [chunk[found.end() :]]
        else:
            held.append(chunk)
    if any(held):
        yield "".join(held)
