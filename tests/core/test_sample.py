"""The sampling loop: the original's greedy tokens, and frequencies as they should be."""

import model_weights
import numpy as np
import pytest
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


def test_start_token_is_the_whole_context_and_the_model_has_all_variables(tf, sess):
    output = sample.sample_sequence(hparams=TINY, length=4, start_token=9, batch_size=3, top_k=1)
    weights = model_weights.random_weights(TINY)
    assert {v.op.name for v in tf.global_variables()} == weights.keys()  # as a Saver sees them
    model_weights.assign(tf, sess, weights)
    assert sess.run(output).tolist() == [numpy_gpt2.generate(TINY, weights, [9], 4)] * 3


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


def test_frequencies_match_the_distribution(tf, sess):
    tf.set_random_seed(7)
    temperature, top_k, top_p = 0.7, 9, 0.9
    output = sample.sample_sequence(
        hparams=CONSTANT,
        length=CONSTANT.n_ctx,
        start_token=0,
        batch_size=7,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
    )
    weights = constant_weights()
    model_weights.assign(tf, sess, weights)
    logits = numpy_gpt2.logits(CONSTANT, weights, np.array([0]))[-1]
    draws = np.concatenate([sess.run(output)[:, 1:].ravel() for _ in range(6)])
    p = np.exp(logits / temperature)
    p = allowed(p / p.sum(), top_k, top_p)
    counts = np.bincount(draws, minlength=CONSTANT.n_vocab)
    assert counts[p == 0].sum() == 0
    expected = p[p > 0] * len(draws)
    chi_squared, n = ((counts[p > 0] - expected) ** 2 / expected).sum(), len(expected) - 1
    assert chi_squared < n + 4 * (2 * n) ** 0.5  # 4 standard deviations above the mean


def test_runs_and_rows_differ_and_the_seed_of_the_graph_repeats_them(tf, monkeypatch):
    monkeypatch.setenv("GPT2_ENGINE", "tensorflow")  # has nothing to compile
    with tf.Graph().as_default() as graph:
        tf.set_random_seed(8)
        output = sample.sample_sequence(hparams=CONSTANT, length=50, start_token=0, batch_size=2)
        made = []
        for _ in range(2):
            with tf.Session(graph=graph) as session:
                model_weights.assign(tf, session, constant_weights())
                made.append([session.run(output) for _ in range(2)])
    first, second = made[0]
    assert (first[0] != first[1]).any()
    assert (first != second).any()
    np.testing.assert_array_equal(*made)


LOGITS = np.log(np.array([[0.3, 0.5, 0.05, 0.15], [0.25, 0.25, 0.25, 0.25]], np.float32))


def test_top_p_keeps_the_token_that_crosses_p_in_each_row_by_itself(tf, sess):
    # .5 is short of .6; .3 crosses it and stays. The original kept one.
    T, F = True, False
    logits = np.log(np.array([[0.3, 0.5, 0.05, 0.15], [0.2, 0.1, 0.4, 0.3]], np.float32))
    found = sess.run(sample.top_p_logits(tf.constant(logits), 0.6)) > -1e9
    assert found.tolist() == [[T, T, F, F], [F, F, T, T]]


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


def test_top_k_of_a_tensor_equals_top_k_of_a_number(tf, sess):
    n_vocab = 50257
    logits = np.random.default_rng(n_vocab).normal(size=[3, n_vocab]).astype(np.float32)
    k = tf.placeholder(tf.int32, [])
    masked = sample.top_k_logits(tf.constant(logits), k)
    for value in (0, 1, 5, 64, 65, 512, 513, n_vocab):
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
        ({"length": 25}, "length must be from 0 to n_ctx = 24, got 25"),
        ({"temperature": float("nan")}, "temperature must be 0 or above, got nan"),
        ({"top_k": -1}, "top_k must be from 0 to n_vocab = 13, got -1"),
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


@pytest.fixture(scope="module")
def continued(tf):
    """A function that continues texts in one graph, with placeholders for all settings."""
    with tf.Graph().as_default(), tf.Session() as session:
        settings = settings_placeholders(tf)
        X = tf.placeholder(tf.int32, [2, None])
        tokens = sample.sample_sequence(hparams=TINY, context=X, **settings)
        model_weights.assign(tf, session, model_weights.random_weights(TINY, seed=9))

        def continued(context, length, temperature=1, top_k=0, top_p=1):
            values = length, temperature, top_k, top_p
            feed = dict(zip(settings.values(), values, strict=True))
            return session.run(tokens, {X: context} | feed)

        yield continued


