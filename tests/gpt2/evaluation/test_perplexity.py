"""Long texts: the sums equal a computation token by token, and a run can be taken up again."""

import numpy as np
import pytest
from test_scorer import log_probabilities

import gpt2
import numpy_gpt2
from gpt2.evaluation.perplexity import SavedState, Totals, measure
from gpt2.evaluation.scorer import Scorer, check_window
from gpt2.text_stream import Counts
from hparams import UserError

TEXT = "Now is the winter of our discontent\nMade glorious summer by this sun of York;\n" * 2


def naive_nats(tiny, ids, start, window, stride):
    """Every token in a forward pass of its own, over the context that its window gives it."""
    text, total = np.array([start, *ids]), 0.0
    for target in range(1, len(text)):
        begin = max(0, -(-(target - window) // stride)) * stride
        logits = numpy_gpt2.logits(tiny.hparams, tiny.weights, text[begin:target])[-1]
        total -= log_probabilities(logits)[text[target]]
    return total


@pytest.mark.parametrize(("window", "stride"), [(512, 512), (16, 16), (16, 5), (16, 1), (1, 1)])
def test_sum_equals_a_naive_token_by_token_computation(tiny, window, stride):
    scorer = Scorer(gpt2.load(tiny.folder), 4)
    totals = measure([TEXT], scorer, window, stride, SavedState(None, {}))
    ids = scorer.encoder.encode(TEXT)
    assert totals.tokens == len(ids)
    expected = naive_nats(tiny, ids, scorer.end_of_text, window, stride)
    assert totals.nats == pytest.approx(expected, rel=1e-4)


def test_sum_does_not_depend_on_batch_size_or_chunks(tiny):
    chunks = [TEXT[i : i + 7] for i in range(0, len(TEXT), 7)]
    whole = measure([TEXT], Scorer(gpt2.load(tiny.folder), 1), 16, 5, SavedState(None, {}))
    for batch_size in (2, 7, 64):
        other = measure(
            chunks, Scorer(gpt2.load(tiny.folder), batch_size), 16, 5, SavedState(None, {})
        )
        assert other.nats == pytest.approx(whole.nats, rel=1e-5)
        assert (other.tokens, other.windows) == (whole.tokens, whole.windows)


def test_units_by_hand():
    counts = Counts()
    counts.add("Köln am\nRhein\n")
    totals = Totals(windows=1, tokens=4, nats=6 * np.log(2))
    assert totals.summary(counts) == {
        "tokens": 4,
        "words": 3,
        "characters": 14,
        "bytes": 15,
        "perplexity per token": pytest.approx(2**1.5),
        "perplexity per word": pytest.approx(4),
        "bits per byte": pytest.approx(6 / 15),
        "bits per character": pytest.approx(6 / 14),
    }
    assert Totals(1, 1, 1e6).perplexity(1) == float("inf")


def test_a_run_that_broke_off_goes_on_where_it_was(tiny, tmp_path):
    path = str(tmp_path / "state.json")
    scorer = Scorer(gpt2.load(tiny.folder), 2)
    expected = measure([TEXT], scorer, 16, 5, SavedState(None, {}))

    class Watched(Scorer):
        computed, fails_after = 0, None

        def __call__(self, windows, kept=None):
            for result in super().__call__(windows, kept):
                if self.computed == self.fails_after:
                    raise KeyboardInterrupt
                self.computed += 1
                yield result

    broken, resumed = Watched(gpt2.load(tiny.folder), 2), Watched(gpt2.load(tiny.folder), 3)
    broken.fails_after = 6
    with pytest.raises(KeyboardInterrupt):
        measure([TEXT], broken, 16, 5, SavedState(path, {"stride": 5}))
    totals = measure([TEXT], resumed, 16, 5, SavedState(path, {"stride": 5}))
    assert totals.nats == pytest.approx(expected.nats, rel=1e-6)
    assert (totals.windows, totals.tokens) == (expected.windows, expected.tokens)
    assert resumed.computed == expected.windows - 6


def test_the_state_of_another_run_is_refused(tmp_path):
    path = str(tmp_path / "state.json")
    SavedState(path, {"stride": 5, "file": "x"}).put("totals", {"windows": 1})
    assert SavedState(path, {"stride": 5, "file": "x"}).get("totals") == {"windows": 1}
    with pytest.raises(UserError, match=r"a run with another stride \(5, now 6\)"):
        SavedState(path, {"stride": 6, "file": "x"})
    assert SavedState(path, {"stride": 5, "file": "x"}).get("totals") == {"windows": 1}


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"run": 5}', '{"run": {"stride": 5}}', "not JSON", "[" * 100_000],
)
def test_a_file_that_is_no_state_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(UserError, match="is no state of an evaluation"):
        SavedState(str(path), {"stride": 5})
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("window", "stride", "message"),
    [
        (513, None, "window must be from 1 to n_ctx = 512, got 513"),
        (0, None, "window must be from 1"),
        (16, 17, "stride must be from 1 to window = 16, got 17"),
        (16, 0, "stride must be from 1"),
    ],
)
def test_a_window_out_of_range_is_named(window, stride, message):
    with pytest.raises(UserError, match=message):
        check_window(window, stride, 512)


def test_windows_do_not_overlap_unless_asked():
    assert check_window(None, None, 512) == (512, 512)
    assert check_window(100, None, 512) == (100, 100)
    assert check_window(None, 32, 512) == (512, 32)


def test_an_empty_text_is_an_error(tiny):
    with pytest.raises(UserError, match="the text is empty"):
        measure([""], Scorer(gpt2.load(tiny.folder), 1), 16, 16, SavedState(None, {}))
