"""The sampling loop: the original's greedy tokens, and frequencies as they should be."""

import model_weights
import numpy as np
import pytest
import scipy.stats
from conftest import shared

import fast_sample
import numpy_gpt2
import sample
from gpt2 import checkpoint
from gpt2.model_folder import ModelFolder
from hparams import HParams
from user_error import UserError

TINY = HParams(n_vocab=13, n_ctx=24, n_embd=15, n_head=3, n_layer=2)


def test_greedy_tokens_equal_the_original(tf, sess):
    folder = shared("golden/small")
    golden = np.load(folder / "reference.npz")
    hparams = ModelFolder(folder).hparams
    X = tf.placeholder(tf.int32, [3, None])
    output = sample.sample_sequence(hparams=hparams, length=40, context=X, top_k=1)
    checkpoint.restore(sess, ModelFolder(folder).weights)
    for case in range(4):
        expected = golden[f"greedy_tokens_{case}"]
        found = sess.run(output, {X: golden[f"greedy_context_{case}"]})
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("hparams", "batch_size", "n_context", "length"),
    [
        (TINY, 1, 1, 24),
        (TINY, 5, 7, 18),
        (TINY, 2, 24, 1),
        (HParams(n_vocab=29, n_ctx=220, n_embd=20, n_head=5, n_layer=1), 3, 10, 200),
        (HParams(n_vocab=7, n_ctx=33, n_embd=8, n_head=8, n_layer=3), 4, 2, 32),
    ],
)
def test_greedy_tokens_equal_recomputation_without_cache(
    tf, sess, hparams, batch_size, n_context, length
):
    weights = model_weights.random_weights(hparams, seed=3)
    context = np.random.default_rng(4).integers(0, hparams.n_vocab, [batch_size, n_context])
    X = tf.placeholder(tf.int32, [batch_size, None])
    output = sample.sample_sequence(hparams=hparams, length=length, context=X, temperature=0)
    model_weights.assign(tf, sess, weights)
    expected = [numpy_gpt2.generate(hparams, weights, row, length) for row in context]
    np.testing.assert_array_equal(sess.run(output, {X: context}), expected)


def test_one_graph_continues_contexts_of_different_lengths(tf, sess):
    weights = model_weights.random_weights(TINY)
    X = tf.placeholder(tf.int32, [1, None])
    output = sample.sample_sequence(hparams=TINY, length=5, context=X, top_k=1)
    model_weights.assign(tf, sess, weights)
    for context in ([3], [1, 2, 3, 4], [12] * 20):
        found = sess.run(output, {X: [context]})
        assert found.dtype == np.int32
        assert found[0].tolist() == numpy_gpt2.generate(TINY, weights, context, 5)


def test_start_token_is_the_whole_context(tf, sess):
    output = sample.sample_sequence(hparams=TINY, length=4, start_token=9, batch_size=3, top_k=1)
    weights = model_weights.random_weights(TINY)
    model_weights.assign(tf, sess, weights)
    assert sess.run(output).tolist() == [numpy_gpt2.generate(TINY, weights, [9], 4)] * 3


def test_saver_of_a_users_script_sees_the_model_and_nothing_else(tf, sess):
    sample.sample_sequence(hparams=TINY, length=4, start_token=9, batch_size=3)
    assert {v.op.name for v in tf.global_variables()} == set(model_weights.random_weights(TINY))


# With ln_f's gain at zero every position predicts the same: wte times ln_f's bias.
CONSTANT = HParams(n_vocab=11, n_ctx=120, n_embd=6, n_head=2, n_layer=1)


def constant_weights():
    weights = model_weights.random_weights(CONSTANT, seed=5)
    weights["model/ln_f/g"][:] = 0
    weights["model/ln_f/b"][:] = np.random.default_rng(6).normal(0, 1, CONSTANT.n_embd)
    weights["model/wte"] *= 3
    return weights


def allowed(p, top_k, top_p):
    """Probabilities after both cuts, by counting down from the most likely token."""
    order = np.argsort(-p)
    keep = order[: top_k or len(p)]
    q = np.zeros_like(p)
    q[keep] = p[keep] / p[keep].sum()
    n_kept = int(np.searchsorted(np.cumsum(q[order]), top_p)) + 1
    q[order[n_kept:]] = 0
    return q / q.sum()


