"""The log-probability, rank and entropy of each token of a text."""

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from gpt2.text_stream import safe_pieces
from gpt2.windows import EvaluationOptions, Window, sliding_windows
from hparams import HParams
from user_error import UserError

if TYPE_CHECKING:  # imported where it is needed, as it takes long
    import numpy as np

    from gpt2.model_session import ModelSession


class Scores(NamedTuple):
    """The scores of a window's tokens, each field [n_scored]."""

    logprob: "np.ndarray"  # natural logarithm of the token's probability
    rank: "np.ndarray"  # 1 for the most likely token; equally likely tokens share the better rank
    entropy: "np.ndarray"  # of the prediction, in nats
    top_probability: "np.ndarray"  # of the most likely token
    top_ids: "np.ndarray"  # [n_scored, top], the most likely first
    top_probabilities: "np.ndarray"  # [n_scored, top]
    filtered_logprob: "np.ndarray | None" = None  # among the allowed tokens and this one
    filtered_rank: "np.ndarray | None" = None  # among the same


# Predictions whose statistics are computed together: few enough for a processor's cache.
SCORED_AT_ONCE = 16


class Alternative(NamedTuple):
    """One of the most likely tokens at a position."""

    id: int
    text: str  # a part of a character is U+FFFD
    probability: float


class TokenScore(NamedTuple):
    """A token of a text. The `text` of all tokens, joined, is the text."""

    id: int
    text: str  # "" unless the token completes a character
    logprob: float  # natural logarithm of the token's probability
    rank: int  # 1 for the most likely token
    entropy: float  # of the prediction, in nats
    top_probability: float  # of the most likely token
    alternatives: tuple[Alternative, ...] = ()  # `top` of them, the most likely first


