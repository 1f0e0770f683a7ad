"""Sampling strategies of one's own: the examples of docs/strategies.md, with each engine."""

import numpy as np
import pytest
from conftest import ROOT

import gpt2
import sample
import strategies
from gpt2 import language_model
from hparams import HParams
from user_error import UserError

N_VOCAB = 23
ROWS = np.random.default_rng(0)
LOGITS = ROWS.normal(0, 2, [3, N_VOCAB]).astype(np.float32)
TEXTS = [[4, 5, 4, 22, 0, 7, 7], [1, 2, 0, 0, 0, 0, 0], [0, 3, 9, 9, 9, 3, 0]]  # ends: padding
LENGTHS = [7, 2, 6]


@pytest.fixture(scope="module")
def examples(tf):
    """The functions of docs/strategies.md, by name."""
    text = (ROOT / "docs/strategies.md").read_text(encoding="utf-8")
    code = text.partition("```python\n")[2].partition("\nlm = ")[0]
    found = {}
    exec(code, found)
    return found


@pytest.fixture
def logits_of(tf, sess, monkeypatch):
    """A function that gives the logits that a strategy hands to sample_token."""

    def logits_of(strategy):
        monkeypatch.setattr(sample, "sample_token", lambda logits, uniform, **_: logits)
        arguments = LOGITS, np.zeros(3, np.float32), TEXTS, LENGTHS
        return sess.run(strategy(*map(tf.constant, arguments)))

    return logits_of


def test_the_repetition_penalty_is_that_of_transformers(examples, logits_of):
    # RepetitionPenaltyLogitsProcessor in huggingface/transformers,
    # src/transformers/generation/logits_process.py: score = gather(scores, input_ids);
    # score = where(score < 0, score * penalty, score / penalty); scatter(scores, input_ids, score)
    expected = LOGITS.copy()
    for row, text, length in zip(expected, TEXTS, LENGTHS, strict=True):
        ids = np.array(text[:length])
        score = row[ids]
        row[ids] = np.where(score < 0, score * np.float32(1.3), score / np.float32(1.3))
    assert (expected != LOGITS).any() and (expected[1] != LOGITS[1]).sum() == 2
    np.testing.assert_allclose(logits_of(examples["repetition_penalty"]), expected, rtol=1e-6)


def test_forbidden_tokens_have_no_probability(examples, logits_of):
    examples["FORBIDDEN"] = {0, 3, 22}
    found = logits_of(examples["without_some_tokens"])
    allowed = [i for i in range(N_VOCAB) if i not in examples["FORBIDDEN"]]
    assert np.isneginf(found[:, [0, 3, 22]]).all()
    np.testing.assert_array_equal(found[:, allowed], LOGITS[:, allowed])


def test_min_p_keeps_what_has_a_share_of_the_highest_probability(examples, logits_of):
    p = np.exp(LOGITS.astype(float))
    keep = p >= 0.1 * p.max(axis=1, keepdims=True)
    expected = np.where(keep, LOGITS, -np.inf)
    assert 3 < keep.sum() < keep.size
    np.testing.assert_array_equal(logits_of(examples["min_p"]), expected)


def test_counts_of_tokens_leave_out_what_comes_after_a_text(tf, sess):
    counts = sess.run(strategies.token_counts(tf.constant(TEXTS), tf.constant(LENGTHS), N_VOCAB))
    for row, text, length in zip(counts, TEXTS, LENGTHS, strict=True):
        np.testing.assert_array_equal(row, np.bincount(text[:length], minlength=N_VOCAB))


TINY = HParams(n_vocab=17, n_ctx=24, n_embd=12, n_head=3, n_layer=1)


@pytest.mark.parametrize(
    ("result", "found"),
    [
        (lambda tf, n: tf.zeros([2]), "float32 (2,)"),
        (lambda tf, n: tf.zeros([2, 17], tf.int32), "int32 (2, 17)"),
    ],
)
def test_a_strategy_whose_result_is_no_token_for_each_text_is_refused(tf, sess, result, found):
    def choose(logits, uniform, tokens, lengths):
        return result(tf, lengths)

    with pytest.raises(UserError) as caught:
        sample.sample_sequence(hparams=TINY, length=4, start_token=0, batch_size=2, choose=choose)
    assert str(caught.value) == f"choose must give integers of shape (2,), got {found}"


def test_a_loaded_model_takes_a_strategy_and_keeps_its_graph(tf, monkeypatch):
    def echo(logits, uniform, tokens, lengths):
        return tf.gather(tokens, lengths - 1, batch_dims=1)

    def outside(logits, uniform, tokens, lengths):
        return lengths * 0 + 1280

    monkeypatch.setattr(language_model, "MOST_STRATEGIES", 2)
    with gpt2.load("1M", batch_size=2) as lm:
        assert lm.generate(["a", "b"], length=4, choose=echo) == ["aaaa", "bbbb"]
        with pytest.raises(UserError, match="choose gave an id outside the vocabulary"):
            lm.generate(["a", "b"], length=4, choose=outside)
        with pytest.raises(UserError, match="top_k has no effect with choose"):
            lm.generate("a", top_k=3, choose=echo)
        with pytest.raises(UserError, match="2 strategies have a graph, and no more can"):
            lm.generate("a", choose=lambda *_: None)
        assert lm.generate(["c", "d"], length=4, choose=echo) == ["cccc", "dddd"]
