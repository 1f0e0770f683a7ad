"""Long texts: the sums equal a computation token by token, and a run can be taken up again."""

import numpy as np
import pytest
from scoring import MadeUp, nats, scorer_of

from gpt2.evaluation.perplexity import SavedState, measure, open_state
from gpt2.evaluation.totals import BAND_NAMES, Totals
from gpt2.scorer import Scorer, Scores
from gpt2.text_stream import Counts
from gpt2.windows import EvaluationOptions
from user_error import UserError

TEXT = "Now is the winter of our discontent\nMade glorious summer by this sun of York;\n" * 2


def naive_nats(tiny, ids, window, stride):
    """Every token in a forward pass of its own, over the context that its window gives it."""
    total = 0.0
    for target in range(1, len(ids)):
        begin = max(0, -(-(target - window) // stride)) * stride
        total += nats(tiny, ids[begin : target + 1], 1)[0]
    return total


@pytest.mark.parametrize(("window", "stride"), [(512, 512), (16, 5), (1, 1)])
def test_sum_equals_a_naive_token_by_token_computation(tiny, window, stride):
    scorer = scorer_of(tiny, window=window, stride=stride)
    chunks = [TEXT[i : i + 7] for i in range(0, len(TEXT), 7)]
    totals = measure(chunks, scorer, SavedState(None, {}))
    ids = scorer.encoder.encode(TEXT)
    assert totals.tokens == len(ids)
    expected = naive_nats(tiny, [scorer.end_of_text, *ids], window, stride)
    assert totals.nats == pytest.approx(expected, rel=1e-4)


def scores_of(logprobs, ranks, entropies):
    return Scores(*map(np.array, (logprobs, ranks, entropies)), None, None, None)


def test_units_by_hand():
    counts = Counts()
    counts.add("Köln am\nRhein\n")
    totals = Totals()
    totals.add(scores_of(np.log([0.5, 0.5]), [1, 10], [1.0, 2.0]))
    totals.add(scores_of(np.log([0.25, 0.25]), [11, 1001], [3.0, 4.0]))
    log_ranks = np.log([1, 10, 11, 1001])
    assert totals.summary(counts) == {
        "tokens": 4,
        "words": 3,
        "characters": 14,
        "bytes": 15,
        "perplexity per token": pytest.approx(2**1.5),
        "perplexity per word": pytest.approx(4),
        "bits per byte": pytest.approx(6 / 15),
        "bits per character": pytest.approx(6 / 14),
        **dict(zip(BAND_NAMES, [2, 1, 0, 1], strict=True)),
        "mean log-probability": pytest.approx(-1.5 * np.log(2)),
        "standard deviation of log-probability": pytest.approx(0.5 * np.log(2)),
        "mean entropy": pytest.approx(2.5),
        "standard deviation of entropy": pytest.approx(np.std([1, 2, 3, 4])),
        "mean log-rank": pytest.approx(log_ranks.mean()),
        "standard deviation of log-rank": pytest.approx(log_ranks.std()),
    }


def test_sums_at_the_edge_of_what_numbers_can_hold():
    assert Totals(tokens=1, sums=[-1e6, 0, 0]).perplexity(1) == float("inf")
    assert all(np.isnan(value) or value == 0 for value in Totals().summary(Counts()).values())
    equal = Totals()
    for _ in range(7):
        equal.add(scores_of(np.full(11, -0.1), np.full(11, 3), np.full(11, 0.1)))
    # Rounding takes the variance below 0.
    assert equal.summary(Counts())["standard deviation of entropy"] == pytest.approx(0, abs=1e-6)


def test_an_interrupted_run_resumes_where_it_stopped(tiny, tmp_path):
    path = tmp_path / "state.json"
    scorer = scorer_of(tiny, window=16, stride=5)
    expected = measure([TEXT], scorer, SavedState(None, {}))

    class Watched(Scorer):
        computed, fails_after = 0, None

        def __call__(self, windows, allowed=None):
            for result in super().__call__(windows, allowed):
                if self.computed == self.fails_after:
                    raise KeyboardInterrupt
                self.computed += 1
                yield result

    broken, resumed = (
        Watched(scorer.model, EvaluationOptions(16, 5, batch_size)) for batch_size in (2, 3)
    )
    broken.fails_after = 6
    with pytest.raises(KeyboardInterrupt):
        measure([TEXT], broken, SavedState(path, {"stride": 5}))
    totals = measure([TEXT], resumed, SavedState(path, {"stride": 5}))
    assert totals.nats == pytest.approx(expected.nats, rel=1e-6)
    assert (totals.windows, totals.tokens) == (expected.windows, expected.tokens)
    assert resumed.computed == expected.windows - 6


def test_a_second_run_with_the_same_state_is_refused_until_the_first_ends(tmp_path):
    path, scorer = str(tmp_path / "state.json"), MadeUp()
    with open_state(path, scorer) as first:
        with pytest.raises(UserError, match=r"another run is writing to .*state\.json"):
            open_state(path, scorer).__enter__()
        first.put("totals", 1)
    with open_state(path, scorer) as second:
        assert second.done == {"totals": 1}
