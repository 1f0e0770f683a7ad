"""The graph against the original's numbers, a NumPy twin, and the release's variables."""

import json
import math

import model_weights
import numpy as np
import pytest
from conftest import shared

import model
import numpy_gpt2
from gpt2 import checkpoint
from gpt2.model_folder import ModelFolder
from hparams import HParams

# Tiny sizes, no two alike, so that axes which are swapped do not pass unseen.
ODD = HParams(n_vocab=13, n_ctx=11, n_embd=15, n_head=3, n_layer=2)


def test_logits_and_presents_with_and_without_past_equal_the_original(tf, sess):
    folder = shared("golden/small")
    golden, hparams = np.load(folder / "reference.npz"), ModelFolder(folder).hparams
    X = tf.placeholder(tf.int32, [None, None])
    past = tf.placeholder(tf.float32, model.past_shape(hparams=hparams))
    whole, second = model.model(hparams, X), model.model(hparams, X, past=past, reuse=True)
    checkpoint.restore(sess, ModelFolder(folder).weights)
    found = sess.run(whole, {X: golden["tokens"]})
    np.testing.assert_allclose(found["logits"], golden["logits"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found["present"], golden["present"], rtol=0, atol=1e-4)
    half = golden["tokens"].shape[1] // 2
    feed = {X: golden["tokens"][:, half:], past: golden["present"][..., :half, :]}
    found = sess.run(second["logits"], feed)
    np.testing.assert_allclose(found, golden["logits_second_half_with_past"], rtol=0, atol=1e-4)


def test_variables_are_those_of_the_release(tf, sess):
    folder = shared("gpt2")
    model.model(ModelFolder(folder).hparams, tf.placeholder(tf.int32, [None, None]))
    built = {v.op.name: v.shape.as_list() for v in tf.global_variables()}
    index = tf.train.load_checkpoint(str(folder / "model.ckpt"))
    assert built == index.get_variable_to_shape_map()
    assert len(built) == 148
    assert {v.dtype.base_dtype for v in tf.global_variables()} == {tf.float32}


@pytest.mark.parametrize("n_head", [3, 15])
def test_logits_equal_a_numpy_twin_at_odd_shapes(tf, sess, n_head):
    hparams = HParams(n_vocab=13, n_ctx=11, n_embd=15, n_head=n_head, n_layer=2)
    X = tf.placeholder(tf.int32, [None, None])
    logits = model.model(hparams, X)["logits"]
    weights = model_weights.random_weights(hparams)
    assert weights.keys() == {v.op.name for v in tf.global_variables()}
    assert hparams.n_params() == sum(values.size for values in weights.values())
    model_weights.assign(tf, sess, weights)
    tokens = np.random.default_rng(1).integers(0, hparams.n_vocab, [4, hparams.n_ctx])
    expected = [numpy_gpt2.logits(hparams, weights, row) for row in tokens]
    np.testing.assert_allclose(sess.run(logits, {X: tokens}), expected, rtol=0, atol=1e-4)


def test_a_second_call_shares_the_weights_where_reuse_says_so(tf, sess):
    """As training scripts call it: once for the loss, once more for validation."""
    X = tf.placeholder(tf.int32, [None, None])
    with pytest.raises(ValueError, match="does not exist"):
        model.model(ODD, X, reuse=True)
    calls = [model.model(ODD, X)]
    with pytest.raises(ValueError, match="already exists"):
        model.model(ODD, X)
    calls.append(model.model(ODD, X, reuse=True))
    with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
        calls.append(model.model(ODD, X))
    n_variables = len(tf.global_variables())
    model.model(ODD, X, scope="another")
    assert len(tf.global_variables()) == 2 * n_variables
    sess.run(tf.global_variables_initializer())
    first, *others = sess.run([call["logits"] for call in calls], {X: [[1, 2, 3]]})
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_model_with_past_one_token_at_a_time_equals_one_pass(tf, sess):
    X = tf.placeholder(tf.int32, [None, None])
    full = model.model(ODD, X)
    past = tf.placeholder(tf.float32, model.past_shape(hparams=ODD))
    step = model.model(ODD, X, past=past, reuse=tf.AUTO_REUSE)
    model_weights.assign(tf, sess, model_weights.random_weights(ODD))
    tokens = np.random.default_rng(2).integers(0, ODD.n_vocab, [2, ODD.n_ctx])
    expected = sess.run(full, {X: tokens})
    cache = np.zeros(model.past_shape(hparams=ODD, batch_size=2, sequence=0), np.float32)
    for i in range(ODD.n_ctx):
        found = sess.run(step, {X: tokens[:, i : i + 1], past: cache})
        cache = np.concatenate([cache, found["present"]], axis=-2)
        np.testing.assert_allclose(found["logits"][:, 0], expected["logits"][:, i], atol=1e-4)
    np.testing.assert_allclose(cache, expected["present"], atol=1e-4)


def test_static_shapes_are_kept_where_they_are_known(tf, sess):
    output = model.model(ODD, tf.placeholder(tf.int32, [4, 7]))
    assert output["logits"].shape == (4, 7, 13)
    assert output["present"].shape == (4, 2, 2, 3, 7, 5)
    assert model.past_shape(hparams=ODD, batch_size=4, sequence=7) == [4, 2, 2, 3, 7, 5]


def test_softmax_stands_large_numbers_and_any_axis(tf, sess):
    x = np.array([[1000.0, 1000.0], [0.0, -1000.0]], np.float32)
    np.testing.assert_allclose(sess.run(model.softmax(tf.constant(x))), [[0.5, 0.5], [1, 0]])
    np.testing.assert_allclose(sess.run(model.softmax(tf.constant(x), axis=0)), [[1, 1], [0, 0]])


def test_gelu_is_the_tanh_form(tf, sess):
    # By the formula of arXiv:1606.08415, section 2, in double precision. The exact form differs
    # from it by up to 5e-4.
    x = [-3.0, -1.0, 0.0, 0.5, 2.0]
    inner = [math.sqrt(2 / math.pi) * (v + 0.044715 * v**3) for v in x]
    expected = [0.5 * v * (1 + math.tanh(u)) for v, u in zip(x, inner, strict=True)]
    np.testing.assert_allclose(sess.run(model.gelu(tf.constant(x))), expected, atol=1e-6)


def test_attn_refuses_an_input_of_wrong_rank(tf, sess):
    with pytest.raises(ValueError, match=r"x must be \[batch, sequence, n_embd\]"):
        model.attn(tf.zeros([3, 15]), "attn", 15, past=None, hparams=ODD)


def test_default_hparams_are_those_of_the_release():
    hparams = json.loads((shared("gpt2") / "hparams.json").read_text(encoding="utf-8"))
    assert vars(model.default_hparams()) == hparams
