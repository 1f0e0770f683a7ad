"""The vocabulary in Hugging Face's format, and in the released one.

Both have a table of tokens and a list of merges, in the same spelling: each byte is one printable
character. Hugging Face lists tokens that were added later separately, in plain spelling.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from encoder import END_OF_TEXT, Encoder, bytes_to_unicode
from gpt2.conversion.folder import read_object, write_object
from gpt2.encoder_files import learned_tokens
from gpt2.terminal import log_once
from gpt2.user_file import read_text
from hparams import HParams
from user_error import UserError

TOKENIZER_CONFIG = "tokenizer_config.json"
MERGES_HEADER = "#version: 0.2"
OTHER_IDS = "which gives other token ids than GPT-2's rules"
Merges = Sequence[tuple[str, ...]]
BYTE_LEVEL: dict[str, Any] = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}


def read_vocabulary(folder: Path, n_vocab: int) -> tuple[dict[str, int], Merges]:
    """The vocabulary of a model with `n_vocab` rows.

    Returns: token in printable characters -> id, in the order of ids; and the merges.
    Raises: UserError if text would get other ids than by GPT-2's rules, or if a file is damaged as
      far as this is not found when the released files are read.
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
        tokenizer = _read_older_files(folder)
    try:
        _check_rules(tokenizer)
        ids = {**tokenizer["model"]["vocab"]}
        _add(ids, tokenizer.get("added_tokens") or [], n_vocab)
        lines = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
        ids = dict(sorted(ids.items(), key=lambda item: item[1]))
    except (AttributeError, KeyError, TypeError):
        raise UserError(f"{source} does not have the format of a BPE tokenizer") from None
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None
    if END_OF_TEXT not in ids:
        raise UserError(f"{source} has no {END_OF_TEXT}, with which texts begin and end here")
    return ids, [tuple(line.split(" ")) for line in lines]


def write_released(folder: Path, ids: Mapping[str, int], merges: Merges) -> None:
    """Write encoder.json and vocab.bpe: for the released vocabulary, the same bytes."""
    (folder / "encoder.json").write_text(json.dumps(ids), encoding="utf-8")
    _write_merges(folder / "vocab.bpe", merges)


def write_hugging_face(folder: Path, encoder: Encoder, hparams: HParams) -> None:
    """Write vocab.json, merges.txt, tokenizer.json and tokenizer_config.json."""
    merges = list(encoder.bpe_ranks)
    learned = learned_tokens(encoder) - {END_OF_TEXT}
    added = {
        token: encoder.decode([i]) for token, i in encoder.encoder.items() if token not in learned
    }
    vocab = {added.get(token, token): i for token, i in encoder.encoder.items()}
    if len(vocab) < len(encoder.encoder):
        raise UserError("an added token of the vocabulary is spelled like another token")
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    _write_merges(folder / "merges.txt", merges)
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    entries = [
        {"id": vocab[text], "content": text, **flags, "special": True} for text in added.values()
    ]
    write_object(folder / "tokenizer.json", _tokenizer(vocab, merges, entries))
    write_object(
        folder / TOKENIZER_CONFIG,
        {
            "tokenizer_class": "GPT2Tokenizer",
            **dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT),
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": hparams.n_ctx,
        },
    )


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


def _read_older_files(folder: Path) -> dict[str, Any]:
    """What tokenizer.json would hold, from vocab.json, merges.txt and added_tokens.json."""
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    if not (vocab.exists() and merges.exists()):
        raise UserError(f"{folder} has neither tokenizer.json nor vocab.json with merges.txt")
    try:
        lines = read_text(merges).replace("\r\n", "\n").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{merges} is not UTF-8 text: {error.reason} at {error.start}") from None
    lines = lines[1:] if lines[0].startswith("#version") else lines
    added = _read_if_there(folder / "added_tokens.json")
    return {
        "added_tokens": [{"content": text, "id": i} for text, i in added.items()],
        "pre_tokenizer": BYTE_LEVEL,
        "model": {"vocab": read_object(vocab), "merges": lines},
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


def _add(ids: dict[str, int], added: Sequence[Mapping[str, Any]], n_vocab: int) -> None:
    """Put added tokens into `ids`, spelled like the others, if the model has rows for them.

    Raises: ValueError for one that has another id already.
    """
    byte_encoder = bytes_to_unicode()
    left_out = []
    for text, i in ((entry["content"], entry["id"]) for entry in added):
        token = "".join(byte_encoder[byte] for byte in text.encode("utf-8"))
        if ids.get(text) == i:
            del ids[text]  # the plain spelling
        if ids.setdefault(token, i) != i:
            raise ValueError(f"the added token {text!r} has two ids")
        if i >= n_vocab:
            left_out.append(text)
            del ids[token]
    if left_out:
        log_once(f"left out, as the model has no row for them: {' '.join(left_out)}")


def _write_merges(path: Path, merges: Merges) -> None:
    lines = [MERGES_HEADER, *map(" ".join, merges)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_object(path) if path.exists() else {}
