"""Reading JSON files, and writing a folder that appears only when it is complete."""

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpt2.user_file import open_file, parse_json, read_text
from user_error import UserError

LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # git's stand-in for a large file


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` at the end. An error leaves nothing behind.

    Raises: UserError if `target` exists.
    """
    refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.unfinished-{secrets.token_hex(4)}")
    try:
        unfinished.mkdir()  # inside `try`, as a kill may come at once
        yield unfinished
        refuse_existing(target)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def refuse_existing(target: Path) -> None:
    """Raise UserError if `target` exists."""
    if target.exists() or target.is_symlink():
        raise UserError(f"{target} exists already; delete it, or choose another name")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises: UserError if there is none."""
    text = read_file(path)
    try:
        found = parse_json(text)
    except ValueError as error:
        raise UserError(f"{path} is not a JSON file: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return found


def read_file(path: Path) -> str:
    """The text of a UTF-8 file. Raises: UserError, also for a pointer of git's."""
    refuse_pointer(path)
    try:
        return read_text(path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason} at {error.start}") from None


def write_object(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON object, with one field on each line."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8", newline="\n")


def refuse_pointer(path: Path) -> None:
    """Raise UserError if a file cannot be read, or is git's pointer to it."""
    try:
        with open_file(path) as file:
            start = file.read(len(LFS_POINTER))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if start == LFS_POINTER:
        raise UserError(f"{path} is only a pointer to the file; fetch the file with: git lfs pull")
