"""Hostile input, a test for each kind: one line that names the fault, and never a traceback.

The table "Faults and what covers them" in docs/how_it_works.md names the mechanism behind each. A
run ends where TensorFlow would be imported: all that a user can get wrong is checked before.
"""

import inspect
import io
import logging
import os
import signal
import sys

import numpy as np
import pytest
from conftest import ROOT

import convert
import evaluate
import generate_conditional_samples as conditional
import generate_unconditional_samples as unconditional
import interactive_conditional_samples as interactive
import train
from gpt2 import model_session
from gpt2.command_line import run

# What is accepted leaves its files open, as the run would go on.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
MODEL = ROOT / "models" / "1M"


class AcceptedError(BaseException):
    """The input is valid: TensorFlow would be imported now."""


class HangError(BaseException):
    """Minutes have passed."""


@pytest.fixture(autouse=True)
def no_hang():
    """Whatever waits for ever fails."""

    def fail(*_):
        raise HangError

    signal.signal(signal.SIGALRM, fail)
    signal.alarm(200)
    yield
    signal.alarm(0)


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path):
    """A working directory two folders down, with a text in it."""

    def accept():
        raise AcceptedError

    for module in (model_session, train):
        monkeypatch.setattr(module, "import_tensorflow", accept)
    folder = tmp_path / "some" / "place"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    (folder / "text.txt").write_text("What news, my lord?\n" * 200, encoding="utf-8")
    return folder


BASIC = {"model_name": "1M"}
SCRIPTS = {  # with the flags of a valid run
    "unconditional": (unconditional.sample_model, BASIC | {"nsamples": "1"}),
    "conditional": (conditional.continue_model, BASIC | {"prompts": "text.txt"}),
    "interactive": (interactive.interact_model, BASIC | {"prompt": "So"}),
    "train": (train.train, BASIC | {"dataset": "text.txt", "run_name": "run", "window": "64"}),
    "score": (evaluate.score, BASIC | {"files": "text.txt"}),
    "task": (evaluate.task, BASIC | {"name": "enwik8", "file": "text.txt"}),
    "convert": (convert.convert_from, {"folder": "text.txt", "model_name": "new"}),
}


def call(script, *odd, stdin=b"", **flags):
    """Run a script in this process; its exit status, None if it was accepted."""
    main, needed = SCRIPTS[script]
    values = needed | flags
    parameters = inspect.signature(main).parameters.items()
    files = [values.pop(name) for name, p in parameters if p.kind is p.POSITIONAL_ONLY]
    arguments = [*files, *odd, *(f"--{name}={value}" for name, value in values.items())]
    before = sys.argv, sys.stdin, sys.stdout, sys.stderr
    sys.argv = [f"{script}.py", *arguments]
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    sys.stdin, sys.stdout, sys.stderr = io.TextIOWrapper(io.BytesIO(stdin)), out, err
    status = 0
    try:
        run(main)
    except AcceptedError:
        status = None
    except SystemExit as error:
        status = error.code
    finally:
        sys.argv, sys.stdin, sys.stdout, sys.stderr = before
        logging.getLogger("gpt2").handlers.clear()
        err.flush()
    check(script, status, err.buffer.getvalue().decode())
    return status


def check(script, status, printed):
    """A failure has status 1 or 2 and one line, and nothing in it controls a terminal."""
    lines = [line for line in printed.splitlines() if line.startswith(f"{script}.py: ")]
    assert status in (None, 0, 1, 2)
    assert len(lines) == (1 if status else 0), printed
    assert "Traceback" not in printed
    assert all(line.isprintable() for line in printed.split("\n")), printed


# Flags -------------------------------------------------------------------------------------------

NUMBERS = ["", "-inf", "-1", "1e400", "9" * 5000, "²", "1,5", "[1]", "\x1b[2J"]
NAMES = [
    "", "..", "//", "~nobody-here/x", "[", "a\nb", "\u202eexe.txt", "\udcff", "n" * 5000, "-", "${",
    "/dev/zero", "/proc/self/mem", "text.txt/x", "gpu:" + "9" * 20, "²/³",
]  # fmt: skip
WRITES_THERE = {"checkpoint_dir": ["//"]}  # not in a test


def flags():
    """A case for each flag with the values to try; of those that scripts share, the first."""
    seen = set()
    for script, (main, _) in SCRIPTS.items():
        parameters = inspect.signature(main).parameters
        room = "sampling" if "length" in parameters else main.__module__
        for name, parameter in parameters.items():
            if (room, name) not in seen:
                numeric = parameter.annotation not in (str, str | None)
                left_out = WRITES_THERE.get(name, [])
                values = [v for v in (NUMBERS if numeric else NAMES) if v not in left_out]
                yield pytest.param(script, name, values, id=f"{script}-{name}")
            seen.add((room, name))


@pytest.mark.parametrize(("script", "name", "values"), [*flags()])
def test_values_of_flags(script, name, values):
    for value in values:
        call(script, **{name: value})


