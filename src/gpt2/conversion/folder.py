"""Reading JSON files, and writing a folder that appears only when it is complete."""

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpt2.user_file import parse_json, read_text
from user_error import UserError


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` at the end. An error leaves nothing behind.

    Raises: UserError if `target` exists.
    """
    if target.exists() or target.is_symlink():
        raise UserError(f"{target} exists already; delete it, or choose another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.unfinished-{secrets.token_hex(4)}")
    try:
        unfinished.mkdir()  # inside `try`, as a kill may come at once
        yield unfinished
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises: UserError if there is none."""
    try:
        found = parse_json(read_text(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except ValueError as error:  # also of broken UTF-8
        raise UserError(f"{path} is not a JSON file: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return found


def write_object(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON object, with one field on each line."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8", newline="\n")
