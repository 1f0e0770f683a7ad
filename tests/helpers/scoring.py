"""Scorers for tests: of the tiny model, and one that makes its scores up."""

import numpy as np

import gpt2
from gpt2.evaluation.score_report import Report, ScoredText
from gpt2.evaluation.texts import Text
from gpt2.scorer import Scorer, Scores
from gpt2.windows import EvaluationOptions


def scorer_of(tiny, **options):
    """A scorer of the fixture `tiny`."""
    return Scorer(gpt2.load(tiny.folder).session, EvaluationOptions(**options))


def log_probabilities(logits):
    """The logarithm of the softmax over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


class MadeUp(Scorer):
    """A scorer with the vocabulary of 1M that needs no TensorFlow: its scores are random."""

    def __init__(self, seed=0, **options):
        super().__init__(gpt2.load("1M"), EvaluationOptions(**options))
        self._rng = np.random.default_rng(seed)

    def __call__(self, windows, allowed=None):
        n_vocab, top = self.hparams.n_vocab, self.options.top
        for window in windows:
            n = window.n_scored
            p = np.sort(self._rng.dirichlet(np.full(top + 3, 0.3), n))[:, ::-1]
            yield (
                window,
                Scores(
                    logprob=-self._rng.gamma(1, 2, n).astype(np.float32),
                    rank=1 + (self._rng.pareto(0.5, n) % n_vocab).astype(np.int32),
                    entropy=self._rng.uniform(0, 7, n).astype(np.float32),
                    top_probability=p[:, 0].astype(np.float32),
                    top_ids=self._rng.integers(0, n_vocab, [n, top]) if top else None,
                    top_probabilities=p[:, :top] if top else None,
                ),
            )


def report_of(texts, scorers=None, is_list=None):
    """A report of named texts: {name: text}."""
    scorers = scorers or [MadeUp()]
    is_list = len(texts) != 1 if is_list is None else is_list
    scored = [ScoredText(Text(name, [text]), scorers, is_list) for name, text in texts.items()]
    return Report(scored, scorers, is_list)
