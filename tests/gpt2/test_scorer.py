"""Scores of tokens against NumPy, whatever the batch; windows that leave nothing out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scoring import log_probabilities, scorer_of

import numpy_gpt2
from gpt2 import scorer
from gpt2.windows import EvaluationOptions, Window, sliding_windows
from user_error import DamagedModelError, UserError

RNG = np.random.default_rng(0)


def expected_scores(tiny, window, allowed=None, top=0):
    """As scorer.Scores, by NumPy."""
    n = window.n_scored
    logits = numpy_gpt2.logits(tiny.hparams, tiny.weights, np.array(window.ids[:-1]))[-n:]
    targets = np.array(window.ids[-n:])
    logp = log_probabilities(logits)
    chosen = logp[np.arange(n), targets]
    output = {
        "logprob": chosen,
        "rank": (logp > chosen[:, None]).sum(-1) + 1,
        "entropy": -(np.exp(logp) * logp).sum(-1),
        "top_probability": np.exp(logp.max(-1)),
    }
    if top:
        output["top_ids"] = np.argsort(-logp, kind="stable")[:, :top]
        output["top_probabilities"] = -np.sort(-np.exp(logp))[:, :top]
    if allowed is not None:
        those = np.array([(allowed > 0) | (np.arange(len(allowed)) == t) for t in targets])
        logp = log_probabilities(np.where(those, logits, -1e30))
        output["filtered_logprob"] = logp[np.arange(n), targets]
        output["filtered_rank"] = (logp > output["filtered_logprob"][:, None]).sum(-1) + 1
    return output


@pytest.fixture
def windows():
    """Of several lengths, some scored in part."""
    shapes = [(30, 29), (2, 1), (17, 5), (64, 63), (9, 8), (30, 1), (5, 4)]
    return [Window(RNG.integers(0, 1280, length).tolist(), n) for length, n in shapes]


@pytest.mark.parametrize(("filtered", "top"), [(False, 0), (True, 0), (False, 7)])
def test_scores_equal_numpy(tiny, windows, filtered, top):
    allowed = (RNG.random(1280) < 0.7).astype(np.float32) if filtered else None
    scored = list(scorer_of(tiny, batch_size=3, top=top)(windows, allowed))
    assert [window for window, _ in scored] == windows
    for window, scores in scored:
        for name, value in expected_scores(tiny, window, allowed, top).items():
            assert getattr(scores, name).shape == value.shape
            np.testing.assert_allclose(getattr(scores, name), value, rtol=1e-4, atol=1e-4)


def test_statistics_of_a_flat_and_of_a_certain_prediction(tf, sess):
    logits = np.zeros([2, 5], np.float32)
    logits[1, 3] = 200
    output = sess.run(scorer.statistics(tf.constant(logits), tf.constant([2, 0])))
    np.testing.assert_allclose(output["logprob"], [-np.log(5), -200], rtol=1e-6)
    np.testing.assert_allclose(output["entropy"], [np.log(5), 0], atol=1e-6)
    np.testing.assert_array_equal(output["rank"], [1, 2])


def test_excluded_tokens_are_a_space_and_a_word_in_any_case(tiny):
    scorer = scorer_of(tiny)
    out = np.flatnonzero(scorer.allowed_tokens({"the", "i", "our"}) == 0)
    assert {scorer.encoder.decode([i]) for i in out} == {" the", " I", " our"}


@given(st.integers(1, 9), st.integers(0, 60), st.data())
def test_every_token_is_scored_once_with_the_context_that_is_promised(n_context, length, data):
    size = data.draw(st.integers(1, 12), "window")
    stride = data.draw(st.integers(1, size), "stride")
    context, ids = list(range(-n_context, 0)), list(range(length))
    scored = []
    for k, window in enumerate(sliding_windows(ids, context, size, stride)):
        assert window.ids[0] == k * stride - min(n_context, size)
        assert len(window.ids) <= size + 1
        assert k == 0 or len(window.ids) - window.n_scored > size - stride
        scored += window.ids[-window.n_scored :]
    assert scored == ids


def test_token_scores_list_the_alternatives(tiny):
    scorer = scorer_of(tiny, top=7)
    tokens = list(scorer.score_text(["To be", " or not"]))
    assert "".join(token.text for token in tokens) == "To be or not"
    for token in tokens:
        first, second, *_ = token.alternatives
        assert first.probability == pytest.approx(token.top_probability)
        assert first.probability >= second.probability
        assert first.text == scorer.encoder.decode([first.id])
    assert all(t.alternatives == () for t in scorer_of(tiny).score_text(["To be"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 513}, "window must be from 1 to n_ctx = 512, got 513"),
        ({"window": 16, "stride": 17}, "stride must be from 1 to window = 16, got 17"),
        ({"stride": 0}, "stride must be from 1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"top": 1281}, "top must be from 0 to n_vocab = 1280, got 1281"),
    ],
)
def test_an_option_out_of_range_is_named(tiny, options, message):
    with pytest.raises(UserError, match=message):
        EvaluationOptions(**options).resolved(tiny.hparams)


def test_windows_do_not_overlap_unless_asked(tiny):
    for options, sizes in [((), (512, 512)), ((100,), (100, 100)), ((None, 32), (512, 32))]:
        assert EvaluationOptions(*options).resolved(tiny.hparams) == sizes


def test_weights_that_compute_no_numbers_are_reported(tiny, monkeypatch):
    scorer = scorer_of(tiny)
    monkeypatch.setattr(scorer.model, "run", lambda *_: {"logprob": np.array([[np.nan]])})
    with pytest.raises(DamagedModelError, match="weights are damaged"):
        list(scorer.score_text(["x"]))
