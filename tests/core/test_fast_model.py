"""The fast parts of the model against the definition."""

import model_weights
import numpy as np
import pytest

import decoder
import engine
import fast_model
import model
import numpy_gpt2
from hparams import HParams

SHORT = HParams(n_vocab=17, n_ctx=40, n_embd=12, n_head=3, n_layer=2)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 30])
def test_attention_in_blocks_equals_the_definition(tf, sess, length):
    rng = np.random.default_rng(length)
    q, k, v = (tf.constant(rng.normal(size=[2, 3, length, 4]), tf.float32) for _ in range(3))
    bias = model.causal_bias(length, length, dtype=tf.float32)
    found, expected = sess.run(
        [fast_model.causal_attention(q, k, v), model.attention(q, k, v, bias)]
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_fast_gelu_equals_the_definition(tf, sess):
    x = tf.constant(np.linspace(-20, 20, 4001), tf.float32)
    found, expected = sess.run([fast_model.gelu(x), model.gelu(x)])
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", ["other", "avx2", "avx512"])
def test_a_prefill_of_unequal_contexts_equals_numpy(tf, sess, monkeypatch, kind):
    if kind == "avx512" and engine.processor() == "other":
        pytest.skip("oneDNN is for x86")
    monkeypatch.setattr(engine, "processor", lambda: kind)
    weights = model_weights.random_weights(SHORT, seed=17)
    context, lengths = np.arange(22).reshape(2, 11) % 17, [11, 4]
    logits, caches, _ = decoder.prefill(SHORT, tf.constant(context, tf.int32), tf.constant(lengths))
    model_weights.assign(tf, sess, weights)
    logits, k = sess.run([logits, caches[-1].k])
    for row, ids, n in zip(logits, context, lengths, strict=True):
        expected = numpy_gpt2.logits(SHORT, weights, ids[:n])[-1]
        np.testing.assert_allclose(row, expected, atol=2e-5)
    assert k.shape == (6, 11, 4)
