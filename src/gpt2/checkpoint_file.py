"""The file `checkpoint` of a model, which names its weights: a protocol buffer in text format.

    model_checkpoint_path: "model-600"
    all_model_checkpoint_paths: "model-300"
    all_model_checkpoint_paths: "model-600"

Format: https://protobuf.dev/reference/protobuf/textformat-spec. TensorFlow can read it too, but
importing TensorFlow takes seconds.
"""

import os
import re
from itertools import takewhile
from pathlib import Path

from gpt2.user_file import open_file
from user_error import UserError

FIELD = "model_checkpoint_path"
LONGEST_NAME = 200  # bytes; file systems allow 255, and endings are added
TOKEN = re.compile(
    r"""(\s|\#[^\n]*)+ | (?P<word>[\w.+-]+|[:,;\[\]])
    | "(?P<double>([^"\\\n]|\\.)*)" | '(?P<single>([^'\\\n]|\\.)*)'""",
    re.VERBOSE,
)
ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))")
CHARACTERS = dict(zip(b"abfnrtv\\'\"?", b"\a\b\f\n\r\t\v\\'\"?", strict=True))


def newest_weights(folder: Path) -> Path:
    """The prefix of the weights that `folder / "checkpoint"` calls the newest.

    Only the last part of the path in it counts, as a folder may have been moved.
    Raises: UserError if the file cannot be read or names nothing.
    """
    path = folder / "checkpoint"
    try:
        with open_file(path) as file:
            value = _value(file.read().decode("utf-8", errors="surrogateescape"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if value is None:
        raise UserError(f"{path} names no {FIELD}")
    # Windows paths that were typed by hand have single backslashes, which are escapes then.
    names = [re.split(r"[/\\]", text)[-1] for text in (_unescape(value), value)]
    name = next((n for n in names if _usable(n) and (folder / f"{n}.index").is_file()), names[0])
    if not _usable(name):
        shown = repr(name[:40]) + ("" if len(name) <= 40 else " and so on")
        raise UserError(f"{path}: {FIELD} is {shown}, which cannot be the name of a file")
    return folder / name


def _usable(name: str) -> bool:
    return name.isprintable() and 0 < len(os.fsencode(name)) <= LONGEST_NAME


def _value(text: str) -> str | None:
    """The last value of the field, with its escapes; None if the text has none."""
    tokens: list[tuple[str | None, str]] = []  # kind and text
    at = 0
    while at < len(text):
        token = TOKEN.match(text, at)
        if not token:
            return None
        at = token.end()
        tokens += [(kind, part) for kind, part in token.groupdict().items() if part is not None]
    value = None
    for i in range(len(tokens)):
        if tokens[i : i + 2] == [("word", FIELD), ("word", ":")]:
            strings = takewhile(lambda token: token[0] != "word", tokens[i + 2 :])
            value = "".join(part for _, part in strings)  # neighbours are one string
    return value


def _unescape(text: str) -> str:
    """The text of a string in quotes; an unknown escape is kept."""

    def character(match: re.Match[bytes]) -> bytes:
        hexadecimal, octal, letter = match.groups()
        if letter:
            known = CHARACTERS.get(letter[0])
            return match[0] if known is None else bytes([known])
        return bytes([int(hexadecimal, 16) if hexadecimal else int(octal, 8) & 255])

    return os.fsdecode(ESCAPE.sub(character, text.encode("utf-8", errors="surrogateescape")))
