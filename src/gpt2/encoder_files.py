"""Reading a vocabulary whose files may be missing, damaged, or from different models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from encoder import END_OF_TEXT, Encoder
from gpt2.installation import download_command
from gpt2.user_file import parse_json, read_text
from user_error import UserError

MOST_GAPS = 1 << 16  # maximum number of ids without a token; Encoder has a list of all ids


def read_encoder(folder: Path) -> Encoder:
    """The encoder of the model in `folder`, from its `encoder.json` and `vocab.bpe`.

    Raises: UserError, which names the file and the remedy, if a file is missing or damaged.
    """
    remedy = download_command(folder.name)
    table = _load(folder / "encoder.json", _parse_encoder, remedy)
    merges = _load(folder / "vocab.bpe", _parse_merges, remedy)
    if END_OF_TEXT not in table:
        raise UserError(f"{folder / 'encoder.json'} has no {END_OF_TEXT}; get it again: {remedy}")
    encoder = Encoder(table, merges)
    wrong = [f"no merge makes {token!r}" for token in _lost_tokens(encoder)]
    unknown = {*map("".join, merges)} - table.keys()
    wrong += [f"a merge makes {token!r}, which encoder.json does not have" for token in unknown]
    if wrong:
        path = folder / "vocab.bpe"
        what = f"is cut short or belongs to another model ({wrong[0]})"
        raise UserError(f"{path} {what}; get it and encoder.json again: {remedy}")
    return encoder


def learned_tokens(encoder: Encoder) -> set[str]:
    """The tokens that text is encoded as: bytes, results of merges, and the end of text."""
    return {*encoder.byte_decoder, *map("".join, encoder.bpe_ranks), END_OF_TEXT}


def _lost_tokens(encoder: Encoder) -> list[str]:
    """The tokens that a merge should make, as they are two others joined, and that none makes.

    Tokens after the end of text may have been added later, without merges.
    """
    ids = encoder.encoder
    rest = [t for t in ids.keys() - learned_tokens(encoder) if ids[t] < ids[END_OF_TEXT]]
    return [t for t in rest if any(t[:i] in ids and t[i:] in ids for i in range(1, len(t)))]


def _load(path: Path, parse: Callable[[str], Any], remedy: str) -> Any:
    """The parsed content of a text file."""
    try:
        return parse(read_text(path).replace("\r\n", "\n"))
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); get it: {remedy}") from None
    except ValueError as error:
        raise UserError(f"{path} is broken ({error}); get it again: {remedy}") from None


def _parse_encoder(text: str) -> dict[str, int]:
    table = parse_json(text)
    if not isinstance(table, dict) or not table:
        raise ValueError("not an object of tokens and their ids")
    ids = table.values()
    if {*map(type, ids)} != {int} or min(ids) < 0 or max(ids) >= len(ids) + MOST_GAPS:
        raise ValueError("an id is not an integer, or far beyond the number of tokens")
    if len(set(ids)) < len(ids):
        raise ValueError("two tokens have the same id")
    try:
        "".join(table).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("a token contains half a character") from None
    return table


def _parse_merges(text: str) -> list[tuple[str, str]]:
    merges = []
    for number, line in enumerate(text.rstrip("\n").split("\n")[1:], 2):
        pair = line.split(" ")
        if len(pair) != 2 or not all(pair):
            raise ValueError(f"line {number} is {line!r}, not two tokens")
        merges.append((pair[0], pair[1]))
    return merges
