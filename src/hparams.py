"""The numbers that a run is made of, and their legal ranges.

Nothing here needs TensorFlow, so a script can tell its user of a mistake at once, before
the seconds that importing TensorFlow takes.
"""

import dataclasses
import json
from collections.abc import Mapping
from math import inf
from typing import Any


class UserError(ValueError):
    """A mistake that the user can mend. Scripts print it in one line and exit with status 2."""


def parse_json(text: str) -> Any:
    """What a JSON text holds. Raises: ValueError, also where it is nested too deeply to read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise UserError("the JSON is nested too deeply") from None


@dataclasses.dataclass
class HParams:
    """The shape of a model. Fields are whole numbers of at least 1."""

    n_vocab: int = 50257  # distinct tokens, `<|endoftext|>` included
    n_ctx: int = 1024  # positions that the model can look at, at most
    n_embd: int = 768  # width of the residual stream
    n_head: int = 12  # attention heads in a layer; divides n_embd
    n_layer: int = 12  # transformer blocks

    def override_from_dict(self, values: Mapping[str, Any]) -> "HParams":
        """Set the fields named in `values` and return self.

        Raises: UserError for an unknown name or a value that is no shape of a model; self is
        then unchanged.
        """
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(self)})
        if unknown:
            raise UserError(f"unknown hyperparameter {unknown[0]!r}; known are {', '.join(KEYS)}")
        new = dataclasses.replace(self, **values)
        for name, value in dataclasses.asdict(new).items():
            if type(value) is not int or value < 1:
                raise UserError(f"{name} must be a whole number of at least 1, got {value!r}")
        if new.n_embd % new.n_head:
            raise UserError(f"n_head must divide n_embd, got {new.n_head} and {new.n_embd}")
        self.__dict__.update(dataclasses.asdict(new))
        return self

    def n_params(self) -> int:
        """How many numbers the model's variables hold together."""
        block = 12 * self.n_embd**2 + 13 * self.n_embd  # four matrices, their biases, two norms
        embeddings = (self.n_vocab + self.n_ctx) * self.n_embd
        return embeddings + self.n_layer * block + 2 * self.n_embd


KEYS = [field.name for field in dataclasses.fields(HParams)]


def default_hparams() -> HParams:
    """The shape of the released 117M model."""
    return HParams()


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are drawn."""

    length: int  # tokens in a sample
    temperature: float = 1  # divides the logits; 0 takes the most likely token
    top_k: int = 0  # draw among the k most likely tokens; 0 is all
    top_p: float = 1  # draw among the most likely tokens that together reach this probability

    def check(self, hparams: HParams) -> None:
        """Raise UserError, naming what is legal and the value, if a setting is out of range."""
        n_ctx, n_vocab = hparams.n_ctx, hparams.n_vocab
        # A context has a token at least, and the last token drawn is never fed back.
        require("length", self.length, 1 <= self.length <= n_ctx, f"from 1 to n_ctx = {n_ctx}")
        require("temperature", self.temperature, 0 <= self.temperature < inf, "0 or above")
        require("top_k", self.top_k, 0 <= self.top_k <= n_vocab, f"from 0 to n_vocab = {n_vocab}")
        require("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1")

    def check_context(self, n_context: int, hparams: HParams) -> None:
        """Raise UserError unless a context of so many tokens leaves room for a sample."""
        room = hparams.n_ctx - n_context + 1
        if n_context < 1:
            raise UserError("the prompt is empty")
        if self.length > room:
            raise UserError(
                f"the prompt is too long: its {n_context} tokens leave room for {max(room, 0)} of "
                f"n_ctx = {hparams.n_ctx}, and length is {self.length}; shorten one of them"
            )


def require(name: str, value: object, holds: bool, legal: str) -> None:
    """Raise UserError, naming the setting, what is legal and the value, unless it holds."""
    if not holds:
        raise UserError(f"{name} must be {legal}, got {value}")
