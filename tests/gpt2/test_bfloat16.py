"""`--dtype bfloat16` on a CPU: what is stored and computed in it, and the line where it is slow."""

import itertools
import shutil

import model_weights
import numpy as np
import pytest
from conftest import new_session

import engine
import gpt2
import model
import narrow_rows
import narrow_weights
import numpy_gpt2
from gpt2 import checkpoint, model_session

computes = pytest.mark.skipif(
    not engine.has_bfloat16(), reason="the processor has neither avx512_bf16 nor amx_bf16"
)
TEXT = "To be, or not to be, that is the question"


@pytest.fixture(scope="module")
def narrow(tiny):
    with gpt2.load(tiny.folder, dtype="bfloat16", device="cpu", seed=1) as lm:
        yield lm


@computes
def test_the_matrices_are_stored_as_bfloat16_and_nothing_else_is(tf, narrow):
    narrow.generate("a", length=2)
    variables = narrow.session._session.graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)
    names = {v.op.name for v in variables if v.dtype == tf.bfloat16}
    assert names == {v.op.name for v in variables if v.op.name.endswith(("/w", "/wte"))}
    assert len(names) == 4 * 2 + 1


@computes
def test_logits_and_scores_are_those_of_float32_to_three_digits(tiny, narrow):
    ids = narrow.encoder.encode(TEXT)
    expected = numpy_gpt2.logits(tiny.hparams, tiny.weights, np.array(ids))
    logits = narrow.logits([ids])[0]
    assert 0 < np.abs(logits - expected).max() < 0.03 * expected.std()
    with gpt2.load(tiny.folder, device="cpu") as wide:
        pairs = zip(narrow.score(TEXT), wide.score(TEXT), strict=True)
        assert max(abs(a.logprob - b.logprob) for a, b in pairs) < 0.01


@computes
def test_logits_far_from_zero_are_as_exact_as_those_around_it(tf, tiny, narrow, tmp_path):
    ids = narrow.encoder.encode(TEXT)
    folder = shutil.copytree(tiny.folder, tmp_path / "far")
    weights = dict(tiny.weights)
    weights["model/wte"] = weights["model/wte"] + np.eye(12, dtype=np.float32)[0]
    weights["model/ln_f/b"] = weights["model/ln_f/b"] + 200 * np.eye(12, dtype=np.float32)[0]
    with new_session(tf) as session:
        model.model(tiny.hparams, tf.placeholder(tf.int32, [None, None]))
        model_weights.assign(tf, session, weights)
        tf.train.Saver().save(session, str(folder / "model.ckpt"), write_meta_graph=False)
    expected = numpy_gpt2.logits(tiny.hparams, weights, np.array(ids))
    assert np.abs(expected.mean()) > 100
    with gpt2.load(folder, dtype="bfloat16", device="cpu") as far:
        found = far.logits([ids])[0]
        assert np.abs(found - expected).max() < 0.03 * (expected - expected.mean(-1)[:, None]).std()


@computes
@pytest.mark.parametrize("batch_size", [1, 2])
def test_greedy_tokens_are_the_most_likely_in_float32_too_or_nearly(tiny, batch_size):
    options = {"batch_size": batch_size, "length": 20, "temperature": 0, "seed": 1}
    contexts = [[5, 6], [7, 8, 9]][:batch_size]
    with gpt2.load(tiny.folder, dtype="bfloat16", device="cpu", **options) as lm:
        pieces = zip(*lm.stream_tokens(contexts, [1, 2][:batch_size]), strict=True)
        rows = [list(itertools.chain(*parts)) for parts in pieces]
    for context, row in zip(contexts, rows, strict=True):
        assert len(row) == 20
        logits = numpy_gpt2.logits(tiny.hparams, tiny.weights, np.array(context + row))
        logits = logits[len(context) - 1 : -1]
        assert (logits.max(-1) - logits[np.arange(20), row]).max() < 0.05 * logits.std()


def test_products_of_one_row_are_those_of_the_rounded_weights(tf, sess):
    rng = np.random.default_rng(0)
    x, b = (rng.standard_normal(n).astype(np.float32) for n in (12, 20))
    w = tf.cast(tf.constant(rng.standard_normal([1, 12, 20])), tf.bfloat16)
    linear, _ = narrow_rows.products(tf.constant(7))
    y = linear(tf.constant(x[None]), narrow_rows.bits(w), tf.constant(b))
    rows = narrow_rows.gather(narrow_rows.bits(w), [3, 0])
    y, rows, rounded = sess.run([y, rows, tf.cast(w, tf.float32)])
    np.testing.assert_allclose(y[0], x @ rounded[0] + b, atol=1e-5)
    np.testing.assert_array_equal(rows, rounded[0, [3, 0]])


def test_a_variable_of_bfloat16_takes_the_rounded_values_of_a_checkpoint(tf, sess, tiny):
    with tf.variable_scope("model"):
        wte = tf.get_variable("wte", [1280, 12], tf.bfloat16)
        wpe = tf.get_variable("wpe", [512, 12])
        w = tf.get_variable("h1/mlp/c_fc/w", [1, 12, 48], tf.bfloat16)
    checkpoint.restore(sess, tiny.folder / "model.ckpt")
    found = sess.run([tf.cast(x, tf.float32) for x in (w, wte[:512] + tf.cast(wpe, tf.bfloat16))])
    values = tiny.weights
    np.testing.assert_allclose(found[0], values["model/h1/mlp/c_fc/w"], rtol=2**-8)
    embeddings = values["model/wte"][:512] + values["model/wpe"]
    np.testing.assert_allclose(found[1], embeddings, atol=0.02)


def test_a_processor_without_it_says_so_and_computes_all_the_same(tiny, monkeypatch, caplog):
    monkeypatch.setattr(engine, "has_bfloat16", lambda: False)
    with gpt2.load(tiny.folder, dtype="bfloat16", device="cpu", batch_size=2) as lm:
        assert lm.generate("a", length=3, temperature=0)
    assert caplog.messages == [model_session.SLOW_BFLOAT16]
    assert narrow_weights.weight_dtype("model/wte", "bfloat16") == "bfloat16"
