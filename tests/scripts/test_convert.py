"""The conversion script as a user runs it."""

import functools
import json
import os
import runpy
import signal
import sys

import pytest
from conftest import ROOT

import convert
from gpt2.command_line import run
from gpt2.conversion import to_hf

SCRIPT = ROOT / "src" / "convert.py"


@pytest.fixture
def call(run_here, monkeypatch, tmp_path):
    """Runs the script in this process, in an empty folder; its status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        done = run_here(lambda: run(convert.COMMANDS), SCRIPT, *arguments)
        return done.returncode, done.stdout, done.stderr

    return call


def test_there_and_back_gives_every_bit(call, tmp_path):
    pytest.importorskip("safetensors", reason="pip install -r requirements-convert.txt")
    assert call("to-hf", "1M", "there") == (0, "", "there is complete\n")
    back = call("from-hf", "there", "--model_name", "2M", "--models_dir", "new")
    assert back == (0, "", "new/2M is complete\n")
    model, again = ROOT / "models" / "1M", tmp_path / "new" / "2M"
    for name in ("model.ckpt.data-00000-of-00001", "model.ckpt.index", "checkpoint", "vocab.bpe"):
        assert (again / name).read_bytes() == (model / name).read_bytes()
    for name in ("encoder.json", "hparams.json"):
        found, expected = (json.loads((folder / name).read_bytes()) for folder in (again, model))
        assert list(found.items()) == list(expected.items())
    assert (again / "model.ckpt.meta").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["from-hf", "."], "the following arguments are required: --model_name"),
        (["from-hf", ".", "--model_name", ".."], "--model_name must be the name of a folder"),
        (["from-hf", "nowhere", "--model_name", "x"], "nowhere/config.json: No such file"),
        (["to-hf"], "the following arguments are required: MODEL, FOLDER"),
        (["to-hf", "1M", "."], ". exists already; delete it, or choose another name"),
        (["to-saved-model", "1M", "."], ". exists already; delete it, or choose another name"),
        (["to-saved-model", "9M", "x"], "no model in models/9M"),
    ],
)
def test_mistakes_are_one_line(call, tmp_path, arguments, message):
    status, out, err = call(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("convert.py: ")
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="a kill cannot be caught there")
def test_a_kill_leaves_nothing(run_here, monkeypatch, tmp_path):
    pytest.importorskip("safetensors", reason="pip install -r requirements-convert.txt")

    def kill(*_):
        assert len(list(tmp_path.iterdir())) == 1
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(to_hf, "write_hugging_face", kill)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        run_script = functools.partial(runpy.run_path, str(SCRIPT), run_name="__main__")
        done = run_here(run_script, SCRIPT, "to-hf", "1M", "there")
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert (done.returncode, done.stderr) == (143, "")
    assert list(tmp_path.iterdir()) == []
