"""How likely a model finds each token of a text: log-probability, rank, entropy."""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from gpt2.text_stream import safe_pieces
from gpt2.windows import EvaluationOptions, Window, sliding_windows
from hparams import HParams
from user_error import UserError

if TYPE_CHECKING:  # imported where it is needed, as it takes long
    import numpy as np

    from gpt2.model_session import ModelSession


@dataclasses.dataclass(frozen=True)
class Scores:
    """The model's view of the scored tokens of a window, each field [n_scored]."""

    logprob: "np.ndarray"  # natural logarithm of the token's probability
    rank: "np.ndarray"  # 1 for the most likely token; a tie takes the better rank
    entropy: "np.ndarray"  # of the prediction, in nats
    top_probability: "np.ndarray"  # of the most likely token
    top_ids: "np.ndarray | None" = None  # [n_scored, top], the most likely first
    top_probabilities: "np.ndarray | None" = None  # [n_scored, top]
    filtered_logprob: "np.ndarray | None" = None  # over the allowed tokens and this one only
    filtered_rank: "np.ndarray | None" = None  # among the same


INTEGERS = ("rank", "filtered_rank", "top_ids")  # the fields of Scores that are int32
# Predictions whose statistics are computed together: few enough for a processor's cache.
SCORED_AT_ONCE = 16


class Alternative(NamedTuple):
    """A token that could have stood in a place."""

    id: int
    text: str  # a part of a character is U+FFFD
    probability: float


class TokenScore(NamedTuple):
    """A token of a text. The `text` of all tokens together is the text."""

    id: int
    text: str  # "" for all but the last of the tokens that make up one character
    logprob: float  # natural logarithm of the token's probability
    rank: int  # 1 for the most likely token
    entropy: float  # of the prediction, in nats
    top_probability: float  # of the most likely token
    alternatives: tuple[Alternative, ...] = ()  # the most likely first, if they were asked for


def statistics(logits: Any, targets: Any, allowed: Any = None, top: int = 0) -> dict[str, Any]:
    """The graph of `Scores`.

    Args:
      logits: float [sequence, n_vocab], unnormalised log-probabilities.
      targets: int32 [sequence], the actual next tokens.
      allowed: None, or float [n_vocab]: 0 for tokens to exclude, else 1.
      top: how many of the most likely tokens to list.
    Returns: the fields of Scores, each [sequence] or [sequence, top].
    """
    import tensorflow.compat.v1 as tf

    logits = tf.cast(logits, tf.float32)
    logits -= tf.reduce_max(logits, axis=-1, keepdims=True)
    exp = tf.exp(logits)
    total = tf.reduce_sum(exp, axis=-1)
    chosen = tf.gather(logits, targets, batch_dims=1)
    is_greater = tf.cast(logits > chosen[:, None], tf.float32)
    output = {
        "logprob": chosen - tf.log(total),
        "rank": 1 + tf.cast(tf.reduce_sum(is_greater, axis=-1), tf.int32),
        # -sum(p * log p) with p = exp(logits) / total
        "entropy": tf.log(total) - tf.reduce_sum(exp * logits, axis=-1) / total,
        "top_probability": 1 / total,  # the largest logit is 0 here
    }
    if top:
        values, output["top_ids"] = tf.math.top_k(exp, top)
        output["top_probabilities"] = values / total[:, None]
    if allowed is not None:
        missing = tf.exp(chosen) * (1 - tf.gather(allowed, targets))
        output["filtered_logprob"] = chosen - tf.log(tf.linalg.matvec(exp, allowed) + missing)
        output["filtered_rank"] = 1 + tf.cast(tf.linalg.matvec(is_greater, allowed), tf.int32)
    return output


class ScoreGraph(NamedTuple):
    """A graph that scores windows."""

    ids: Any  # placeholder, int32 [batch, sequence + 1]
    allowed: Any  # placeholder, as in `statistics`; only for filtered_scores
    logits: Any  # float32 [batch, sequence, n_vocab]; in bfloat16 less a number for each position
    scores: dict[str, Any]  # the fields of Scores, each [batch, sequence, ...]
    filtered_scores: dict[str, Any]  # the same, with those that need `allowed`


def build_scores(hparams: HParams, top: int = 0) -> ScoreGraph:
    """The graph of a model that scores, and lists the `top` most likely tokens."""
    import tensorflow.compat.v1 as tf

    import decoder
    import engines
    import model

    ids = tf.placeholder(tf.int32, [None, None])
    allowed = tf.placeholder(tf.float32, [hparams.n_vocab])
    X, targets = ids[:, :-1], tf.reshape(ids[:, 1:], [-1])
    h = tf.reshape(decoder.text_states(hparams, X), [-1, hparams.n_embd])
    n = tf.shape(h)[0]
    padding = [0, -n % SCORED_AT_ONCE]  # so that all chunks are alike
    h = tf.pad(h, [padding, [0, 0]])
    logits = decoder.text_logits(hparams, h, engines.shifted_logits)
    targets = tf.pad(targets, [padding])

    def as_windows(x: Any, *size: int) -> Any:
        """Without the padding, [batch, sequence, *size]."""
        return tf.reshape(tf.reshape(x, [-1, *size])[:n], [*model.shape_list(X), *size])

    def scores(allowed: Any) -> dict[str, Any]:
        names = ["logprob", "rank", "entropy", "top_probability"]
        names += ["top_ids", "top_probabilities"] if top else []
        names += [] if allowed is None else ["filtered_logprob", "filtered_rank"]
        chunks = tf.map_fn(
            lambda i: statistics(
                logits[i : i + SCORED_AT_ONCE], targets[i : i + SCORED_AT_ONCE], allowed, top
            ),
            tf.range(0, n, SCORED_AT_ONCE),
            fn_output_signature={
                name: tf.int32 if name in INTEGERS else tf.float32 for name in names
            },
            parallel_iterations=1,
        )
        lists = "top_ids", "top_probabilities"
        return {name: as_windows(x, *[top] * (name in lists)) for name, x in chunks.items()}

    all_logits = as_windows(tf.cast(logits, tf.float32), hparams.n_vocab)
    return ScoreGraph(ids, allowed, all_logits, scores(None), scores(allowed))


