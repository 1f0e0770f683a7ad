"""The decode loop: its logits, its pieces, its growing caches, and what XLA makes of it."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

import model
import numpy_gpt2
import sample
from hparams import HParams, Sampling

GROWING = HParams(n_vocab=17, n_ctx=300, n_embd=12, n_head=3, n_layer=2)
CONTEXT = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]]


@pytest.fixture(params=["XLA", "TensorFlow"])
def engine(request, monkeypatch):
    """What runs the loop; that depends on the batch size, as a rule."""
    monkeypatch.setattr(sample, "is_compiled", lambda batch_size: request.param == "XLA")


def test_many_samples_are_not_compiled_for_a_cpu(tf, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    assert [sample.is_compiled(n) for n in (None, 1, 15, 16)] == [True, True, True, False]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    assert sample.is_compiled(16)


def test_rooms_are_few_and_end_at_n_ctx():
    assert sample.rooms(HParams(n_ctx=1024), 8) == [128, 256, 576, 1024]
    assert sample.rooms(HParams(n_ctx=1024), None) == [128, 256, 576, 1024]
    assert sample.rooms(HParams(n_ctx=1024), 1) == [256, 1024]
    assert sample.rooms(HParams(n_ctx=128), 8) == [128]
    assert sample.rooms(HParams(n_ctx=24), 1) == [24]


def test_rooms_are_many_where_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr(sample, "is_compiled", lambda batch_size: False)
    assert sample.rooms(HParams(n_ctx=200), 16) == [64, 128, 192, 200]


def test_logits_along_the_way_equal_recomputation(tf, sess, monkeypatch, engine):
    # The bits of the largest logit stand for a token: for the last one where the logit is positive,
    # for token 0 where it is negative.
    def draw(logits, uniform, sampling):
        return tf.bitcast(tf.reduce_max(logits, axis=1), tf.int32)

    def transformer(hparams, X, *args):
        return plain(hparams, tf.clip_by_value(X, 0, hparams.n_vocab - 1), *args)

    plain = model.transformer
    monkeypatch.setattr(model, "transformer", transformer)
    monkeypatch.setattr(sample, "draw", draw)
    weights = numpy_gpt2.random_weights(GROWING, seed=11)
    output = sample.sample_sequence(hparams=GROWING, length=296, context=tf.constant(CONTEXT))
    numpy_gpt2.assign(tf, sess, weights)
    bits = sess.run(output)[:, 5:]
    for context, row in zip(CONTEXT, bits, strict=True):
        found = row.view(np.float32)
        tokens = [*context, *np.where(found > 0, GROWING.n_vocab - 1, 0)]
        expected = numpy_gpt2.logits(GROWING, weights, np.array(tokens[:-1]))[4:].max(axis=1)
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.fixture
def decode(tf, sess, engine):
    """A function that samples 290 tokens in pieces of some size."""
    decoder = sample.Decoder(GROWING, Sampling(290, top_k=5), 2)
    numpy_gpt2.assign(tf, sess, numpy_gpt2.random_weights(GROWING, seed=12))
    feed = {
        decoder.context: [CONTEXT[0], [7, 8, 0, 0, 0]],
        decoder.lengths: [5, 2],
        decoder.seed: 1,
        decoder.numbers: [1, 2],
        decoder.stop: -1,
    }

    def run(piece, rooms=(100, 200, 300), stop=-1):
        feed[decoder.stop] = stop
        done, tokens = sess.run(decoder.start, feed)
        pieces, rooms, slots = [tokens[:, :1]], list(rooms), 0
        while done < 290:
            if slots < 5 + done:
                slots = rooms.pop(0)
                sess.run(decoder.grow, {decoder.slots: slots})
            before = done
            done, tokens = sess.run(decoder.advance, feed | {decoder.end: min(done + piece, 290)})
            if done == before:
                break
            pieces.append(tokens[:, before:done])
        return np.concatenate(pieces, axis=1)

    return run


def test_tokens_do_not_depend_on_how_the_loop_was_cut(decode):
    whole = decode(290)
    assert whole.shape == (2, 290)
    assert len(np.unique(whole)) > 5
    for piece in (1, 7, 100):
        np.testing.assert_array_equal(decode(piece), whole)


def test_tokens_do_not_depend_on_the_room_in_the_caches(decode):
    np.testing.assert_array_equal(decode(290, rooms=[300]), decode(290))


def test_the_loop_ends_when_each_sample_drew_the_stop_token(decode):
    whole = decode(290)
    stop = whole[0, 40]
    ends = [int(np.argmax(row == stop)) for row in whole]
    assert (whole == stop).any(axis=1).all()
    assert decode(290, stop=stop).shape == (2, max(ends) + 1)


def test_bfloat16_follows_float32_to_its_precision(tf, sess, engine):
    weights = numpy_gpt2.random_weights(GROWING, seed=14)
    lengths = tf.constant([5, 5])
    made = {}
    for dtype in ("float32", "bfloat16"):
        logits, caches, _ = sample.prefill(GROWING, tf.constant(CONTEXT), lengths, dtype=dtype)
        decoder = sample.Decoder(GROWING, Sampling(20), 2, dtype=dtype)
        for x in (logits, caches[0][0], decoder.state.caches[0][0]):
            assert x.dtype == dtype
        made[dtype] = tf.cast(logits, tf.float32)
    numpy_gpt2.assign(tf, sess, weights)
    made = sess.run(made)
    assert not np.array_equal(made["bfloat16"], made["float32"])
    np.testing.assert_allclose(made["bfloat16"], made["float32"], atol=0.3)
    feed = {decoder.context: CONTEXT, decoder.lengths: [5, 5], decoder.seed: 1, decoder.stop: -1}
    feed |= {decoder.numbers: [1, 2], decoder.end: 20, decoder.slots: 128}
    sess.run(decoder.start, feed)
    sess.run(decoder.grow, feed)
    done, tokens = sess.run(decoder.advance, feed)
    assert done == 20
    assert ((tokens >= 0) & (tokens < GROWING.n_vocab)).all()


def test_a_successor_takes_over_the_memory(tf, sess):
    first = sample.Decoder(GROWING, Sampling(20), 2)
    second = sample.Decoder(GROWING, Sampling(20, top_k=3), 2, successor_of=first)
    assert second.state is first.state


def test_without_the_private_function_the_tokens_are_the_same(tf, monkeypatch):
    def tokens():
        with tf.Graph().as_default(), tf.Session() as sess:
            context = tf.constant(CONTEXT)
            output = sample.sample_sequence(hparams=GROWING, length=140, context=context, top_k=1)
            numpy_gpt2.assign(tf, sess, numpy_gpt2.random_weights(GROWING, seed=13))
            return sess.run(output)

    assert sample.dynamic_update_slice is not None
    expected = tokens()
    monkeypatch.setattr(sample, "dynamic_update_slice", None)
    np.testing.assert_array_equal(tokens(), expected)


def test_a_context_too_long_for_n_ctx_is_told(tf, sess):
    X = tf.placeholder(tf.int32, [1, None])
    output = sample.sample_sequence(hparams=GROWING, length=100, context=X)
    sess.run(tf.global_variables_initializer())
    message = "context and length 100 together exceed n_ctx = 300"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        sess.run(output, {X: [[1] * 202]})
    assert sess.run(output, {X: [[1] * 201]}).shape == (1, 301)


LOOP = """
from gpt2.command_line import import_tensorflow
tf = import_tensorflow()
import sample
from hparams import HParams
hparams = HParams(n_vocab=40, n_ctx=64, n_embd=32, n_head=2, n_layer=3)
output = sample.sample_sequence(
    hparams=hparams, length=60, start_token=1, batch_size=5, top_k=7, top_p=0.9)
