"""Training: the loss falls, runs continue where they stopped, bad input is named."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

import train

VOCABULARY = ["encoder.json", "vocab.bpe"]


@pytest.fixture
def model_folder(tmp_path):
    """A model without weights: the embedded one's vocabulary, and next to no width."""
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    for name in VOCABULARY:
        shutil.copyfile(ROOT / "models" / "1M" / name, folder / name)
    shape = {"n_vocab": 1280, "n_ctx": 16, "n_embd": 12, "n_head": 3, "n_layer": 2}
    (folder / "hparams.json").write_text(json.dumps(shape), encoding="utf-8")
    return folder


def command(tmp_path, *flags):
    return [
        sys.executable,
        str(ROOT / "src" / "train.py"),
        *("--dataset", str(ROOT / "LICENSE"), "--model_name", "tiny", "--from_scratch"),
        *("--models_dir", str(tmp_path / "models")),
        *("--checkpoint_dir", str(tmp_path / "checkpoint")),
        *map(str, flags),
    ]


def call(tmp_path, *flags):
    return subprocess.run(command(tmp_path, *flags), capture_output=True, text=True, timeout=100)


def losses(printed):
    return {int(s): float(x) for s, x in re.findall(r"step (\d+):.* held-out loss (.+)", printed)}


QUICK = ["--steps", 60, "--eval_every", 10, "--learning_rate", 0.01, "--warmup_steps", 5]


@pytest.mark.end_to_end
def test_a_killed_run_continues_as_if_nothing_had_happened(tmp_path, model_folder):
    whole = call(tmp_path, "--run_name", "whole", *QUICK)
    assert whole.returncode == 0, whole.stderr
    expected = losses(whole.stdout)
    assert list(expected) == [10, 20, 30, 40, 50, 60]
    assert expected[60] < expected[10] < np.log(1280)

    flags = command(tmp_path, "--run_name", "killed", *QUICK)
    with subprocess.Popen(
        flags, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as run:
        while "step 20:" not in run.stdout.readline():
            assert run.poll() is None
        run.kill()
    resumed = losses(call(tmp_path, "--run_name", "killed", *QUICK).stdout)
    assert resumed
    assert min(resumed) > 10
    for step, loss in resumed.items():
        assert loss == pytest.approx(expected[step], abs=1e-4)


@pytest.mark.end_to_end
def test_the_result_is_a_model_in_the_released_file_set(tmp_path, model_folder):
    assert call(tmp_path, "--run_name", "new", "--steps", 2).returncode == 0
    folder = tmp_path / "checkpoint" / "new"
    released = {path.name for path in (ROOT / "models" / "1M").iterdir()}
    assert {path.name for path in folder.iterdir()} == {*released, "state"}
    assert (folder / "checkpoint").read_bytes() == (ROOT / "models/1M/checkpoint").read_bytes()
    sampling = [sys.executable, str(ROOT / "src" / "generate_unconditional_samples.py")]
    flags = ["--models_dir", str(folder.parent), "--model_name", "new", "--nsamples", "1"]
    done = subprocess.run([*sampling, *flags], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def test_rate_rises_and_then_falls_to_a_tenth():
    rates = [train.rate_at(step, 100, 1.0, 10) for step in range(101)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert rates[10] == pytest.approx(1)
    assert rates[100] == pytest.approx(0.1)
    assert (np.diff(rates[10:]) < 0).all()


def test_windows_are_neighbouring_tokens_and_depend_on_the_seed_alone():
    tokens = np.arange(100, dtype=np.int32) * 3
    X, Y = train.random_windows(tokens, 7, 50, seed=[1, 2])
    assert X.shape == Y.shape == (50, 7)
    assert (Y == X + 3).all()
    assert (np.diff(X) == 3).all()
    again, _ = train.random_windows(tokens, 7, 50, seed=[1, 2])
    other, _ = train.random_windows(tokens, 7, 50, seed=[1, 3])
    np.testing.assert_array_equal(X, again)
    assert not np.array_equal(X, other)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "is too short"),
        (b"a few words", "is too short: .* more than n_ctx = 16 tokens, one has"),
        (b"\xff" * 1000, "is not UTF-8 text: invalid start byte at 0"),
    ],
)
def test_a_dataset_that_cannot_be_used_is_named(tmp_path, model_folder, content, message):
    dataset = tmp_path / "text"
    if content is not None:
        dataset.write_bytes(content)
    hparams = train.checkpoint.load_hparams(model_folder)
    with pytest.raises(train.UserError, match=message) as caught:
        train.load_tokens(str(dataset), model_folder, hparams, 0.1)
    assert str(dataset) in str(caught.value)


def test_loss_of_random_weights_is_that_of_a_guess(tf, sess, model_folder):
    hparams = train.checkpoint.load_hparams(model_folder)
    graph = train.build(hparams, clip_norm=1)
    sess.run(tf.global_variables_initializer())
    tokens = np.random.default_rng(0).integers(0, hparams.n_vocab, 1000)
    assert train.evaluate(sess, graph, tokens, 16, 8) == pytest.approx(np.log(1280), rel=0.02)
