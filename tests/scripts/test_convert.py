"""The conversion script as a user runs it."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

import convert
from gpt2.command_line import run

SCRIPT = ROOT / "src" / "convert.py"


@pytest.fixture
def call(run_here, monkeypatch, tmp_path):
    """Runs the script in this process, in an empty folder; its status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        done = run_here(lambda: run(convert.COMMANDS), SCRIPT, *arguments)
        return done.returncode, done.stdout, done.stderr

    return call


def test_there_and_back(call, tmp_path):
    pytest.importorskip("safetensors", reason="pip install -r requirements-convert.txt")
    assert call("to-hf", "1M", "there") == (0, "", "there is complete\n")
    back = call("from-hf", "there", "--model_name", "2M", "--models_dir", "new")
    assert back == (0, "", "new/2M is complete\n")
    assert len(list((tmp_path / "new" / "2M").iterdir())) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["from-hf", "."], "the following arguments are required: --model_name"),
        (["from-hf", ".", "--model_name", ".."], "--model_name must be the name of a folder"),
        (["from-hf", "nowhere", "--model_name", "x"], "nowhere is not a folder"),
        (["from-hf", ".", "--model_name", "x"], "config.json: No such file or directory"),
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


# Runs convert.py, and sends its own process a SIGTERM while C++ reads a tensor.
KILLED = """
import os, runpy, signal, sys
from numpy.lib import NumpyVersion
real = NumpyVersion.__init__
def kill(*args):  # C++ calls that
    if os.listdir():  # the conversion has begun
        os.kill(os.getpid(), signal.SIGTERM)
    return real(*args)
NumpyVersion.__init__ = kill
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.end_to_end
@pytest.mark.skipif(sys.platform == "win32", reason="a kill cannot be caught there")
def test_a_kill_leaves_nothing(tmp_path):
    pytest.importorskip("safetensors", reason="pip install -r requirements-convert.txt")
    command = [sys.executable, "-c", KILLED, str(SCRIPT), "to-hf", "1M", "there"]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parent)}
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "encoding": "utf-8"}
    done = subprocess.run(command, timeout=600, **options)
    assert (done.stderr, done.returncode) == ("", 143)
    assert list(tmp_path.iterdir()) == []
