"""How likely a model finds each token of a text: log-probability, rank, entropy."""

import dataclasses
import functools
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpt2.text_stream import safe_pieces
from hparams import HParams, UserError, require

if TYPE_CHECKING:
    from gpt2.language_model import LanguageModel


@dataclasses.dataclass(frozen=True)
class Window:
    """Tokens that the model sees at once; the last `n_scored` are to be predicted."""

    ids: Sequence[int]  # at most n_ctx + 1: the last one is not fed
    n_scored: int  # at most len(ids) - 1: the first has nothing before it


@dataclasses.dataclass(frozen=True)
class Scores:
    """What the model made of the scored tokens of a window, each [n_scored].

    The last two are as if tokens that are not kept did not exist, but for the one that came.
    """

    logprob: np.ndarray  # natural logarithm of the token's probability
    rank: np.ndarray  # 1 for the likeliest token; a tie takes the better rank
    entropy: np.ndarray  # of the whole prediction, in nats
    kept_logprob: np.ndarray | None = None
    kept_rank: np.ndarray | None = None


class TokenScore(NamedTuple):
    """A token of a text. The `text` of all tokens together is the text."""

    id: int
    text: str  # "" for all but the last of the tokens that make up one character
    logprob: float  # natural logarithm of the token's probability
    rank: int  # 1 for the most likely token
    entropy: float  # of the whole prediction, in nats


def check_window(window: int | None, stride: int | None, n_ctx: int) -> tuple[int, int]:
    """Window and stride, with their defaults: n_ctx, and as long as the window.

    Raises: UserError if one is out of range.
    """
    window = n_ctx if window is None else window
    require("window", window, 1 <= window <= n_ctx, f"from 1 to n_ctx = {n_ctx}")
    stride = window if stride is None else stride
    require("stride", stride, 1 <= stride <= window, f"from 1 to window = {window}")
    return window, stride


def sliding_windows(ids: Iterable[int], start: int, window: int, stride: int) -> Iterator[Window]:
    """Windows over a long text in which every token is predicted exactly once.

    Window number k feeds positions k * stride up to k * stride + window of the text with `start`
    before it. It scores what the windows before it did not: `stride` tokens, which have at least
    window - stride tokens before them; the first window scores all of its tokens.

    Args:
      ids: the tokens of the text.
      start: id that stands before the text, `<|endoftext|>`.
      window: tokens that are fed at once, at most n_ctx.
      stride: from 1 to `window`.
    """
    seen, fresh = [start], 0
    for i in ids:
        seen.append(i)
        fresh += 1
        if len(seen) == window + 1:
            yield Window(seen, fresh)
            seen, fresh = seen[stride:], 0
    if fresh:
        yield Window(seen, fresh)


def statistics(logits: Any, targets: Any, kept: Any = None) -> dict[str, Any]:
    """The graph of `Scores`.

    Args:
      logits: float [sequence, n_vocab], unnormalised log-probabilities.
      targets: int32 [sequence], the tokens that came.
      kept: None, or float [n_vocab]: 0 for tokens to exclude, else 1.
    Returns: the fields of Scores, each [sequence].
    """
    import tensorflow.compat.v1 as tf

    logits = logits - tf.reduce_max(logits, axis=-1, keepdims=True)
    ex = tf.exp(logits)
    total = tf.reduce_sum(ex, axis=-1)
    chosen = tf.gather(logits, targets, batch_dims=1)
    better = tf.cast(logits > chosen[:, None], tf.float32)
    output = {
        "logprob": chosen - tf.log(total),
        "rank": 1 + tf.cast(tf.reduce_sum(better, axis=-1), tf.int32),
        # -sum(p * log p) with p = exp(logits) / total
        "entropy": tf.log(total) - tf.reduce_sum(ex * logits, axis=-1) / total,
    }
    if kept is not None:
        missing = tf.exp(chosen) * (1 - tf.gather(kept, targets))
        output["kept_logprob"] = chosen - tf.log(tf.linalg.matvec(ex, kept) + missing)
        output["kept_rank"] = 1 + tf.cast(tf.linalg.matvec(better, kept), tf.int32)
    return output