SETTINGS = [
    *[(1, 0, 1), (0.7, 0, 1), (1, 4, 1), (0.7, 6, 1)],
    *[(1, 0, 0.8), (0.7, 0, 0.9), (1, 5, 0.75)],
]


@pytest.mark.parametrize("batch_size", [1, 7])
def test_frequencies_match_the_distribution_in_one_graph_for_all_settings(tf, sess, batch_size):
    tf.set_random_seed(7)
    weights = constant_weights()
    options = {
        "temperature": tf.placeholder(tf.float32, []),
        "top_k": tf.placeholder(tf.int32, []),
        "top_p": tf.placeholder(tf.float32, []),
    }
    output = sample.sample_sequence(
        hparams=CONSTANT, length=CONSTANT.n_ctx, start_token=0, batch_size=batch_size, **options
    )
    model_weights.assign(tf, sess, weights)
    for values in SETTINGS:
        feed = dict(zip(options.values(), values, strict=True))
        check_frequencies(lambda: sess.run(output, feed), weights, batch_size, *values)  # noqa: B023


@pytest.mark.parametrize("values", [(0.7, 6, 1), (1, 5, 0.75)])
def test_frequencies_match_the_distribution_with_numbers(tf, sess, values):
    tf.set_random_seed(7)
    weights = constant_weights()
    options = dict(zip(["temperature", "top_k", "top_p"], values, strict=True))
    output = sample.sample_sequence(
        hparams=CONSTANT, length=CONSTANT.n_ctx, start_token=0, batch_size=7, **options
    )
    model_weights.assign(tf, sess, weights)
    check_frequencies(lambda: sess.run(output), weights, 7, *values)


