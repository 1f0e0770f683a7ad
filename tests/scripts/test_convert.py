"""The conversion script as a user runs it."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

import convert
from gpt2.command_line import run

SCRIPT = ROOT / "src" / "convert.py"


def call(monkeypatch, *arguments):
    """Run the script in this process; its exit status."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    try:
        run(convert.COMMANDS)
    except SystemExit as end:
        return end.code
    return 0


def test_there_and_back(monkeypatch, tmp_path, capsys):
    pytest.importorskip("safetensors", reason="pip install -r requirements-convert.txt")
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "to-hf", "1M", "there") == 0
    assert call(monkeypatch, "from-hf", "there", "--model_name", "2M", "--models_dir", "new") == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "there is complete\nnew/2M is complete\n")
    assert len(list((tmp_path / "new" / "2M").iterdir())) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "choose a command: from-hf, to-hf"),
        (["from-hf"], "FOLDER is needed"),
        (["from-hf", "."], "--model_name is needed"),
        (["from-hf", ".", "--model_name", ".."], "--model_name must be the name of a folder"),
        (["from-hf", "nowhere", "--model_name", "x"], "nowhere is not a folder"),
        (["from-hf", ".", "--model_name", "x"], "config.json: No such file or directory"),
        (["to-hf"], "MODEL is needed"),
        (["to-hf", "1M"], "FOLDER is needed"),
        (["to-hf", "1M", "."], ". exists already; delete it, or choose another name"),
        (["to-hf", "9M", "x"], "no model in models/9M"),
    ],
)
def test_mistakes_are_one_line(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("convert.py: ")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# Runs convert.py, and sends its own process a SIGTERM at the moment named by the first argument.
KILLED = """
import os, runpy, signal, sys
import numpy.lib, safetensors.numpy
moments = {
    "a tensor is read": (numpy.lib.NumpyVersion, "__init__"),  # C++ calls that
    "a file is written": (safetensors.numpy, "save_file"),
}
owner, name = moments[sys.argv[1]]
sys.argv = sys.argv[2:]
real = getattr(owner, name)
def kill(*args, **kwargs):
    if os.listdir():  # the conversion has begun
        os.kill(os.getpid(), signal.SIGTERM)
    return real(*args, **kwargs)
setattr(owner, name, kill)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.end_to_end
@pytest.mark.skipif(sys.platform == "win32", reason="a kill cannot be caught there")
@pytest.mark.parametrize("moment", ["a tensor is read", "a file is written"])
def test_a_kill_leaves_nothing(tmp_path, moment):
    pytest.importorskip("safetensors", reason="pip install -r requirements-convert.txt")
    command = [sys.executable, "-c", KILLED, moment, str(SCRIPT), "to-hf", "1M", "there"]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parent)}
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "encoding": "utf-8"}
    done = subprocess.run(command, timeout=600, **options)
    assert (done.stderr, done.returncode) == ("", 143)
    assert list(tmp_path.iterdir()) == []