def build(hparams: HParams) -> dict[str, Any]:
    """The graph of a model that scores.

    Returns: placeholders `ids`, int32 [batch, sequence + 1], and `kept`, as in `statistics`;
      `logits`, float [batch, sequence, n_vocab]; `scores` and `kept_scores`: the fields of Scores,
      each [batch, sequence], the latter with those that need `kept`.
    """
    import tensorflow.compat.v1 as tf

    import model

    ids = tf.placeholder(tf.int32, [None, None])
    kept = tf.placeholder(tf.float32, [hparams.n_vocab])
    logits = model.model(hparams, ids[:, :-1], reuse=tf.AUTO_REUSE)["logits"]

    def scores(kept: Any, names: list[str]) -> dict[str, Any]:
        # Window by window: a batch of logits is large enough without their exponentials.
        return tf.map_fn(
            lambda row: statistics(row[0], row[1], kept),
            (logits, ids[:, 1:]),
            fn_output_signature={
                name: tf.int32 if name.endswith("rank") else tf.float32 for name in names
            },
            parallel_iterations=1,
        )

    names = [field.name for field in dataclasses.fields(Scores)]
    plain = [name for name in names if not name.startswith("kept")]
    return {
        "ids": ids,
        "kept": kept,
        "logits": logits,
        "scores": scores(None, plain),
        "kept_scores": scores(kept, names),
    }


class Scorer:
    """Scores tokens with a model.

    Args:
      model: LanguageModel; loaded when there is something to score.
      batch_size: windows that are computed together; affects speed and memory only.
    Raises: UserError
    """

    def __init__(self, model: "LanguageModel", batch_size: int = 4):
        require("batch_size", batch_size, batch_size >= 1, "at least 1")
        self.model, self.batch_size = model, batch_size
        self.hparams, self.encoder = model.hparams, model.encoder
        self.end_of_text = model.end_of_text

    @functools.cached_property
    def _graph(self) -> dict[str, Any]:
        return self.model.build(lambda: build(self.hparams))

    def all_but(self, words: Collection[str]) -> np.ndarray:
        """Float [n_vocab]: 0 for tokens that are a space and one of the lower-case words."""
        known = self.encoder.decoder
        ids = range(self.hparams.n_vocab)
        tokens = [self.encoder.decode([i]) if i in known else "" for i in ids]
        out = [token[:1] == " " and token[1:].lower() in words for token in tokens]
        return 1 - np.array(out, np.float32)

    def __call__(
        self, windows: Iterable[Window], kept: np.ndarray | None = None
    ) -> Iterator[tuple[Window, Scores]]:
        """Score windows, in their order.

        Args:
          windows: they may differ in length.
          kept: None, or float [n_vocab], 0 or 1: asks for the scores among these tokens too.
        """
        windows = iter(windows)
        while batch := list(islice(windows, self.batch_size)):
            # What pads a short window stands behind it, where attention does not look.
            ids = np.zeros([len(batch), max(len(window.ids) for window in batch)], np.int32)
            for row, window in zip(ids, batch, strict=True):
                row[: len(window.ids)] = window.ids
            graph = self._graph
            if kept is None:
                output = self.model.run(graph["scores"], {graph["ids"]: ids})
            else:
                feed = {graph["ids"]: ids, graph["kept"]: kept}
                output = self.model.run(graph["kept_scores"], feed)
            for row, window in enumerate(batch):
                end = len(window.ids) - 1
                part = slice(end - window.n_scored, end)
                yield window, Scores(**{name: value[row, part] for name, value in output.items()})

    def score_text(self, text: Iterable[str], window: int, stride: int) -> Iterator[TokenScore]:
        """Score each token of a text once, the first one after `<|endoftext|>`.

        Args:
          text: in chunks of any sizes.
          window, stride: as in sliding_windows.
        Raises: UserError if the text is empty.
        """
        ids = chain.from_iterable(map(self.encoder.encode, safe_pieces(text)))
        decode, empty = self.encoder.stream(), True
        for seen, scores in self(sliding_windows(ids, self.end_of_text, window, stride)):
            empty = False
            values = zip(scores.logprob, scores.rank, scores.entropy, strict=True)
            for i, (logprob, rank, entropy) in zip(seen.ids[-seen.n_scored :], values, strict=True):
                yield TokenScore(i, decode([i]), float(logprob), int(rank), float(entropy))
        if empty:
            raise UserError("the text is empty")