def statistics(logits: Any, targets: Any, allowed: Any = None, top: int = 0) -> dict[str, Any]:
    """Scores as a graph.

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
    top_values, top_ids = tf.math.top_k(exp, top)
    output = {
        "logprob": chosen - tf.log(total),
        "rank": 1 + tf.cast(tf.reduce_sum(is_greater, axis=-1), tf.int32),
        # -sum(p * log p) with p = exp(logits) / total
        "entropy": tf.log(total) - tf.reduce_sum(exp * logits, axis=-1) / total,
        "top_probability": 1 / total,  # the largest logit is 0 here
        "top_ids": top_ids,
        "top_probabilities": top_values / total[:, None],
    }
    if allowed is not None:
        missing = tf.exp(chosen) * (1 - tf.gather(allowed, targets))
        output["filtered_logprob"] = chosen - tf.log(tf.linalg.matvec(exp, allowed) + missing)
        output["filtered_rank"] = 1 + tf.cast(tf.linalg.matvec(is_greater, allowed), tf.int32)
    return output


class ScoreGraph(NamedTuple):
    """A graph that scores windows."""

    ids: Any  # placeholder, int32 [batch, sequence + 1]
    allowed: Any  # placeholder, as in `statistics`; None if the graph has no filter
    logits: Any  # float32 [batch, sequence, n_vocab]; in bfloat16 less a number for each position
    scores: dict[str, Any]  # the fields of Scores, each [batch, sequence, ...]


def build_scores(hparams: HParams, top: int = 0, filtered: bool = False) -> ScoreGraph:
    """The graph that scores windows with a model.

    Args:
      top: how many of the most likely tokens to list.
      filtered: whether to score among the allowed tokens, too.
    """
    import tensorflow.compat.v1 as tf

    import decoder
    import engines
    import model

    ids = tf.placeholder(tf.int32, [None, None])
    allowed = tf.placeholder(tf.float32, [hparams.n_vocab]) if filtered else None
    X, targets = ids[:, :-1], tf.reshape(ids[:, 1:], [-1])
    h = tf.reshape(decoder.text_states(hparams, X), [-1, hparams.n_embd])
    n = tf.shape(h)[0]
    padding = [0, -n % SCORED_AT_ONCE]  # so that all chunks have the same shape
    h = tf.pad(h, [padding, [0, 0]])
    logits = decoder.text_logits(hparams, h, engines.shifted_logits)
    targets = tf.pad(targets, [padding])

    def scores_of_chunk(start: Any) -> dict[str, Any]:
        chunk = slice(start, start + SCORED_AT_ONCE)
        return statistics(logits[chunk], targets[chunk], allowed, top)

    def as_windows(x: Any) -> Any:
        """From [n, ...] with the padding to [batch, sequence, ...]."""
        return tf.reshape(x[:n], [*model.shape_list(X), *x.shape[1:]])

    # Built once more to see the types and shapes; this copy never runs.
    specs = {name: tf.TensorSpec(x.shape, x.dtype) for name, x in scores_of_chunk(0).items()}
    chunks = tf.map_fn(
        scores_of_chunk,
        tf.range(0, n, SCORED_AT_ONCE),
        fn_output_signature=specs,
        parallel_iterations=1,
    )
    scores = {
        name: as_windows(tf.reshape(x, [-1, *specs[name].shape[1:]])) for name, x in chunks.items()
    }
    return ScoreGraph(ids, allowed, as_windows(tf.cast(logits, tf.float32)), scores)


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
          allowed: None, or float [n_vocab], 0 or 1, to score among these tokens, too.
        Raises: DamagedModelError if the model computes something that is not a number.
        """
        import numpy as np

        top, filtered = self.options.top, allowed is not None
        windows = iter(windows)
        while batch := list(islice(windows, self.options.batch_size)):
            # Short windows are padded at the end, where causal attention never looks.
            ids = np.zeros([len(batch), max(len(window.ids) for window in batch)], np.int32)
            for row, window in zip(ids, batch, strict=True):
                row[: len(window.ids)] = window.ids
            graph = self.model.build(
                ("scores", top, filtered), lambda: build_scores(self.hparams, top, filtered)
            )
            feed = {graph.ids: ids} | ({graph.allowed: allowed} if filtered else {})
            output = self.model.run(graph.scores, feed)
            if not np.isfinite(output["logprob"]).all():
                raise self.model.damaged()
            for row, window in enumerate(batch):
                end = len(window.ids) - 1
                part = slice(end - window.n_scored, end)
                yield window, Scores(**{name: value[row, part] for name, value in output.items()})

    def scan(
        self, text: Iterable[str], context: str = "", skip: int = 0
    ) -> Iterator[tuple[Window, Scores]]:
        """Score each token of a text once, the first one after `<|endoftext|>` and the context.

        Args:
          text: in chunks of any sizes.
          context: comes before the text and is not scored.
          skip: windows at the beginning that are not scored.
        """
        ids = chain.from_iterable(map(self.encoder.encode, safe_pieces(text)))
        before = [self.end_of_text, *self.encoder.encode(context)]
        windows = sliding_windows(ids, before, self.window, self.stride)
        return self(islice(windows, skip, None))

    def score_text(
        self,
        text: Iterable[str],
        context: str = "",
        on_scores: Callable[[Scores], object] = lambda _: None,
        may_be_empty: bool = False,
    ) -> Iterator[TokenScore]:
        """Score each token of a text, as in `scan`; `on_scores` gets the scores of each window.

        Raises: UserError if the text is empty and must not be.
        """
        decode, is_empty = self.encoder.stream(), True
        for window, scores in self.scan(text, context):
            is_empty = False
            on_scores(scores)
            columns = (column.tolist() for column in scores if column is not None)
            rows = zip(window.ids[-window.n_scored :], *columns, strict=True)
            for i, logprob, rank, entropy, best, top_ids, probabilities in rows:
                top = zip(top_ids, probabilities, strict=True)
                others = tuple(Alternative(k, self.encoder.decode([k]), p) for k, p in top)
                yield TokenScore(i, decode([i]), logprob, rank, entropy, best, others)
        if is_empty and not may_be_empty:
            raise UserError("the text is empty")