@pytest.mark.parametrize("text", ["", "-", "-x", "--", "=", "\x1b[2J", "a b\n", ".index", "\udcff"])
def test_odd_arguments(text):
    for script in ("unconditional", "score"):
        call(script, text)
        call(script, f"--{text}=1")
        call(script, model_name=text)


# Files of a model --------------------------------------------------------------------------------

CONTENTS = [
    b"", b"\0" * 100, b"\xff\xfe{\0}\0", b"[]", b"[" * 100_000, b"\x1b[2J" * 9,
    b'{"n_vocab": NaN, "n_ctx": 1, "n_embd": 1, "n_head": 1, "n_layer": 1}',
    b'{"n_vocab": 1280, "n_ctx": ' + b"9" * 4000 + b', "n_embd": 1, "n_head": 1, "n_layer": 1}',
    b'{"<|endoftext|>": 16777215}', b'{"\\ud800": 0, "<|endoftext|>": 1}',
    b"#version: 0.2\n \n", b"#version: 0.2\na b\na b\n",
    b'model_checkpoint_path: "\\000"', b'model_checkpoint_path: "' + b"m" * 5000 + b'"',
]  # fmt: skip
FILES = [
    "hparams.json", "encoder.json", "vocab.bpe", "checkpoint", "model.ckpt.index",
    "model.ckpt.data-00000-of-00001",
]  # fmt: skip


@pytest.fixture
def model(place):
    """A folder `models/mine` that is the embedded model, in links: to write breaks a link."""
    folder = place / "models" / "mine"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).symlink_to(MODEL / name)
    return folder


def use(folder):
    return call("unconditional", models_dir=str(folder.parent), model_name=folder.name)


def put(path, content):
    """Put bytes where a file or link was."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_contents_of_a_models_files(model, name):
    assert use(model) is None
    for content in CONTENTS:
        put(model / name, content)
        # TensorFlow reads the index.
        assert use(model) == (None if name == "model.ckpt.index" else 2), content[:100]
    (model / name).unlink()
    os.mkfifo(model / name)
    assert use(model) == 2
    for target in ("/dev/zero", "nothing", name, "."):
        (model / name).unlink()
        (model / name).symlink_to(target)
        assert use(model) == 2, target


# Texts, data sets and what scripts kept -----------------------------------------------------------

READERS = [
    ("conditional", "prompts", "odd.txt"),
    ("conditional", "prompts", "odd.jsonl"),
    ("interactive", "prompt_file", "odd.txt"),
    ("score", "files", "odd.txt"),
    ("train", "dataset", "odd.txt"),
    ("train", "dataset", "odd.npz"),
]


@pytest.mark.parametrize(("script", "flag", "name"), READERS)
def test_contents_of_files_that_flags_name(place, script, flag, name):
    for content in [*CONTENTS, b'{"text": "\\ud800"}', b'{"text": 1}', b"word " * 9000]:
        (place / name).write_bytes(content)
        call(script, **{flag: name})
    (place / name).unlink()
    os.mkfifo(place / name)
    assert call(script, **{flag: name}) == 2


def test_standard_input_of_another_encoding():
    assert call("conditional", prompts="-", stdin="»Où?« — né".encode("utf-16")) == 2


def test_damage_to_an_archive_of_token_ids(place):
    path = place / "odd.npz"
    np.savez_compressed(path, np.arange(900) % 1280)
    whole = path.read_bytes()
    for at in range(0, len(whole), 97):
        for content in (whole[:at], whole[:at] + b"\xff" + whole[at + 1 :]):
            path.write_bytes(content)
            call("train", dataset="odd.npz")


@pytest.mark.parametrize("name", ["odd.txt.progress", "odd.state"])
def test_contents_of_what_a_run_kept(place, name):
    for content in [*CONTENTS, b'{"samples": 1}', b'{"done": {}, "run": []}']:
        (place / name).write_bytes(content)
        if name == "odd.state":
            assert call("task", state="odd.state") in (1, 2)
        else:
            (place / "odd.txt").write_bytes(b"mine")
            assert call("unconditional", output="odd.txt") in (1, 2)
            assert (place / "odd.txt").read_bytes() == b"mine"
        assert (place / name).read_bytes() == content


TF_CONFIGS = [
    "{", "[]", "[" * 100_000, "\x1b[2J", "\udcff", '{"cluster": 1, "task": 1}',
    '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
    '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1e400}}',
    '{"cluster": {"worker": [5]}, "task": {"type": "worker", "index": 0}}',
    '{"cluster": {"worker": ["a"], "ps": ["b"]}, "task": {"type": "worker", "index": 0}}',
]  # fmt: skip


def test_values_of_tf_config(monkeypatch):
    for value in TF_CONFIGS:
        monkeypatch.setenv("TF_CONFIG", value)
        assert call("train") == 2, value
