"""Texts that do not wait for the compiler, and a graph that is built quickly."""

import os
import shutil
import sys

import pexpect
import pytest
from conftest import ROOT

import model
from gpt2.language_model import LanguageModel


def test_only_long_texts_and_seeds_wait_for_a_compiler(monkeypatch):
    monkeypatch.delenv("GPT2_ENGINE", raising=False)
    monkeypatch.setattr("gpt2.language_model.WORTH_COMPILING", 10)
    made = []

    class Quick(Exception):
        """Ends a call before anything is built."""

    def decoding(batch_size, quick, choose=None):
        made.append(quick)
        raise Quick

    def quick(call):
        with pytest.raises(Quick):
            call()
        return made.pop()

    lm = LanguageModel(model_name="1M", batch_size=2)
    monkeypatch.setattr(lm, "_decoding", decoding)
    assert quick(lambda: lm.generate("a", 2, length=10))
    assert not quick(lambda: lm.generate("a", 3, length=10))  # two batches
    assert not quick(lambda: lm.generate("a", length=11))
    assert not quick(lambda: lm.generate("a", length=5, seed=1))
    assert quick(lambda: next(lm.stream("a", length=10)))
    assert not quick(lambda: next(lm.stream("a", length=11)))
    assert not quick(lambda: next(lm.stream("a", length=10, seed=1)))
    lm.change(length=10)
    assert quick(lambda: lm.prepare(at_once=True))
    lm.change(seed=1)
    assert not quick(lambda: lm.prepare(at_once=True))
    monkeypatch.setenv("GPT2_ENGINE", "xla")
    assert not quick(lambda: lm.generate("a", length=5))


def test_batches_are_as_small_as_the_expected_samples_unless_a_seed_was_given():
    for options, size in [({}, 3), ({"batch_size": 8}, 8)]:
        lm = LanguageModel(model_name="1M", **options)
        lm.expect(3)
        assert lm.batch_size == size
    lm = LanguageModel(model_name="1M", seed=5)
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
            decoder.Decoder(hparams, lambda x, u, *text: sample.sample_token(x, u), 1)
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
