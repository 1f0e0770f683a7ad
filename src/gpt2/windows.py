"""Splitting a long text into windows that the model can see at once."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from hparams import HParams
from user_error import require


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
    """How texts are split into windows, and what is computed for them."""

    window: int | None = None  # tokens that the model sees at once; None is n_ctx
    stride: int | None = None  # tokens from one window to the next; None is `window`
    batch_size: int = 4  # windows that are computed together; affects speed and memory only
    top: int = 0  # most likely tokens that are listed for each position

    def resolved(self, hparams: HParams) -> tuple[int, int]:
        """Window and stride for a model.

        Raises: UserError, naming the option and what is valid, if one is out of range.
        """
        n_ctx, n_vocab = hparams.n_ctx, hparams.n_vocab
        require("batch_size", self.batch_size, self.batch_size >= 1, "at least 1")
        require("top", self.top, 0 <= self.top <= n_vocab, f"from 0 to n_vocab = {n_vocab}")
        window = n_ctx if self.window is None else self.window
        require("window", window, 1 <= window <= n_ctx, f"from 1 to n_ctx = {n_ctx}")
        stride = window if self.stride is None else self.stride
        require("stride", stride, 1 <= stride <= window, f"from 1 to window = {window}")
        return window, stride


@dataclasses.dataclass(frozen=True)
class Window:
    """Tokens that the model sees at once; the last `n_scored` are predicted."""

    ids: Sequence[int]  # at most n_ctx + 1: the last one is not fed
    n_scored: int  # at most len(ids) - 1: the first has nothing before it


def sliding_windows(
    ids: Iterable[int], context: Sequence[int], window: int, stride: int
) -> Iterator[Window]:
    """Windows over a long text in which every token is predicted exactly once.

    If the context is one token, window k feeds positions k * stride to k * stride + window of the
    context and the text. The first window scores all of its tokens. Each later one scores the
    `stride` tokens that are new; they have at least window - stride tokens before them.

    Args:
      ids: the tokens of the text.
      context: tokens before the text, at least one; the last `window` of them are used.
      window: tokens that are fed at once, at most n_ctx.
      stride: from 1 to `window`.
    """
    seen, fresh = list(context[-window:]), 0
    for i in ids:
        seen.append(i)
        fresh += 1
        if len(seen) == window + 1:
            yield Window(seen, fresh)
            seen, fresh = seen[stride:], 0
    if fresh:
        yield Window(seen, fresh)