class Scorer:
    """Scores tokens with a model.

    Args:
      model: loaded when there is something to score.
    Attributes: model, hparams, encoder, end_of_text; options; window and stride in tokens.
    Raises: UserError if an option is out of range.
    """

    def __init__(self, model: "ModelSession", options: EvaluationOptions | None = None):
        self.model, self.options = model, options or EvaluationOptions()
        self.hparams, self.encoder = model.hparams, model.encoder
        self.end_of_text = model.end_of_text
        self.window, self.stride = self.options.resolved(model.hparams)

    @property
    def _graph(self) -> ScoreGraph:
        top = self.options.top
        return self.model.build(("scores", top), lambda: build_scores(self.hparams, top))

    def allowed_tokens(self, words: Collection[str]) -> "np.ndarray":
        """Float [n_vocab]: 0 for tokens that are a space and one of the lower-case words."""
        import numpy as np

        known = self.encoder.decoder
        ids = range(self.hparams.n_vocab)
        tokens = [self.encoder.decode([i]) if i in known else "" for i in ids]
        out = [token[:1] == " " and token[1:].lower() in words for token in tokens]
        return 1 - np.array(out, np.float32)

    def __call__(
        self, windows: Iterable[Window], allowed: "np.ndarray | None" = None
    ) -> Iterator[tuple[Window, Scores]]:
        """Score windows, in their order.

        Args:
          windows: they may differ in length.
          allowed: None, or float [n_vocab], 0 or 1: asks for the scores among these tokens too.
        Raises: DamagedModelError if the model computes something that is not a number.
        """
        import numpy as np

        windows = iter(windows)
        while batch := list(islice(windows, self.options.batch_size)):
            # Short windows are padded at the end, where causal attention never looks.
            ids = np.zeros([len(batch), max(len(window.ids) for window in batch)], np.int32)
            for row, window in zip(ids, batch, strict=True):
                row[: len(window.ids)] = window.ids
            graph = self._graph
            if allowed is None:
                output = self.model.run(graph.scores, {graph.ids: ids})
            else:
                output = self.model.run(
                    graph.filtered_scores, {graph.ids: ids, graph.allowed: allowed}
                )
            if not np.isfinite(output["logprob"]).all():
                raise self.model.damaged()
            for row, window in enumerate(batch):
                end = len(window.ids) - 1
                part = slice(end - window.n_scored, end)
                yield window, Scores(**{name: value[row, part] for name, value in output.items()})

    def scan(
        self, ids: Iterable[int], context: Sequence[int] = (), skip: int = 0
    ) -> Iterator[tuple[Window, Scores]]:
        """Score each token of a text once, the first one after `<|endoftext|>` and the context.

        Args:
          ids: the tokens of the text.
          context: tokens before the text that are not scored.
          skip: windows at the beginning that are not scored either.
        """
        before = [self.end_of_text, *context]
        windows = sliding_windows(ids, before, self.window, self.stride)
        return self(islice(windows, skip, None))

    def encode(self, pieces: Iterable[str]) -> Iterator[int]:
        """The token ids of a text in pieces that `text_stream.safe_pieces` cut."""
        return chain.from_iterable(map(self.encoder.encode, pieces))

    def tokens(
        self, window: Window, scores: Scores, decode: Callable[[list[int]], str]
    ) -> Iterator[TokenScore]:
        """The scored tokens of a window, one by one; `decode` is the text's encoder.stream()."""
        listed: Iterable[tuple[Alternative, ...]] = [()] * window.n_scored
        if scores.top_ids is not None and scores.top_probabilities is not None:
            pairs = zip(scores.top_ids.tolist(), scores.top_probabilities.tolist(), strict=True)
            listed = (
                tuple(Alternative(i, self.spell(i), p) for i, p in zip(*pair, strict=True))
                for pair in pairs
            )
        columns = [scores.logprob, scores.rank, scores.entropy, scores.top_probability]
        rows = zip(
            window.ids[-window.n_scored :], *(column.tolist() for column in columns), strict=True
        )
        for (i, logprob, rank, entropy, best), others in zip(rows, listed, strict=True):
            yield TokenScore(i, decode([i]), logprob, rank, entropy, best, others)

    def spell(self, i: int) -> str:
        """The text of a single token."""
        return self.encoder.decode([i])

    def score_text(self, text: Iterable[str]) -> Iterator[TokenScore]:
        """Score each token of a text once, the first one after `<|endoftext|>`.

        Args:
          text: in chunks of any sizes.
        Raises: UserError if the text is empty.
        """
        decode, empty = self.encoder.stream(), True
        for window, scores in self.scan(self.encode(safe_pieces(text))):
            empty = False
            yield from self.tokens(window, scores, decode)
        if empty:
            raise UserError("the text is empty")
