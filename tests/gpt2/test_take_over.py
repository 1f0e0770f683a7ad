"""Text that does not wait for the compiler, and a graph that is built quickly."""

import os
import shutil
import sys

import pexpect
import pytest
from conftest import ROOT

import model
from gpt2.language_model import LanguageModel


@pytest.fixture
def fresh():
    """A function that opens the embedded model, with the seed as if it had been drawn."""
    opened = []

    def open_model(**options):
        lm = LanguageModel(model_name="1M", seed=5, temperature=0, device="cpu", **options)
        lm.seed_is_given = False
        opened.append(lm)
        return lm

    yield open_model
    for lm in opened:
        lm.close()


def tokens(lm, **options):
    return [token for (ids,) in lm.stream_tokens([[7, 8, 9]], [1], **options) for token in ids]


def test_the_compiled_loop_takes_over_and_the_text_stays_the_same(tf, fresh):
    lm = fresh(length=220, batch_size=1)
    decoding = lm._decoding(1, either=True)
    loops = []
    run = lm.session.run

    def spy(fetches, feed, **options):
        for name in ("decode", "decode_uncompiled"):
            generates = feed.get(decoding.decoder.end)  # and does not only get ready
            if generates and fetches is vars(decoding.decoder).get(name):
                loops.append(name)
                if decoding.compiling is not None:
                    decoding.compiling.wait()
        return run(fetches, feed, **options)

    lm.session.run = spy
    both = tokens(lm, at_once=True)
    assert loops[0] == "decode_uncompiled" and loops[-1] == "decode"
    assert loops == sorted(loops, reverse=True)
    assert decoding.compiled == {256}
    assert tokens(lm) == both


def test_where_compiling_fails_the_text_goes_on_without(tf, fresh):
    lm = fresh(length=220, batch_size=1)
    decoding = lm._decoding(1, either=True)
    decoding.decoder.compile = None  # which no session can run
    found = tokens(lm, at_once=True)
    assert len(found) == 220
    decoding.compiling.join()
    assert decoding.compiling.error is not None and not decoding.compiled
    assert tokens(lm, at_once=True) == found


def test_short_texts_wait_for_no_compiler_until_they_are_many(fresh, monkeypatch):
    monkeypatch.setattr("gpt2.decoding.MANY_TOKENS", 20)
    lm = fresh(length=10)
    decoding = lm._decoding(1)
    decoding.decoder.compile = None  # so it fails at once
    compiling = []
    for _ in range(3):
        lm.generate("To be")
        compiling.append(decoding.compiling is not None)
    assert compiling == [False, False, True]
    decoding.compiling.join()


def test_a_long_text_has_its_first_tokens_before_a_compiler_begins(fresh, monkeypatch):
    monkeypatch.setattr("gpt2.decoding.MANY_TOKENS", 20)
    lm = fresh(length=220, batch_size=1)
    decoding = lm._decoding(1, either=True)
    pieces = lm.stream_tokens([[7, 8, 9]], [1], at_once=True)
    for _ in range(4):  # 49 tokens at most
        next(pieces)
        assert decoding.compiling is None


@pytest.mark.parametrize("engine", ["xla", "tensorflow"])
def test_a_chosen_engine_has_one_loop(tf, fresh, monkeypatch, engine):
    monkeypatch.setenv("GPT2_ENGINE", engine)
    lm = fresh(length=220, batch_size=1)
    assert len(tokens(lm, at_once=True)) == 220
    decoding = lm._decoding(1)
    assert decoding.compiling is None
    assert decoding.decoder.engine.compiled == (engine != "tensorflow")
    assert "decode_uncompiled" not in vars(decoding.decoder)


def test_batches_are_as_small_as_the_expected_samples_unless_a_seed_was_given(fresh):
    for options, size in [({}, 3), ({"batch_size": 8}, 8)]:
        lm = fresh(length=80, **options)
        lm.expect(3)
        assert lm.batch_size == size
    lm = fresh(length=80)
    lm.change(seed=5)
    lm.expect(3)
    assert lm.batch_size > 3


def test_blocks_are_traced_as_often_whatever_the_number_of_layers(tf, monkeypatch):
    import decoder
    import sample
    from hparams import HParams

    traced = []
    block = model.block

    def spy(*args, **kwargs):
        traced.append(args)
        return block(*args, **kwargs)

    monkeypatch.setattr(model, "block", spy)
    counts = []
    for n_layer in (2, 5):
        decoder._variables_of_a_layer.cache_clear()
        hparams = HParams(n_vocab=17, n_ctx=24, n_embd=12, n_head=3, n_layer=n_layer)
        with tf.Graph().as_default():
            made = decoder.Decoder(hparams, lambda x, u, *text: sample.sample_token(x, u), 1)
            _ = made.decode, made.decode_uncompiled
        counts.append(len(traced))
        traced.clear()
    assert counts[0] == counts[1] <= 8


@pytest.mark.end_to_end
def test_weights_that_do_not_load_end_the_prompt_with_one_line(tmp_path):
    """The prompt is there before the model is; nothing is typed at it."""
    folder = shutil.copytree(ROOT / "models" / "1M", tmp_path / "bad")
    weights = next(folder.glob("model.ckpt.data-*"))
    data = bytearray(weights.read_bytes())
    data[100_000] ^= 1
    weights.write_bytes(data)
    script = ROOT / "src" / "interactive_conditional_samples.py"
    command = [str(script), "--model_name", "bad", "--models_dir", str(tmp_path)]
    environment = os.environ | {"HOME": str(tmp_path), "TERM": "dumb"}
    child = pexpect.spawn(sys.executable, command, env=environment, encoding="utf-8", timeout=600)
    child.expect_exact("Model prompt >>> ")
    child.expect(pexpect.EOF)
    child.close()
    (line,) = [line for line in child.before.splitlines() if line.strip()]
    assert "is damaged: a checksum does not match" in line
    assert child.exitstatus == 2
