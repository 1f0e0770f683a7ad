"""The decode loop: its logits, interruptions, growing caches, and the code that XLA generates."""

import os
import re
import subprocess
import sys

import model_weights
import numpy as np
import pytest
from conftest import ROOT

import decoder
import engine as engine_rule
import kv_cache
import model
import numpy_gpt2
import onednn
import sample
from hparams import HParams

GROWING = HParams(n_vocab=17, n_ctx=300, n_embd=12, n_head=3, n_layer=2)
SHORT = HParams(n_vocab=17, n_ctx=40, n_embd=12, n_head=3, n_layer=2)  # one cache length
CONTEXT = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]]
ENGINES = ["xla", "packed"]  # with weights that may change, the second is TensorFlow's


@pytest.fixture(scope="module", params=["xla", "tensorflow"])
def engine(request):
    """What runs the loop; normally that depends on the batch size."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("GPT2_ENGINE", request.param)
        yield request.param


def feed(loop, **values):
    """A feed for the placeholders of a Decoder, by their names."""
    usual = {"context": CONTEXT, "lengths": [5, 5], "sample_indices": [1, 2], "seed": 1}
    usual |= {"stop": -1, "end": 30, "cache_length": SHORT.n_ctx}
    return {getattr(loop, name): value for name, value in (usual | values).items()}


def strategy(**options):
    """sample_token as a strategy."""
    return lambda logits, uniform, *text: sample.sample_token(logits, uniform, **options)


def cache_lengths(n_ctx, batch_size, compiled, n_positions):
    return kv_cache.cache_lengths(HParams(n_ctx=n_ctx), batch_size, compiled, n_positions)


@pytest.mark.parametrize("n_ctx", [24, 128, 360, 1024])
def test_cache_lengths_end_at_n_ctx_and_a_compiled_loop_has_few(n_ctx):
    for batch_size, most in ((None, 4), (8, 4), (2, 2), (1, 2)):
        lengths = cache_lengths(n_ctx, batch_size, True, n_ctx)
        assert lengths == sorted(set(lengths)) and lengths[-1] == n_ctx
        assert len(lengths) <= most
    lengths = cache_lengths(n_ctx, 16, False, n_ctx)
    assert lengths[-1] == n_ctx and max(np.diff([0, *lengths])) <= 64


def test_a_short_text_alone_has_short_caches_and_a_longer_one_is_not_compiled_for_them():
    assert cache_lengths(1024, 1, True, 128) == [128, 1024]
    assert cache_lengths(1024, 1, True, 129) == [256, 1024]


def test_logits_along_the_way_equal_recomputation(tf, sess, monkeypatch, engine):
    # What is chosen are the bits of the largest logit. As token ids they are out of range: they
    # stand for the last token where the logit is positive, for token 0 where it is negative.
    def choose(logits, *_):
        return tf.bitcast(tf.reduce_max(logits, axis=1), tf.int32)

    def transformer(hparams, X, *args):
        return plain(hparams, tf.clip_by_value(X, 0, hparams.n_vocab - 1), *args)

    plain = model.transformer
    monkeypatch.setattr(model, "transformer", transformer)
    weights = model_weights.random_weights(GROWING, seed=11)
    uniform = tf.zeros([2, GROWING.n_ctx])
    tokens = decoder.generate(GROWING, choose, tf.constant(CONTEXT), uniform, 296)
    model_weights.assign(tf, sess, weights)
    for context, row in zip(CONTEXT, sess.run(tokens), strict=True):
        assert row[:5].tolist() == context
        found = row[5:].view(np.float32)
        ids = [*context, *np.where(found > 0, GROWING.n_vocab - 1, 0)]
        expected = numpy_gpt2.logits(GROWING, weights, np.array(ids[:-1]))[4:].max(axis=1)
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def definition(tf):
    """Arguments of a loop, and what sample_by_definition makes of them."""
    choose = strategy(temperature=0.8, top_k=9, top_p=0.95)
    context = np.arange(12, dtype=np.int32).reshape(3, 4)
    uniform = np.random.default_rng(2).random([3, 40], np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        tokens = sample.sample_by_definition(
            SHORT, tf.constant(context), tf.constant(uniform), 5, choose
        )
        model_weights.assign(tf, session, model_weights.random_weights(SHORT, seed=4))
        return choose, context, uniform, session.run(tokens)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_engine_equals_the_loop_by_definition(tf, sess, engine, definition, batch_size):
    choose, context, uniform, expected = definition
    tokens = decoder.generate(
        SHORT, choose, tf.constant(context[:batch_size]), tf.constant(uniform[:batch_size]), 5
    )
    model_weights.assign(tf, sess, model_weights.random_weights(SHORT, seed=4))
    assert len(np.unique(expected)) > 5
    np.testing.assert_array_equal(sess.run(tokens), expected[:batch_size])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_strategy_sees_each_text_so_far(tf, sess, monkeypatch, engine):
    """Here: the sum of all tokens of the text, weighted by their indices."""

    def choose(logits, uniform, tokens, lengths):
        index = tf.range(tf.shape(tokens)[1])
        terms = tf.where_v2(index < lengths[:, None], tokens * (index + 1), 0)
        return tf.reduce_sum(terms, axis=1) % SHORT.n_vocab

    def continued(text, n):
        text = list(text)
        for _ in range(n):
            terms = [token * (i + 1) for i, token in enumerate(text)]
            text.append(sum(terms) % SHORT.n_vocab)
        return text

    monkeypatch.setenv("GPT2_ENGINE", engine)
    tokens = sample.sample_sequence(
        hparams=SHORT, length=36, context=tf.constant(CONTEXT), choose=choose
    )
    loop = decoder.Decoder(SHORT, choose, 2, constant=True)
    model_weights.assign(tf, sess, model_weights.random_weights(SHORT, seed=15))
    assert sess.run(tokens).tolist() == [continued(row, 36) for row in CONTEXT]
    sess.run(loop.prefill, feed(loop, lengths=[5, 3]))
    for end in (9, 30):
        n_done, found = sess.run(loop.decode, feed(loop, lengths=[5, 3], end=end))
        assert n_done == end
        for row, context, n in zip(found.tolist(), CONTEXT, (5, 3), strict=True):
            assert row == continued(context[:n], end)[n:]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_loop_ends_where_the_weights_give_no_numbers(tf, sess, monkeypatch, engine):
    monkeypatch.setenv("GPT2_ENGINE", engine)
    context = tf.constant(CONTEXT)
    tokens = sample.sample_sequence(hparams=SHORT, length=30, context=context)
    loop = decoder.Decoder(SHORT, strategy(), 2, constant=True)
    weights = model_weights.random_weights(SHORT, seed=15)
    weights["model/wpe"][9] = np.nan  # of the tenth token
    model_weights.assign(tf, sess, weights)
    with pytest.raises(tf.errors.InvalidArgumentError, match="the logits are not numbers"):
        sess.run(tokens)
    sess.run(loop.prefill, feed(loop))
    for _ in range(2):
        n_done, found = sess.run(loop.decode, feed(loop))
        assert n_done == 6
        assert (found[:, :5] >= 0).all() and found[:, 5].tolist() == [decoder.NO_TOKEN] * 2


@pytest.fixture(scope="module", params=ENGINES)
def decode(tf, request):
    """A function that samples 290 tokens in pieces of some size."""
    sess = tf.Session(graph=tf.Graph())
    choose = strategy(top_k=5)
    with sess.graph.as_default(), pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("GPT2_ENGINE", request.param)
        loop = decoder.Decoder(GROWING, choose, 2, constant=True)
        model_weights.assign(tf, sess, model_weights.random_weights(GROWING, seed=12))

    def run(piece, cache_lengths=(100, 200, 300), stop=-1):
        values = {"context": [CONTEXT[0], [7, 8, 0, 0, 0]], "lengths": [5, 2], "stop": stop}
        done, tokens = sess.run(loop.prefill, feed(loop, **values, cache_length=0))
        pieces, cache_lengths, cache_length = [tokens[:, :1]], list(cache_lengths), 0
        while done < 290:
            if cache_length < 5 + done:
                cache_length = cache_lengths.pop(0)
                sess.run(loop.grow, {loop.cache_length: cache_length})
            before, end = done, min(done + piece, 290)
            done, tokens = sess.run(loop.decode, feed(loop, **values, end=end))
            if done == before:
                break
            pieces.append(tokens[:, before:done])
        return np.concatenate(pieces, axis=1)

    with sess:
        yield run


@pytest.mark.skipif(engine_rule.processor() == "other", reason="oneDNN is for x86")
@pytest.mark.parametrize("min_rows", [1, 3])
def test_packed_weights_give_the_same_tokens(tf, sess, monkeypatch, min_rows):
    monkeypatch.setattr(onednn, "MAX_ROWS", 24)  # so that one matrix is cut
    monkeypatch.setitem(engine_rule.MIN_ROWS, engine_rule.processor(), min_rows)  # of 2, or more
    monkeypatch.setenv("GPT2_ENGINE", "packed")
    choose = strategy(top_k=5)
    loops = [decoder.Decoder(SHORT, choose, 2, constant=constant) for constant in (False, True)]
    model_weights.assign(tf, sess, model_weights.random_weights(SHORT, seed=16))
    assert [loop.engine.shares_block for loop in loops] == [True, False]
    made = []
    for loop in loops:
        sess.run(loop.prefill, feed(loop, lengths=[5, 4]))
        made.append(sess.run(loop.decode, feed(loop, lengths=[5, 4]))[1])
    assert len(np.unique(made[0])) > 5
    np.testing.assert_array_equal(*made)


def test_tokens_do_not_depend_on_how_the_loop_was_cut_or_on_the_cache_lengths(decode):
    whole = decode(290)
    assert whole.shape == (2, 290)
    assert len(np.unique(whole)) > 5
    for piece, cache_lengths in [(1, [300]), (100, [100, 200, 300])]:
        np.testing.assert_array_equal(decode(piece, cache_lengths), whole)


def test_the_loop_ends_when_each_sample_drew_the_stop_token(decode):
    whole = decode(290)
    stop = whole[0, 40]
    ends = [int(np.argmax(row == stop)) for row in whole]
    assert (whole == stop).any(axis=1).all()
    assert decode(290, stop=stop).shape == (2, max(ends) + 1)


def test_bfloat16_follows_float32_to_its_precision(tf, sess, engine):  # everything in bfloat16
    weights = model_weights.random_weights(SHORT, seed=14)
    lengths = tf.constant([5, 5])
    made = {}
    for dtype in ("float32", "bfloat16"):
        logits, caches, _ = decoder.prefill(SHORT, tf.constant(CONTEXT), lengths, dtype=dtype)
        loop = decoder.Decoder(SHORT, strategy(), 2, dtype=dtype)
        for x in (logits, caches[0][0], loop.state.caches[0][0]):
            assert x.dtype == dtype
        made[dtype] = tf.cast(logits, tf.float32)
    model_weights.assign(tf, sess, weights)
    made = sess.run(made)
    assert not np.array_equal(made["bfloat16"], made["float32"])
    np.testing.assert_allclose(made["bfloat16"], made["float32"], atol=0.3)
    sess.run(loop.prefill, feed(loop))
    done, tokens = sess.run(loop.decode, feed(loop))
    assert done == 30
    assert ((tokens >= 0) & (tokens < SHORT.n_vocab)).all()


@pytest.mark.parametrize("way", ["in place", "to a copy", "without the private function"])
def test_each_way_to_write_a_position_changes_only_that(tf, sess, monkeypatch, way):
    assert kv_cache.dynamic_update_slice is not None
    write, in_place = kv_cache.write_to_copy, way == "in place"
    if in_place:
        write = kv_cache.write_in_place
    elif way == "without the private function":
        monkeypatch.setattr(kv_cache, "dynamic_update_slice", None)
    cache, value = np.zeros([4, 6, 3], np.float32), np.ones([4, 1, 3], np.float32)
    write = tf.function(write, jit_compile=not in_place, autograph=False)
    found = sess.run(write(tf.constant(cache), tf.constant(value), tf.constant(2)))
    cache[:, 2:3] = value
    np.testing.assert_array_equal(found, cache)


def test_a_context_too_long_for_n_ctx_is_refused(tf, sess):
    X = tf.placeholder(tf.int32, [1, None])
    output = sample.sample_sequence(hparams=SHORT, length=20, context=X)
    sess.run(tf.global_variables_initializer())
    message = "context and length together exceed n_ctx = 40:. .22. .20."
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        sess.run(output, {X: [[1] * 22]})
    assert sess.run(output, {X: [[1] * 21]}).shape == (1, 41)


LOOP = """
from gpt2.tensorflow_session import import_tensorflow
tf = import_tensorflow()
tf.disable_eager_execution()
import sample
from hparams import HParams
hparams = HParams(n_vocab=40, n_ctx=64, n_embd=32, n_head=2, n_layer=2)
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
    flags["GPT2_ENGINE"] = "xla"
    subprocess.run([sys.executable, "-c", LOOP], env=os.environ | flags, check=True, timeout=600)
    (dump,) = tmp_path.glob("*fill_caches*after_optimizations.txt")
    hlo = dump.read_text(encoding="utf-8")
    body = re.search(r" while\(.*body=%([\w.\-]+)", hlo)[1]
    text = re.search(rf"^%{re.escape(body)} .*?^}}", hlo, re.DOTALL | re.MULTILINE)[0]
    made = re.findall(r"^  %(\S+) = f32\[10,64,16\]\S* ([\w-]+)\(", text, re.MULTILINE)
    fusions = [name for name, kind in made if kind != "get-tuple-element"]
    assert len(fusions) == 2 * 2  # keys and values of each layer, and no copy of them
    assert all("dynamic-update-slice_fusion" in name for name in fusions)
    assert not re.search(r"infeed|outfeed|send|recv|host", text)