@pytest.mark.parametrize(
    ("n_context", "length", "chosen"),
    [(3, 0, {}), (3, 1, {"top_k": 1}), (1, 22, {"temperature": 0}), (20, 5, {"top_p": 0})],
)
def test_one_graph_continues_contexts_of_any_length(continued, n_context, length, chosen):
    weights = model_weights.random_weights(TINY, seed=9)
    context = np.random.default_rng(n_context).integers(0, 13, [2, n_context]).tolist()
    found = continued(context, length, **chosen)
    assert found.dtype == np.int32
    assert found.tolist() == [numpy_gpt2.generate(TINY, weights, row, length) for row in context]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 25}, "length must be from 0 to n_ctx = 24, got"),
        ({"temperature": float("nan")}, "temperature must be 0 or above, got"),
        ({"top_k": 14}, "top_k must be from 0 to n_vocab = 13, got"),
    ],
)
def test_tensors_out_of_range_end_in_the_message_of_numbers(tf, continued, settings, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        continued([[0], [0]], **({"length": 3} | settings))


@pytest.mark.parametrize(("n_vocab", "jit_compile"), [(50, False), (50257, True)])
def test_a_draw_inverts_the_cumulative_distribution(tf, sess, n_vocab, jit_compile):
    random = np.random.default_rng(n_vocab)
    logits = random.normal(0, 3, [6, n_vocab]).astype(np.float32)
    uniform = random.random(6).astype(np.float32)
    settings = settings_placeholders(tf)
    del settings["length"]
    draw = tf.function(sample.sample_token, jit_compile=jit_compile, autograph=False)
    tokens = draw(tf.constant(logits), tf.constant(uniform), **settings)
    for top_k in {0, 2, 40, 63, 64, 65, 600} & set(range(n_vocab)):
        for temperature, top_p in ((1, 1), (0.7, 0.9), (30, 1), (1e-45, 1), (1e-9, 0.5), (1e6, 1)):
            chosen = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
            found = sess.run(tokens, {settings[name]: value for name, value in chosen.items()})
            for row, u, token in zip(logits, uniform, found, strict=True):
                scaled = (row.astype(float) - row.max()) / temperature
                q = allowed(np.exp(scaled) / np.exp(scaled).sum(), top_k, top_p)
                upto = np.cumsum(q)[token]
                assert q[token] > 0
                assert upto - q[token] - 1e-5 < u < upto + 1e-5


def test_excluded_tokens_are_never_drawn(tf, sess):
    n_vocab = 50257
    logits = np.full([2, n_vocab], -np.inf, np.float32)
    logits[:, -9:] = np.arange(9)
    uniform = tf.constant([0, 0.9999])
    top_k = tf.placeholder(tf.int32, [])
    tokens = sample.sample_token(tf.constant(logits), uniform, top_k=top_k)
    for k, n_kept in ((0, 9), (3, 3), (9, 9), (40, 9)):
        assert sess.run(tokens, {top_k: k}).tolist() == [n_vocab - n_kept, n_vocab - 1]


def test_all_tokens_that_tie_with_the_kth_can_be_drawn(tf, sess):
    few = np.zeros([1, 2200], np.float32)
    few[:, 100:] = -1  # of 100 largest, top_k 5 keeps all
    fewer = np.copy(few)
    fewer[:, 20:] = -1  # as of 20
    top = np.copy(few)
    top[:, 70] = 1  # one above them
    rows = tf.constant(np.concatenate([few, fewer, top]))
    uniform, top_k = tf.placeholder(tf.float32, []), tf.placeholder(tf.int32, [])
    tokens = sample.sample_token(rows, tf.fill([3], uniform), top_k=top_k)
    for k in (2, 5):
        assert sess.run(tokens, {uniform: 0, top_k: k}).tolist() == [0, 0, 0]
        assert sess.run(tokens, {uniform: 0.9999, top_k: k}).tolist() == [99, 19, 99]
    one = sample.sample_token(rows[1:2], tf.fill([1], uniform), top_k=5)
    assert sess.run(one, {uniform: 0.9999}).tolist() == [19]


def test_logits_that_are_not_numbers_give_no_token(tf, sess):
    logits = tf.constant([[0.0, 1.0, 2.0], [0.0, float("nan"), 2.0], [float("inf"), 0.0, 0.0]])
    for settings in ({}, {"temperature": 0}, {"top_k": 2}, {"top_p": 0.5}):
        tokens = sess.run(sample.sample_token(logits, tf.fill([3], 0.5), **settings))
        assert tokens[0] in (0, 1, 2)
        assert tokens[1:].tolist() == [-1, -1]