def check_frequencies(run, weights, batch_size, temperature, top_k, top_p):
    draws = np.concatenate([run()[:, 1:].ravel() for _ in range(42 // batch_size)])
    logits = numpy_gpt2.logits(CONSTANT, weights, np.array([0]))[-1] / temperature
    p = allowed(np.exp(logits) / np.exp(logits).sum(), top_k, top_p)
    counts = np.bincount(draws, minlength=CONSTANT.n_vocab)
    assert counts[p == 0].sum() == 0
    assert scipy.stats.chisquare(counts[p > 0], p[p > 0] * len(draws)).pvalue > 1e-3


def test_runs_and_rows_differ_without_a_seed_of_their_own(tf, sess):
    output = sample.sample_sequence(hparams=CONSTANT, length=100, start_token=0, batch_size=2)
    model_weights.assign(tf, sess, constant_weights())
    first, second = sess.run(output), sess.run(output)
    assert (first[0] != first[1]).any()
    assert (first != second).any()


def test_graph_seed_repeats_the_draws(tf):
    def draws():
        with tf.Graph().as_default(), tf.Session() as sess:
            tf.set_random_seed(8)
            output = sample.sample_sequence(
                hparams=CONSTANT, length=50, start_token=0, batch_size=2
            )
            model_weights.assign(tf, sess, constant_weights())
            return sess.run(output)

    np.testing.assert_array_equal(draws(), draws())


LOGITS = np.log(np.array([[0.3, 0.5, 0.05, 0.15], [0.25, 0.25, 0.25, 0.25]], np.float32))


def kept(tf, sess, logits):
    return (sess.run(logits) > -1e9).tolist()


def test_top_k_keeps_k_and_what_ties_with_it(tf, sess):
    T, F = True, False
    assert kept(tf, sess, sample.top_k_logits(tf.constant(LOGITS), 2)) == [[T, T, F, F], [T] * 4]
    assert kept(tf, sess, sample.top_k_logits(tf.constant(LOGITS), 0)) == [[T] * 4] * 2


def test_top_p_keeps_the_token_that_crosses_p(tf, sess):
    # .5 + .3 is short of .9; .15 crosses it and stays. The original kept two.
    T, F = True, False
    found = kept(tf, sess, sample.top_p_logits(tf.constant(LOGITS[:1]), 0.9))
    assert found == [[T, T, F, T]]


def test_top_p_keeps_the_likeliest_token_for_any_p(tf, sess):
    found = kept(tf, sess, sample.top_p_logits(tf.constant(LOGITS[:1]), 1e-9))
    assert found == [[False, True, False, False]]


def test_top_p_treats_each_row_by_itself(tf, sess):
    T, F = True, False
    logits = np.log(np.array([[0.97, 0.01, 0.01, 0.01], [0.2, 0.1, 0.4, 0.3]], np.float32))
    found = kept(tf, sess, sample.top_p_logits(tf.constant(logits), 0.6))
    assert found == [[T, F, F, F], [F, F, T, T]]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_nucleus_is_the_smallest_set_that_reaches_p(tf, sess, jit_compile):
    n_vocab = 50257
    random = np.random.default_rng(2)
    rows = [random.normal(0, width, n_vocab) for width in (0.01, 1, 3, 10, 40)]
    rows += [np.round(row) for row in rows]  # many are equal
    rows += [np.where(np.arange(n_vocab) == 0, height, 0.0) for height in (20, 1000)]
    probabilities = np.exp(rows - np.max(rows, axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    probabilities = probabilities.astype(np.float32)
    p = tf.placeholder(tf.float32, [])
    nucleus = tf.function(fast_sample.nucleus, jit_compile=jit_compile, autograph=False)
    found = nucleus(tf.constant(probabilities), p)
    for value in (0, 1e-30, 1e-6, 0.01, 0.25, 0.5, 0.9, 0.99, 1 - 2**-24):
        kept = sess.run(found, {p: value})
        for row, mask in zip(probabilities.astype(float), kept, strict=True):
            smallest = row[mask].min()
            assert (mask == (row >= smallest)).all()
            assert row[mask].sum() > value - 1e-5
            assert row[row > smallest].sum() < value + 1e-5


def test_top_p_needs_not_know_the_vocabulary_when_the_graph_is_built(tf, sess):
    X = tf.placeholder(tf.float32, [None, None])
    found = sess.run(sample.top_p_logits(X, 0.9), {X: LOGITS}) > -1e9
    assert found.tolist() == [[True, True, False, True], [True] * 4]


def test_top_p_of_zero_keeps_the_most_likely_token(tf, sess):
    found = kept(tf, sess, sample.top_p_logits(tf.constant(LOGITS[:1]), 0))
    assert found == [[False, True, False, False]]


@pytest.mark.parametrize("n_vocab", [5, 1280, 50257])
def test_top_k_of_a_tensor_equals_top_k_of_a_number(tf, sess, n_vocab):
    logits = np.random.default_rng(n_vocab).normal(size=[3, n_vocab]).astype(np.float32)
    k = tf.placeholder(tf.int32, [])
    masked = sample.top_k_logits(tf.constant(logits), k)
    for value in {0, 1, 2, 5, 64, 65, 512, 513, n_vocab} & set(range(n_vocab + 1)):
        keep = value or n_vocab
        smallest = np.sort(logits)[:, n_vocab - keep, None]
        expected = np.where(logits < smallest, np.float32(-1e10), logits)
        np.testing.assert_array_equal(sess.run(masked, {k: value}), expected)


def test_top_p_of_one_changes_nothing(tf, sess):
    logits = tf.constant(LOGITS)
    assert sample.top_p_logits(logits, 1) is logits


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": -1}, "length must be from 0 to n_ctx = 24, got -1"),
        ({"length": 25}, "length must be from 0 to n_ctx = 24, got 25"),
        ({"temperature": -0.1}, "temperature must be 0 or above, got -0.1"),
        ({"temperature": float("nan")}, "temperature must be 0 or above, got nan"),
        ({"top_k": -1}, "top_k must be from 0 to n_vocab = 13, got -1"),
        ({"top_k": 14}, "top_k must be from 0 to n_vocab = 13, got 14"),
        ({"top_p": -0.5}, "top_p must be from 0 to 1, got -0.5"),
        ({"top_p": 1.5}, "top_p must be from 0 to 1, got 1.5"),
        ({"top_p": np.float32(1.5)}, "top_p must be from 0 to 1, got 1.5"),
        ({"batch_size": None}, "start_token needs batch_size"),
        ({"start_token": None}, "give either start_token or context"),
    ],
)
def test_sample_sequence_refuses_what_is_out_of_range(tf, sess, settings, message):
    flags = {"hparams": TINY, "length": 4, "start_token": 0, "batch_size": 1} | settings
    with pytest.raises(ValueError) as caught:
        sample.sample_sequence(**flags)
    assert str(caught.value) == message
    assert isinstance(caught.value, UserError)
    assert not sess.graph.get_operations()


def settings_placeholders(tf):
    return {
        "length": tf.placeholder(tf.int32, []),
        "temperature": tf.placeholder(tf.float32, []),
        "top_k": tf.placeholder(tf.int32, []),
        "top_p": tf.placeholder(tf.float32, []),
    }


COMBINATIONS = [
    {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    for temperature in (0, 0.7)
    for top_k, top_p in ((0, 1), (4, 1), (0, 0.8), (6, 0.9))
]


def test_one_graph_of_placeholders_equals_eight_graphs_of_numbers(tf, sess):
    random = np.random.default_rng(1)
    logits = tf.constant(random.normal(0, 2, [50, 2200]), tf.float32)
    uniform = tf.constant(random.random(50), tf.float32)
    settings = settings_placeholders(tf)
    del settings["length"]
    tokens = sample.sample_token(logits, uniform, **settings)
    expected = [sample.sample_token(logits, uniform, **numbers) for numbers in COMBINATIONS]
    for numbers, by_numbers in zip(COMBINATIONS, sess.run(expected), strict=True):
        found = sess.run(tokens, {settings[name]: value for name, value in numbers.items()})
        np.testing.assert_array_equal(found, by_numbers)


def test_one_graph_of_placeholders_gives_sequences_of_any_length(tf, sess):
    weights = model_weights.random_weights(TINY, seed=9)
    settings = settings_placeholders(tf)
    X = tf.placeholder(tf.int32, [2, None])
    tokens = sample.sample_sequence(hparams=TINY, context=X, **settings)
    model_weights.assign(tf, sess, weights)
    context = [[3, 1, 4], [1, 5, 9]]
    for length, chosen in ((0, {}), (1, {"top_k": 1}), (22, {"temperature": 0}), (9, {"top_p": 0})):
        values = {"length": length, "temperature": 1, "top_k": 0, "top_p": 1} | chosen
        found = sess.run(tokens, {X: context} | {settings[n]: v for n, v in values.items()})
        expected = [numpy_gpt2.generate(TINY, weights, row, length) for row in context]
        assert found.tolist() == expected


def test_tensors_out_of_range_end_in_the_message_of_numbers(tf, sess):
    settings = settings_placeholders(tf)
    tokens = sample.sample_sequence(hparams=TINY, start_token=0, batch_size=1, **settings)
    model_weights.assign(tf, sess, model_weights.random_weights(TINY))
    legal = {"length": 3, "temperature": 1, "top_k": 0, "top_p": 1}
    for name, value, message in [
        ("length", 25, "length must be from 0 to n_ctx = 24, got"),
        ("temperature", -1, "temperature must be 0 or above, got"),
        ("temperature", float("nan"), "temperature must be 0 or above, got"),
        ("top_k", 14, "top_k must be from 0 to n_vocab = 13, got"),
        ("top_p", 1.5, "top_p must be from 0 to 1, got"),
    ]:
        feed = {settings[n]: v for n, v in (legal | {name: value}).items()}
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            sess.run(tokens, feed)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_any_temperature_gives_the_right_distribution(tf, sess, batch_size):
    logits = np.array([2.0, 1.0, 1.999, -3.0, 0.5], np.float32)
    temperature = tf.placeholder(tf.float32, [])
    n = 2000
    uniform = tf.constant((np.arange(n) + 0.5) / n, tf.float32)
    rows = tf.tile(tf.constant(logits)[None], [n, 1])

    def choose(top_k):
        return sample.sample_token(rows, uniform, temperature, top_k, 0.999999)

    compiled = tf.function(choose, jit_compile=batch_size == 1, autograph=False)
    tokens = compiled(tf.constant(4))
    for value in (0, 1e-45, 1e-38, 1e-9, 1e-4, 1e-3, 0.5, 1, 20, 1e10, 1e30):
        counts = np.bincount(sess.run(tokens, {temperature: value}), minlength=5)
        kept = np.delete(np.arange(5), 3)
        expected = np.zeros(5)
        scaled = (logits[kept].astype(float) - 2) / max(value, 1e-300)
        expected[kept] = np.exp(np.maximum(scaled, -800))
        np.testing.assert_allclose(counts / n, expected / expected.sum(), atol=2 / n + 1e-3)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("n_vocab", [50, 50257])
def test_a_draw_inverts_the_cumulative_distribution(tf, sess, n_vocab, jit_compile):
    random = np.random.default_rng(n_vocab)
    logits = random.normal(0, 3, [6, n_vocab]).astype(np.float32)
    uniform = random.random(6).astype(np.float32)
    settings = settings_placeholders(tf)
    del settings["length"]
    draw = tf.function(sample.sample_token, jit_compile=jit_compile, autograph=False)
    tokens = draw(tf.constant(logits), tf.constant(uniform), **settings)
    for top_k in {0, 2, 40, 63, 64, 65, 600} & set(range(n_vocab)):
        for temperature, top_p in ((1, 1), (0.7, 0.9), (30, 1)):
            chosen = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
            found = sess.run(tokens, {settings[name]: value for name, value in chosen.items()})
            for row, u, token in zip(logits, uniform, found, strict=True):
                scaled = (row.astype(float) - row.max()) / temperature
                q = allowed(np.exp(scaled) / np.exp(scaled).sum(), top_k, top_p)
                upto = np.cumsum(q)[token]
                assert q[token] > 0
                assert upto - q[token] - 1e-5 < u < upto + 1e-5


@pytest.mark.parametrize("n_vocab", [2200, 50257])
def test_excluded_tokens_are_never_drawn(tf, sess, n_vocab):
    logits = np.full([1, n_vocab], -np.inf, np.float32)
    logits[0, -9:] = np.arange(9)
    logits = tf.constant(logits)
    cases = [(top_k, u) for top_k in (0, 3, 9, 40) for u in (0.0, 0.9999)]
    tokens = [sample.sample_token(logits, tf.constant([u]), top_k=top_k) for top_k, u in cases]
    for (top_k, u), found in zip(cases, sess.run(tokens), strict=True):
        expected = n_vocab - (min(top_k or 9, 9) if u == 0 else 1)
        assert found.tolist() == [expected]


def test_all_tokens_that_tie_with_the_kth_can_be_drawn(tf, sess):
    few = np.zeros([1, 2200], np.float32)
    few[:, 100:] = -1  # of 100 largest, top_k 5 keeps all
    fewer = np.copy(few)
    fewer[:, 20:] = -1  # as of 20
    top = np.copy(few)
    top[:, 70] = 1  # one above them
    rows = tf.constant(np.concatenate([few, fewer, top]))
    for top_k in (2, 5):
        low, high = (
            sess.run(sample.sample_token(rows, tf.fill([3], u), top_k=top_k)).tolist()
            for u in (0.0, 0.9999)
        )
        assert (low, high) == ([0, 0, 0], [99, 19, 99])
    found = sess.run(sample.sample_token(rows[1:2], tf.constant([0.9999]), top_k=5))
    assert found.tolist() == [19]


def test_logits_that_are_not_numbers_give_no_token(tf, sess):
    logits = tf.constant([[0.0, 1.0, 2.0], [0.0, float("nan"), 2.0], [float("inf"), 0.0, 0.0]])
    for settings in ({}, {"temperature": 0}, {"top_k": 2}, {"top_p": 0.5}):
        tokens = sess.run(sample.sample_token(logits, tf.fill([3], 0.5), **settings))
        assert tokens[0] in (0, 1, 2)
        assert tokens[1:].tolist() == [-1, -1]


def test_a_length_of_zero_gives_the_context_back(tf, sess):
    tokens = sample.sample_sequence(hparams=TINY, length=0, start_token=7, batch_size=2)
    model_weights.assign(tf, sess, model_weights.random_weights(TINY))
    assert sess.run(tokens).tolist() == [[7], [7]]
