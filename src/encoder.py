"""Byte-level byte pair encoding: text to token ids and back.

Source: "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019), section 2.2.
"""

import functools
import itertools
import json
from pathlib import Path

import regex

# Faithful: contractions are split off in lower case only ("don't", but not "DON'T").
PATTERN = regex.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)


@functools.cache
def bytes_to_unicode() -> dict[int, str]:
    """A printable character for each byte, so that vocab.bpe can be a text file."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


class Encoder:
    """Text to ids and back.

    Args:
      encoder: token in printable characters -> id.
      bpe_merges: pairs of tokens to join, the most frequent first.
      errors: how decode treats bytes that are no UTF-8, as in bytes.decode.
    """

    def __init__(self, encoder, bpe_merges, errors="replace"):
        self.encoder = encoder
        self.decoder = {i: token for token, i in encoder.items()}
        self.errors = errors
        self.byte_encoder = bytes_to_unicode()
        self.byte_decoder = {c: b for b, c in self.byte_encoder.items()}
        self.bpe_ranks = {tuple(pair): rank for rank, pair in enumerate(bpe_merges)}
        self.cache = {}

    def bpe(self, token):
        """Split a word in printable characters into tokens, joined by spaces."""
        if token in self.cache:
            return self.cache[token]
        word = list(token)
        while len(word) > 1:
            ranks = [
                self.bpe_ranks.get(pair, len(self.bpe_ranks)) for pair in itertools.pairwise(word)
            ]
            best = min(ranks)
            if best == len(self.bpe_ranks):
                break
            i = ranks.index(best)
            word[i : i + 2] = [word[i] + word[i + 1]]
        self.cache[token] = " ".join(word)
        return self.cache[token]

    def encode(self, text, allow_special=False):
        """Token ids of `text`; with allow_special, `<|endoftext|>` in it is one id."""
        if allow_special:
            first, *rest = map(self.encode, text.split("<|endoftext|>"))
            end = self.encoder["<|endoftext|>"]
            return first + [i for part in rest for i in (end, *part)]
        ids = []
        for piece in PATTERN.findall(text):
            token = "".join(self.byte_encoder[b] for b in piece.encode("utf-8"))
            ids.extend(self.encoder[t] for t in self.bpe(token).split(" "))
        return ids

    def decode(self, tokens):
        """The text of token ids."""
        text = "".join(self.decoder[token] for token in tokens)
        return bytes(self.byte_decoder[c] for c in text).decode("utf-8", errors=self.errors)


def get_encoder(model_name: str, models_dir: str = "models") -> Encoder:
    """The encoder of a model, from its `encoder.json` and `vocab.bpe`."""
    folder = Path(models_dir) / model_name
    encoder = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:-1]
    return Encoder(encoder, [tuple(line.split()) for line in lines])
