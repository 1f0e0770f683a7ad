"""Scorers for tests: of the tiny model, and one that makes its scores up."""

import functools

import numpy as np

import gpt2
import numpy_gpt2
from gpt2.evaluation.score_report import Report
from gpt2.evaluation.texts import Text
from gpt2.scorer import Scorer, Scores
from gpt2.windows import EvaluationOptions


@functools.cache
def session_of(model):
    """A ModelSession that all tests of a process share, so that each graph is built once."""
    return gpt2.load(model).session


def scorer_of(tiny, **options):
    """A scorer of the fixture `tiny`."""
    return Scorer(session_of(tiny.folder), EvaluationOptions(**options))


def log_probabilities(logits):
    """The logarithm of the softmax over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def nats(tiny, ids, n_scored):
    """Negative log-probabilities of the last ids, by NumPy."""
    logits = numpy_gpt2.logits(tiny.hparams, tiny.weights, np.array(ids[:-1]))[-n_scored:]
    return -log_probabilities(logits)[np.arange(n_scored), ids[-n_scored:]]


class MadeUp(Scorer):
    """A scorer with the vocabulary of 1M that needs no TensorFlow: its scores are random.

    Attributes: seen, the windows that it scored.
    """

    def __init__(self, seed=0, **options):
        super().__init__(session_of("1M"), EvaluationOptions(**options))
        self._rng, self.seen = np.random.default_rng(seed), []

    def __call__(self, windows, allowed=None):
        n_vocab, top = self.hparams.n_vocab, self.options.top
        for window in windows:
            self.seen.append(window)
            n = window.n_scored
            p = np.sort(self._rng.dirichlet(np.full(top + 3, 0.3), n))[:, ::-1]
            yield (
                window,
                Scores(
                    logprob=-self._rng.gamma(1, 2, n).astype(np.float32),
                    rank=1 + (self._rng.pareto(0.5, n) % n_vocab).astype(np.int32),
                    entropy=self._rng.uniform(0, 7, n).astype(np.float32),
                    top_probability=p[:, 0].astype(np.float32),
                    top_ids=self._rng.integers(0, n_vocab, [n, top]),
                    top_probabilities=p[:, :top],
                ),
            )


def report_of(texts, scorers=None):
    """A report of named texts: {name: text}."""
    is_list = len(texts) != 1
    read = [Text(name, [text], may_be_empty=is_list) for name, text in texts.items()]
    return Report(read, scorers or [MadeUp()], is_list)
