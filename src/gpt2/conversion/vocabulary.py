"""The vocabulary in Hugging Face's format, and in the released one.

Both have a table of tokens and a list of merges, in the same spelling: each byte is one printable
character. Hugging Face lists tokens that were added later separately, in plain spelling.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from encoder import END_OF_TEXT, Encoder, bytes_to_unicode
from gpt2.conversion.folder import read_file, read_object, write_object
from hparams import HParams
from user_error import UserError

TOKENIZER_CONFIG = "tokenizer_config.json"
ADDED = "added_tokens_decoder"  # in TOKENIZER_CONFIG
MERGES_HEADER = "#version: 0.2"
OTHER_IDS = "which gives other token ids than GPT-2's rules"
Merges = list[tuple[str, str]]
BYTE_LEVEL: dict[str, Any] = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}


def read_vocabulary(folder: Path, n_vocab: int) -> tuple[dict[str, int], Merges, list[str]]:
    """The vocabulary of a model with `n_vocab` rows.

    Returns: token in printable characters -> id, in the order of ids; the merges; and the tokens
      that were left out because the model has no row for them.
    Raises: UserError if it is damaged, or text would get other ids than by GPT-2's rules.
    """
    settings = _read_if_there(folder / TOKENIZER_CONFIG)
    for name in ("add_prefix_space", "add_bos_token"):
        if settings.get(name):
            raise UserError(f"{folder / TOKENIZER_CONFIG}: {name} is set, {OTHER_IDS}")
    source = folder / "tokenizer.json"
    if source.exists():
        tokenizer = read_object(source)
    else:
        source = folder / "vocab.json"
        if not (source.exists() and (folder / "merges.txt").exists()):
            raise UserError(f"{folder} has neither tokenizer.json nor vocab.json with merges.txt")
        model = {"vocab": read_object(source), "merges": _read_merges(folder / "merges.txt")}
        tokenizer = {"model": model, "pre_tokenizer": BYTE_LEVEL}
    added = _read_if_there(folder / "added_tokens.json")
    try:
        _check_rules(tokenizer)
        ids = _check_ids(tokenizer["model"]["vocab"])
        merges = _check_merges(tokenizer["model"]["merges"])
        left_out = _add(ids, _added_tokens(added, tokenizer, settings), n_vocab)
    except (AttributeError, KeyError, TypeError):
        where = f"{source}, or a file next to it,"
        raise UserError(f"{where} does not have the format of a BPE tokenizer") from None
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None
    if END_OF_TEXT not in ids:
        raise UserError(f"{source} has no {END_OF_TEXT}, with which texts begin and end here")
    if (most := max(ids.values())) >= n_vocab:
        raise UserError(f"{source}: an id is {most}, and vocab_size in config.json is {n_vocab}")
    return dict(sorted(ids.items(), key=lambda item: item[1])), merges, left_out


def write_released(folder: Path, ids: Mapping[str, int], merges: Merges) -> None:
    """Write encoder.json and vocab.bpe: for the released vocabulary, the same bytes."""
    (folder / "encoder.json").write_text(json.dumps(ids), encoding="utf-8")
    _write_merges(folder / "vocab.bpe", merges)


def keep_settings(source: Path, folder: Path) -> None:
    """Copy what the released format cannot hold to where `write_hugging_face` finds it: the name
    of the padding token, and how added tokens treat the spaces around them.
    """
    if kept := _kept_settings(source):
        write_object(folder / TOKENIZER_CONFIG, kept)


def _kept_settings(folder: Path) -> dict[str, Any]:
    settings = _read_if_there(folder / TOKENIZER_CONFIG)
    entries = _read_if_there(folder / "tokenizer.json").get("added_tokens") or []
    by_id = {str(entry["id"]): entry for entry in entries}
    by_id = {
        i: {name: value for name, value in entry.items() if name != "id"}
        for i, entry in (settings.get(ADDED) or by_id).items()
        if isinstance(entry, dict) and entry.get("content", END_OF_TEXT) != END_OF_TEXT
    }
    kept = {"pad_token": settings.get("pad_token"), ADDED: by_id}
    return {name: value for name, value in kept.items() if value}


def write_hugging_face(
    folder: Path, encoder: Encoder, hparams: HParams, source: Path | None = None
) -> None:
    """Write vocab.json, merges.txt, tokenizer.json and tokenizer_config.json.

    Args: source, the folder of the model, where `keep_settings` may have left a file.
    """
    kept = _kept_settings(source) if source else {}
    merges = list(encoder.bpe_ranks)
    learned = {*encoder.byte_decoder, *map("".join, merges)}
    added = {token: encoder.decode([i]) for token, i in encoder.encoder.items()}
    added = {token: text for token, text in added.items() if token not in learned}
    vocab = {added.get(token, token): i for token, i in encoder.encoder.items()}
    if len(vocab) < len(encoder.encoder):
        raise UserError("an added token of the vocabulary is spelled like another token")
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    _write_merges(folder / "merges.txt", merges)
    flags = {entry["content"]: entry for entry in kept.pop(ADDED, {}).values()}
    entries = [_added_token(text, vocab[text], flags.get(text, {})) for text in added.values()]
    write_object(folder / "tokenizer.json", _tokenizer(vocab, merges, entries))
    write_object(
        folder / TOKENIZER_CONFIG,
        {
            "tokenizer_class": "GPT2Tokenizer",
            **dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT),
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": hparams.n_ctx,
            **kept,
        },
    )


def _added_token(text: str, i: int, kept: Mapping[str, Any]) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": text, **flags, "special": True, **kept}


def _tokenizer(
    vocab: Mapping[str, int], merges: Merges, added: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The content of tokenizer.json."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": BYTE_LEVEL,
        "post_processor": {**BYTE_LEVEL, "trim_offsets": False},
        "decoder": BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [" ".join(pair) for pair in merges],
        },
    }


def _check_rules(tokenizer: Mapping[str, Any]) -> None:
    """Raise ValueError if a tokenizer.json splits text in another way, or adds tokens to it."""
    parts: dict[str, list[str | None]] = {
        "normalizer": [None],
        "pre_tokenizer": ["ByteLevel"],
        "post_processor": [None, "ByteLevel"],
        "model": ["BPE", None],  # older files leave the type out
    }
    for name, types in parts.items():
        part = tokenizer.get(name)
        kind = part and part.get("type")
        if kind not in types:
            raise ValueError(f"{name} is {kind!r}; GPT-2's is {types[0]!r}")
    model, cut = tokenizer["model"], tokenizer["pre_tokenizer"]
    settings = {"add_prefix_space": cut.get("add_prefix_space")}
    settings |= {"use_regex false": not cut.get("use_regex", True)}
    names = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
    settings |= {name: model.get(name) for name in names}
    for name, value in settings.items():
        if value:
            raise ValueError(f"{name} is set, {OTHER_IDS}")


def _added_tokens(
    added: Mapping[str, Any], tokenizer: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[tuple[Any, Any]]:
    """The text and id of each token that one of the files adds to the vocabulary."""
    entries = [(entry["content"], entry["id"]) for entry in tokenizer.get("added_tokens") or []]
    by_id = settings.get(ADDED) or {}
    return [*added.items(), *entries, *((entry["content"], int(i)) for i, entry in by_id.items())]


def _add(ids: dict[str, int], added: Sequence[tuple[Any, Any]], n_vocab: int) -> list[str]:
    """Put added tokens into `ids`, spelled like the others.

    Returns: those that the model has no row for. Raises: ValueError for one that has no place.
    """
    byte_encoder = bytes_to_unicode()
    taken = {i: token for token, i in ids.items()}
    left_out = []
    for text, i in added:
        if not isinstance(text, str) or not text or type(i) is not int or i < 0:
            raise ValueError(f"an added token is {text!r} with the id {i!r}")
        token = "".join(byte_encoder[byte] for byte in text.encode("utf-8", "replace"))
        if i >= n_vocab:
            left_out.append(text)
            continue
        if taken.get(i, token) not in (token, text) or ids.get(token, i) != i:
            raise ValueError(f"the added token {text!r} and another one share a name or an id")
        ids.pop(taken.get(i, token), None)
        ids[token], taken[i] = i, token
    return sorted(set(left_out))


def _check_ids(vocab: Mapping[str, Any]) -> dict[str, int]:
    ids = list(vocab.values())
    if {*map(type, ids)} != {int} or min(ids) < 0:
        raise ValueError("an id is not a whole number of at least 0")
    if len({*ids}) < len(ids):
        raise ValueError("two tokens have the same id")
    return dict(vocab)


def _check_merges(merges: Sequence[Any]) -> Merges:
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    for pair in pairs:
        if len(pair) != 2 or any(token.split() != [token] for token in pair):
            raise ValueError(f"a merge is {pair!r}, not two tokens")
    return [(left, right) for left, right in pairs]


def _read_merges(path: Path) -> list[str]:
    """The lines of a merges.txt, without its version."""
    lines = read_file(path).replace("\r\n", "\n").removesuffix("\n").split("\n")
    return lines[1:] if lines[0].startswith("#version") else lines


def _write_merges(path: Path, merges: Merges) -> None:
    lines = [MERGES_HEADER, *map(" ".join, merges)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_object(path) if path.exists() else {}
