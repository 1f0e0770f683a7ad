"""Byte-level byte pair encoding: text to token ids and back.

    encoder = get_encoder("117M")
    ids = encoder.encode("Hello, world")  # [15496, 11, 995]
    text = encoder.decode(ids)

A text is split into pieces, roughly words with the space before them. A piece becomes UTF-8 bytes,
each written as one printable character. Then adjacent pairs that are in the list of merges are
joined, always the pair that is earliest in the list, until none is left:

    Ġ l o w e r  ->  Ġ l o w er  ->  Ġl o w er  ->  Ġl ow er  ->  Ġl ower  ->  Ġlower

What remains are the tokens. Any text can be encoded, because every single byte is a token.

Source: "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019), section 2.2;
arXiv:1508.07909 for the merging.
"""

import codecs
import functools
import itertools
import json
import numbers
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import regex

from fast_bpe import IrregularVocabulary, PieceTable
from user_error import UserError

# Faithful: contractions are split off in lower case only ("don't", but not "DON'T").
PATTERN = regex.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
END_OF_TEXT = "<|endoftext|>"
CACHE_SIZE = 1 << 16  # maximum number of words that `bpe` remembers


@functools.cache
def bytes_to_unicode() -> dict[int, str]:
    """A printable character for each byte, so that vocab.bpe can be a text file.

    Bytes that are visible characters in Latin-1 map to these, the others to U+0100 and up: the
    space is "Ġ", the line end "Ċ".
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    return {b: chr(b) for b in visible} | {b: chr(0x100 + i) for i, b in enumerate(others)}


def get_pairs(word: Iterable[str]) -> set[tuple[str, str]]:
    """The adjacent pairs in a word, which is a sequence of tokens.

    >>> sorted(get_pairs(["l", "ow", "er"]))
    [('l', 'ow'), ('ow', 'er')]
    """
    return set(itertools.pairwise(word))


def join_pair(word: list[str], pair: tuple[str, str]) -> list[str]:
    """`word` with each occurrence of `pair` joined, from left to right.

    >>> join_pair(["l", "o", "w", "l", "o"], ("l", "o"))
    ['lo', 'w', 'lo']
    """
    joined: list[str] = []
    for token in word:
        # A joined token is longer than pair[0], so it is not joined again.
        if joined and (joined[-1], token) == pair:
            joined[-1] += token
        else:
            joined.append(token)
    return joined


class Encoder:
    """Text to ids and back.

    Args:
      encoder: token in printable characters -> id.
      bpe_merges: pairs of tokens to join, the most frequent first.
      errors: what decode does with invalid UTF-8, as in bytes.decode.

    Attributes, in addition to these:
      bpe_ranks: pair of tokens -> its index in the list of merges.
      regular: whether BPE training could have produced the vocabulary; only then is encode fast.
    """

    def __init__(
        self,
        encoder: dict[str, int],
        bpe_merges: Iterable[tuple[str, str]],
        errors: str = "replace",
    ):
        self.encoder = encoder
        self.decoder = {i: token for token, i in encoder.items()}
        self.errors = errors
        self.byte_encoder = bytes_to_unicode()
        self.byte_decoder = {char: byte for byte, char in self.byte_encoder.items()}
        merges: list[tuple[str, str]] = list(map(tuple, bpe_merges))  # type: ignore[arg-type]
        self.bpe_ranks = dict(zip(merges, range(len(merges)), strict=True))
        self.cache: dict[str, str] = {}
        self.pat = PATTERN
        bytes_of = {ord(char): byte for char, byte in self.byte_decoder.items()}
        # Indexed by id. The second half is None, so a negative id finds None, which join rejects.
        size = 1 + max(self.decoder, default=-1)
        self._token_bytes: list[Any] = [None for _ in range(2 * size)]
        for i, token in self.decoder.items():
            self._token_bytes[i] = _spell(token, bytes_of)
        try:
            table = PieceTable(self.pat, self.byte_encoder, encoder, merges)
            self._encode: Callable[[str], list[int]] = table.encode
            self.regular = True
        except IrregularVocabulary:
            self._encode = self.encode_simply
            self.regular = False

    @property
    def end_of_text(self) -> int:
        """The id of `<|endoftext|>`."""
        return self.encoder[END_OF_TEXT]

    def bpe(self, token: str) -> str:
        """The tokens of a word in printable characters, with spaces between them."""
        if token in self.cache:
            return self.cache[token]
        word = list(token)
        while pairs := get_pairs(word) & self.bpe_ranks.keys():
            word = join_pair(word, min(pairs, key=self.bpe_ranks.__getitem__))
        if len(self.cache) >= CACHE_SIZE:
            self.cache.clear()
        self.cache[token] = " ".join(word)
        return self.cache[token]

    def encode_simply(self, text: str) -> list[int]:
        """Reference implementation of encode: slow, but `pat` and `bpe` can be overridden.

        Raises: UnicodeEncodeError for a lone surrogate; KeyError for a token without an id.
        """
        ids: list[int] = []
        for piece in self.pat.findall(text):
            word = "".join(self.byte_encoder[byte] for byte in piece.encode("utf-8"))
            ids.extend(self.encoder[token] for token in self.bpe(word).split(" "))
        return ids

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Token ids of `text`, by the fast path of fast_bpe.py.

        Args:
          text: any text.
          allow_special: encode "<|endoftext|>" as its single id; otherwise it is seven tokens of
            plain text, as in the original. Leave it off for untrusted text, which could use it to
            fake the end of a document.
        Raises: UserError for a lone surrogate (half a character, which UTF-8 cannot express), or
          for text that the vocabulary has no tokens for.
        """
        parts = text.split(END_OF_TEXT) if allow_special else [text]
        try:
            ids = self._encode(parts[0])
            for part in parts[1:]:
                ids += [self.encoder[END_OF_TEXT], *self._encode(part)]
        except UnicodeEncodeError:
            raise _surrogate_error(text) from None
        except KeyError as error:
            raise UserError(f"the vocabulary has no token {error}, which this text needs") from None
        return ids

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of token ids; invalid UTF-8 becomes U+FFFD.

        Args:
          tokens: ids, as a sequence of integers or an integer array [length].
        Raises: UserError for an id that is not in the vocabulary.
        """
        return self._to_bytes(tokens).decode("utf-8", errors=self.errors)

    def stream(self) -> Callable[..., str]:
        """A function that decodes text while it is generated.

        Each call takes the next ids and returns the text that is complete: a character whose bytes
        are spread over several tokens is returned with the last of them. A call with `final=True`,
        with or without ids, returns the rest. Joined, the results equal decode.

            decode = encoder.stream()
            for token in tokens:
                print(decode([token]), end="", flush=True)
            print(decode([], final=True))
        """
        decoder = codecs.getincrementaldecoder("utf-8")(self.errors)

        def decode(tokens: Iterable[int], final: bool = False) -> str:
            return decoder.decode(self._to_bytes(tokens), final)

        return decode

    def _to_bytes(self, tokens: Iterable[int]) -> bytes:
        ids = tokens.tolist() if isinstance(tokens, np.ndarray) else list(tokens)
        spelled = self._token_bytes
        try:
            # In blocks, because join reads its list twice: then the second time is from the cache.
            blocks = (ids[i : i + 4096] for i in range(0, len(ids), 4096))
            return b"".join([b"".join([spelled[i] for i in block]) for block in blocks])
        except (IndexError, TypeError):
            wrong = next(
                i for i in ids if not (isinstance(i, numbers.Integral) and i in self.decoder)
            )
            raise UserError(
                f"{wrong!r} is not a token id: ids are integers from 0 to {max(self.decoder)}"
            ) from None


def _surrogate_error(text: str) -> UserError:
    at = next(i for i, char in enumerate(text) if "\ud800" <= char <= "\udfff")
    return UserError(
        f"character {at} of the text is {text[at]!r}, a lone surrogate, which is half a character "
        "that UTF-8 cannot express; remove it, or read the text with errors='replace'"
    )


def get_encoder(model_name: str, models_dir: str | os.PathLike[str] = "models") -> Encoder:
    """The encoder of a model. The files are not checked; gpt2/encoder_files.py does that.

    A relative models_dir is looked up in the working directory, then in the repository.
    """
    folder = Path(models_dir) / model_name
    in_repository = Path(__file__).resolve().parents[1] / folder
    if in_repository.is_dir() and not folder.is_dir():
        folder = in_repository
    encoder = json.loads((folder / "encoder.json").read_text(encoding="utf-8-sig"))
    merges = (folder / "vocab.bpe").read_text(encoding="utf-8-sig").rstrip("\n")
    # Not splitlines, which also splits at other characters. The first line is the version.
    pairs = (line.partition(" ") for line in merges.split("\n")[1:])
    return Encoder(encoder, [(left, right) for left, _, right in pairs])


def _spell(token: str, bytes_of: dict[int, int]) -> bytes:
    """The bytes of a token in printable characters; other characters become UTF-8."""
    try:
        return token.translate(bytes_of).encode("latin-1")
    except UnicodeEncodeError:
        return token.encode("utf-8")
