"""How tokens are sampled, and the valid ranges.

Checking numbers needs no TensorFlow, whose import takes seconds, so a script reports a mistake at
once.
"""

import dataclasses
from collections.abc import Iterator
from math import inf
from typing import Any

from hparams import HParams
from user_error import UserError, require


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are sampled. In a graph, fields may be scalar tensors."""

    length: Any  # tokens in a sample
    temperature: Any = 1  # divides the logits; 0 takes the most likely token
    top_k: Any = 0  # sample among the k most likely tokens; 0 means all
    top_p: Any = 1  # sample among the most likely tokens that together reach this probability

    def limits(self, hparams: HParams, least: int = 1) -> Iterator[tuple[str, Any, Any, str]]:
        """For each field: its name, its value, whether that is valid, and the range as text.

        Args: least, the smallest valid length.
        """
        n_ctx, n_vocab = hparams.n_ctx, hparams.n_vocab
        length, temperature, top_k, top_p = self.length, self.temperature, self.top_k, self.top_p
        fits = (length >= least) & (length <= n_ctx)
        yield "length", length, fits, f"from {least} to n_ctx = {n_ctx}"
        yield "temperature", temperature, (temperature >= 0) & (temperature < inf), "0 or above"
        yield "top_k", top_k, (top_k >= 0) & (top_k <= n_vocab), f"from 0 to n_vocab = {n_vocab}"
        yield "top_p", top_p, (top_p >= 0) & (top_p <= 1), "from 0 to 1"

    def check(self, hparams: HParams) -> None:
        """Raise UserError with the value and the valid range if a field is out of range."""
        for name, value, holds, legal in self.limits(hparams):
            require(name, value, holds, legal)

    def check_context(self, n_context: int, hparams: HParams) -> None:
        """Raise UserError unless a context of n_context tokens leaves room for a sample."""
        room = hparams.n_ctx - n_context + 1
        if n_context < 1:
            raise UserError("the prompt is empty")
        if self.length > room:
            raise UserError(
                f"the prompt is too long: its {n_context} tokens leave room for {max(room, 0)} of "
                f"n_ctx = {hparams.n_ctx}, and length is {self.length}; shorten one of them"
            )


def assertions(sampling: Sampling, hparams: HParams) -> list[Any]:
    """Check numbers at once; return the operations that check tensors when the graph runs.

    A length of 0 is valid. Raises: UserError for a number out of range.
    """
    import tensorflow.compat.v1 as tf

    operations = []
    for name, value, holds, legal in sampling.limits(hparams, least=0):
        if tf.is_tensor(holds):
            message = f"{name} must be {legal}, got"
            operations.append(tf.debugging.Assert(holds, [message, value]))
        else:
            require(name, value, holds, legal)
    return operations
