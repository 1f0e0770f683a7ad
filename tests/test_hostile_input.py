"""Hostile input, a test for each kind: one line that names the fault, and never a traceback.

The table "Faults and what covers them" in docs/how_it_works.md names the mechanism behind each. A
run ends where TensorFlow would be imported: all that a user can get wrong is checked before.
"""

import contextlib
import inspect
import io
import logging
import os
import shutil
import signal
import sys
from unittest import mock

import misbehaving_server as bad
import numpy as np
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from misbehaving_server import MisbehavingServer

import convert
import download_model
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
FUZZ = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


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


@FUZZ
@example(".index")
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_text_as_a_flag(text):
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
    bytes.fromhex("57fb808b247547db") * 9,
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
        assert use(model) == 2, content[:100]
    (model / name).unlink()
    os.mkfifo(model / name)
    assert use(model) == 2
    for target in ("/dev/zero", "nothing", name, "."):
        (model / name).unlink()
        (model / name).symlink_to(target)
        assert use(model) == 2, target


def damaged(whole):
    """These bytes with a change somewhere, or cut short."""
    place, most = st.integers(0, len(whole)), st.just(len(whole))
    return st.builds(
        lambda at, inserted, removed: whole[:at] + inserted + whole[at + removed :],
        place,
        st.binary(max_size=4),
        st.integers(0, 4) | most,
    )


@pytest.mark.parametrize("name", FILES[:-1])
def test_damage_to_a_models_files(model, name):
    @FUZZ
    @given(damaged((MODEL / name).read_bytes()))
    def damage(content):
        put(model / name, content)
        use(model)

    damage()


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
    def use_file(content):
        (place / name).write_bytes(content)
        call(script, **{flag: name})

    for content in [*CONTENTS, b'{"text": "\\ud800"}', b'{"text": 1}', b"word " * 9000]:
        use_file(content)
    FUZZ(given(st.binary(max_size=200))(use_file))()
    (place / name).unlink()
    os.mkfifo(place / name)
    assert call(script, **{flag: name}) == 2


def test_standard_input_of_another_encoding():
    assert call("conditional", prompts="-", stdin="»Où?« — né".encode("utf-16")) is None


def test_damage_to_an_archive_of_token_ids(place):
    np.savez_compressed(place / "whole.npz", np.arange(900) % 1280)

    @FUZZ
    @given(damaged((place / "whole.npz").read_bytes()))
    def damage(content):
        (place / "odd.npz").write_bytes(content)
        call("train", dataset="odd.npz")

    damage()


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


# Replies of a server ------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
REPLIES = [
    b"", b"HTTP/1.1 99999 What\r\n\r\n", b"HTTP/1.1 404 \x1b[2JGone\r\n\r\n", b"SSH-2.0\r\n",
    b"HTTP/1.1 302 Found\r\n\r\n", b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",
    b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-1/" + b"9" * 5000 + b"\r\n\r\nab",
    b"HTTP/1.1 416 Range\r\nContent-Range: bytes */-1\r\n\r\n",
    HEAD + b"Content-Length: -1\r\n\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    HEAD + b"Content-Encoding: gzip\r\n\r\nnot gzip", HEAD + b"ETag: \x1b[2J\r\n\r\n\x1b[2J",
    HEAD + b"X: y\r\n" * 500 + b"\r\n", b"HTTP/1.1 429 Later\r\nRetry-After: \xb2\r\n\r\n",
]  # fmt: skip


def raw(reply):
    """Send these bytes alone, and close the connection."""

    def fault(handler, body):
        handler.close_connection = True
        with contextlib.suppress(OSError):
            handler.wfile.write(reply)

    return fault


@pytest.fixture(scope="module")
def server():
    with MisbehavingServer({"/lab/checkpoint": b'model_checkpoint_path: "m"\n'}) as server:
        yield server


def download(server, folder, fault):
    """The status of download_model.py after a reply that meets every request."""
    server.always["/lab/checkpoint"] = fault
    shutil.rmtree(folder, ignore_errors=True)
    flags = [f"--base_url={server.url}", f"--models_dir={folder}", "--retry_wait=0.001"]
    err, status = io.StringIO(), 0
    with (
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", ["download_model.py", "lab", *flags]),
    ):
        try:
            run(download_model.download_models)
        except SystemExit as error:
            status = error.code
    check("download_model", status, err.getvalue())
    return status


def test_replies_of_a_server(server, tmp_path):
    # As `lab` has one file of seven on this server, no reply makes a whole model.
    for reply in REPLIES:
        assert download(server, tmp_path / "models", raw(reply)) == 1, reply
    for code in (204, 304, 418, 500):
        fault = bad.status(code, {"X": "y"}, b"<html>")
        assert download(server, tmp_path / "models", fault) == 1, code


@FUZZ
@given(st.lists(st.sampled_from(b"\r\n:;=-/ 0129\0\x1b\xff"), max_size=30).map(bytes))
def test_any_head_of_a_reply(server, tmp_path, head):
    assert download(server, tmp_path / "models", raw(head)) == 1
    assert download(server, tmp_path / "models", raw(HEAD + head + b"\r\n\r\nabc")) == 1