with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    sess.run(output)
"""


@pytest.mark.end_to_end
@pytest.mark.skipif(sys.platform != "linux", reason="XLA's dump is only known here")
def test_compiled_loop_copies_no_cache_and_asks_nothing_of_the_host(tmp_path):
    flags = {"PYTHONPATH": str(ROOT / "src"), "XLA_FLAGS": f"--xla_dump_to={tmp_path}"}
    subprocess.run([sys.executable, "-c", LOOP], env=os.environ | flags, check=True, timeout=100)
    (dump,) = tmp_path.glob("*go_on*after_optimizations.txt")
    hlo = dump.read_text(encoding="utf-8")
    body = re.search(r" while\(.*body=%([\w.\-]+)", hlo)[1]
    text = re.search(rf"^%{re.escape(body)} .*?^}}", hlo, re.DOTALL | re.MULTILINE)[0]
    made = re.findall(r"^  %(\S+) = f32\[10,64,16\]\S* ([\w-]+)\(", text, re.MULTILINE)
    fusions = [name for name, kind in made if kind != "get-tuple-element"]
    assert len(fusions) == 2 * 3  # keys and values of each layer, and no copy of them
    assert all("dynamic-update-slice_fusion" in name for name in fusions)
    assert not re.search(r"infeed|outfeed|send|recv|host", text)
