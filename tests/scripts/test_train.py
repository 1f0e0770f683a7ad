"""Training runs end with the same model in the released format, even if they are interrupted."""

import contextlib
import csv
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

import train
from gpt2.model_folder import ModelFolder
from gpt2.training.options import TrainingOptions
from user_error import UserError

pytestmark = pytest.mark.end_to_end
STEPS = 60
FLAGS = {
    "dataset": str(ROOT / "LICENSE"),
    "model_name": "tiny",
    "from_scratch": True,
    "steps": STEPS,
    "batch_size": 4,
    "window": 16,
    "learning_rate": 0.003,
    "warmup_steps": 5,
    "held_out": 0.3,
    "eval_every": 10,
    "save_every": 20,
    "keep": 2,
    "sample_every": 0,
}
# Two processes train together, of which the second dies in step 25; then two others resume the run.
# TensorFlow is imported once, before they are forked.
WORKERS = """
import json, os, signal, sys
import engine
engine.set_environment()
import train
from gpt2.training import trainer
addresses, flags = json.loads(sys.argv[1])
train_step = trainer.Trainer._train_step

def die(trainer, tokens, step):
    if step == 24:
        os.kill(os.getpid(), signal.SIGKILL)
    return train_step(trainer, tokens, step)

def work(index):
    task = {"type": "worker", "index": index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
    sys.argv = ["train.py", *flags]
    train.run(train.train)

for step_of_second in (die, train_step):
    processes = []
    for index in (0, 1):
        processes.append(os.fork())
        if not processes[-1]:
            trainer.Trainer._train_step = step_of_second if index else train_step
            try:
                work(index)
            except SystemExit as error:
                os._exit(error.code)
            os._exit(0)  # as a script ends; without it, TensorFlow's server takes seconds to stop
    ended = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    print(ended, flush=True)
"""
VOCABULARY = {"hparams.json", "encoder.json", "vocab.bpe", "checkpoint"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tiny model without weights in its subfolder models."""
    folder = tmp_path_factory.mktemp("train")
    model = folder / "models" / "tiny"
    model.mkdir(parents=True)
    for name in ["encoder.json", "vocab.bpe"]:
        shutil.copyfile(ROOT / "models" / "1M" / name, model / name)
    shape = {"n_vocab": 1280, "n_ctx": 64, "n_embd": 12, "n_head": 3, "n_layer": 1}
    (model / "hparams.json").write_text(json.dumps(shape), encoding="utf-8")
    return folder


def flags_for(folder, run_name, **flags):
    places = {"models_dir": str(folder / "models"), "checkpoint_dir": str(folder / "checkpoint")}
    return {**FLAGS, **places, "run_name": run_name, **flags}


def free_addresses(n):
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(n)]
        return [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]


def curves(folder):
    """Float [steps, 4] of log.csv: step, training loss, learning rate, validation loss or nan."""
    with (folder / "logs" / "log.csv").open(encoding="utf-8") as file:
        rows = [[float(x or "nan") for x in row] for row in list(csv.reader(file))[1:]]
    return np.array(rows)[:, [0, 1, 2, 4]]


def read(path):
    return path.read_text(encoding="utf-8")


def names(folder):
    return {path.name for path in folder.iterdir()}


def weights_of(step):
    return {f"model-{step}.{kind}" for kind in ("index", "meta", "data-00000-of-00001")}


@pytest.fixture(scope="module")
def undisturbed(tf, folder):
    """A run without interruption; only this one prints samples, which must not change the rest."""
    train.train(**flags_for(folder, "undisturbed", sample_every=30, sample_length=8))
    return folder / "checkpoint" / "undisturbed"


def test_the_loss_falls_and_every_step_is_logged_and_drawn(undisturbed):
    step, loss, rate, validation_loss = curves(undisturbed).T
    assert step.tolist() == [*range(1, STEPS + 1)]
    assert loss[-5:].mean() < loss[:5].mean() - 1
    assert rate[[0, 4, STEPS - 1]] == pytest.approx([0.0006, 0.003, 0.0003], rel=0.02)
    assert np.flatnonzero(~np.isnan(validation_loss)).tolist() == [*range(9, STEPS, 10)]
    assert validation_loss[STEPS - 1] < validation_loss[9] < np.log(1280)
    svg = read(undisturbed / "logs" / "loss.svg")
    assert f"training loss {loss[-1]:.3f}" in svg
    assert f"validation loss {validation_loss[-1]:.3f}" in svg
    assert svg.count("<circle") == STEPS // FLAGS["eval_every"]


def test_the_last_checkpoints_and_the_best_are_kept_in_the_released_files(tf, sess, undisturbed):
    import model

    kept = weights_of(40) | weights_of(60)
    assert names(undisturbed) == {*VOCABULARY, *kept, "best", "state", "logs"}
    validation_loss = curves(undisturbed)[:, 3]
    assert names(undisturbed / "best") == VOCABULARY | weights_of(1 + np.nanargmin(validation_loss))
    assert 'model_checkpoint_path: "model-60"' in read(undisturbed / "checkpoint")
    hparams, prefix = ModelFolder(undisturbed).hparams, ModelFolder(undisturbed).weights
    found = tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()
    model.model(hparams, tf.placeholder(tf.int32, [None, None]))
    assert found == {v.op.name: v.shape.as_list() for v in tf.global_variables()}


def test_a_run_killed_while_it_saves_resumes_as_if_nothing_had_happened(
    tf, folder, capsys, monkeypatch, undisturbed
):
    from tensorflow.python.checkpoint import checkpoint_management

    function = "update_checkpoint_state_internal"
    real = getattr(checkpoint_management, function)

    def name(**how):
        if how["model_checkpoint_path"].endswith("killed/model-40"):
            raise SystemExit  # nothing else catches it, as nothing catches a kill
        return real(**how)

    flags = flags_for(folder, "killed")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(checkpoint_management, function, name)
        train.train(**flags)
    run = folder / "checkpoint" / "killed"
    assert len(curves(run)) == 40
    assert names(run) >= weights_of(20) | weights_of(40)
    assert ModelFolder(run).weights == run / "model-20"

    (run / "best" / "model-35.data-00000-of-00001.tempstate8").touch()  # as a kill may leave it
    capsys.readouterr()
    train.train(**flags)
    assert "resuming from step 20\n" in capsys.readouterr().out
    assert read(run / "logs" / "loss.svg").count("<circle") == STEPS // FLAGS["eval_every"]
    np.testing.assert_allclose(curves(run), curves(undisturbed), rtol=0, atol=1e-5)
    assert names(run) == names(undisturbed)
    assert names(run / "best") == names(undisturbed / "best")


def test_ctrl_c_saves_the_run_after_the_step(folder, undisturbed, monkeypatch):
    from gpt2.training.trainer import Trainer

    real, handler = Trainer._train_step, signal.getsignal(signal.SIGINT)

    def train_step(trainer, tokens, step):
        if step == 11:
            signal.raise_signal(signal.SIGINT)
        return real(trainer, tokens, step)

    monkeypatch.setattr(Trainer, "_train_step", train_step)
    with pytest.raises(KeyboardInterrupt):
        train.train(**flags_for(folder, "interrupted"))
    assert signal.getsignal(signal.SIGINT) == handler
    run = folder / "checkpoint" / "interrupted"
    assert weights_of(12) <= names(run)
    assert "model-12.index" in names(run / "state")
    np.testing.assert_allclose(curves(run), curves(undisturbed)[:12], rtol=0, atol=1e-5)


def test_two_workers_equal_one_with_twice_the_batch_even_if_one_dies(folder, undisturbed):
    run = folder / "checkpoint" / "together"
    flags = flags_for(folder, run.name, batch_size=2)
    arguments = json.dumps([free_addresses(2), [f"--{f}={value}" for f, value in flags.items()]])
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "src"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OPENBLAS_NUM_THREADS": "1",  # a process with one thread can be forked safely
    }
    command = [sys.executable, "-c", WORKERS, arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.stdout.endswith("[0, 0]\n"), done.stderr
    assert f"[1, {-signal.SIGKILL}]\n" in done.stdout
    assert "train.py: a worker stopped or does not respond" in done.stderr
    assert "Traceback" not in done.stderr
    np.testing.assert_allclose(curves(run), curves(undisturbed), rtol=0, atol=1e-5)
    assert names(run) == names(undisturbed)


def test_a_model_is_fine_tuned_and_its_best_weights_are_kept(tf, folder, undisturbed):
    run = folder / "checkpoint" / "tuned"
    origin = {"model_name": "undisturbed", "models_dir": str(run.parent), "from_scratch": False}
    # A learning rate so high that the loss rises.
    flags = {"learning_rate": 0.1, "warmup_steps": 0, "schedule": "constant", "eval_every": 1}
    flags = flags_for(folder, "tuned", steps=3) | origin | flags
    train.train(**flags)
    found = curves(run)
    assert found[0, 1] == pytest.approx(curves(undisturbed)[-1, 1], abs=0.5)
    best = 1 + np.argmin(found[:, 3])
    assert best < 3
    assert names(run / "best") == VOCABULARY | weights_of(best)

    data = run / "state" / "model-3.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=r"^cannot resume .*tuned: .*damaged.*; use the flags"):
        train.train(**flags | {"steps": 4})
    assert names(run) >= VOCABULARY | weights_of(3)


def test_a_full_disk_is_one_line_and_the_saved_weights_stay(tf, folder, undisturbed):
    resource = pytest.importorskip("resource")
    run = shutil.copytree(undisturbed, folder / "checkpoint" / "full")
    flags = flags_for(folder, run.name, steps=61)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # enough for the weights alone
    try:
        with pytest.raises(OSError, match="File too large: ") as caught:
            train.train(**flags)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(run / "state" / "model-61")
    assert "\n" not in caught.value.strerror
    assert tf.train.latest_checkpoint(str(run / "state")) == str(run / "state" / "model-60")


def test_best_begins_anew_on_another_text(tf, folder, undisturbed, tmp_path, capsys):
    run = shutil.copytree(undisturbed, folder / "checkpoint" / "other")
    (tmp_path / "text").write_text(read(ROOT / "README.md"), encoding="utf-8")
    train.train(**flags_for(folder, run.name, steps=61, dataset=str(tmp_path / "text")))
    out = capsys.readouterr().out
    assert "resuming from step 60\nthe text has changed" in out
    last = curves(run)[-1, 3]
    assert last > np.nanmin(curves(undisturbed)[:, 3])
    assert f"best weights (validation loss {last:.4f})" in out
    assert names(run / "best") == VOCABULARY | weights_of(61)


@pytest.mark.parametrize("held_out", [0.3, 0.0])
def test_a_run_that_diverges_ends_before_it_replaces_anything(tf, folder, undisturbed, held_out):
    run = shutil.copytree(undisturbed, folder / "checkpoint" / f"nan-{held_out}")
    flags = flags_for(folder, run.name, steps=61, held_out=held_out, sample_every=1)
    with pytest.raises(UserError, match=r"^the loss at step 61 is nan"):
        train.train(**flags | {"learning_rate": 1e30, "schedule": "constant"})
    for place in (".", "best", "state"):
        assert names(run / place) == names(undisturbed / place)
    assert len(curves(run)) == STEPS


def test_a_second_run_in_the_same_folder_is_refused(folder):
    first = train.only_run(folder / "checkpoint" / "twice")
    with first, pytest.raises(UserError, match="another run is writing to"):
        train.train(**flags_for(folder, "twice"))


@pytest.mark.parametrize("name", ["hparams.json", "encoder.json", "vocab.bpe"])
def test_a_run_of_another_shape_or_vocabulary_is_not_resumed(folder, tmp_path, name):
    run = shutil.copytree(folder / "models" / "tiny", tmp_path / "checkpoint" / "run")
    (run / "state").mkdir()
    with (run / name).open("a", encoding="utf-8") as file:
        file.write(" ")
    flags = flags_for(folder, "run", checkpoint_dir=str(run.parent))
    with pytest.raises(UserError, match=rf"^cannot resume .*{name} and .*{name} differ; give"):
        train.train(**flags)


def test_the_summary_of_a_run_has_a_command_that_samples_from_it(tmp_path, monkeypatch):
    run, script = Path("checkpoint", "my run"), "src/generate_unconditional_samples.py"
    monkeypatch.chdir(ROOT)
    found = train.summary(run, 1.25)
    assert found.startswith("best weights (validation loss 1.2500): 'checkpoint/my run/best'\n")
    assert f" {script} --models_dir checkpoint --model_name 'my run/best'\n" in found
    monkeypatch.chdir(tmp_path)
    found = train.summary(run, float("inf"))
    assert found.startswith("weights: 'checkpoint/my run'\n")
    assert f" {shlex.quote(str(ROOT / script))} --models_dir checkpoint --model_name " in found


def test_the_learning_rate_rises_and_then_falls_or_stays(tf):
    from gpt2.training.trainer import learning_rate_at

    for schedule, last in [("cosine", 0.1), ("constant", 1)]:
        options = TrainingOptions(1, 100, learning_rate=1.0, schedule=schedule, warmup_steps=10)
        rates = [learning_rate_at(step, options) for step in range(101)]
        assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
        assert (rates[10], rates[100]) == pytest.approx((1, last))
        assert (np.diff(rates[10:]) <= 0).all()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"window": 65}, "window must be from 1 to n_ctx = 64, got 65"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0.0"),
        ({"run_name": "a/b"}, "run_name must be the name of a folder, got a/b"),
        ({"from_scratch": False}, "checkpoint: No such file or directory; download it with"),
        ({"window": 64, "held_out": 0.01}, "too short: .* held out, but a window needs 65"),
    ],
)
def test_a_mistake_is_reported_before_anything_is_written(folder, flags, message):
    with pytest.raises(UserError, match=message):
        train.train(**flags_for(folder, "mistake") | flags)
    assert not (folder / "checkpoint" / "mistake").exists()


def test_the_folder_of_a_model_or_of_other_code_is_refused_and_left_as_it_is(folder, tmp_path):
    flags = flags_for(folder, "tiny", checkpoint_dir=str(folder / "models"))
    with pytest.raises(UserError, match="is the model to start from"):
        train.train(**flags)
    run = tmp_path / "run1"
    run.mkdir()
    (run / "model-3.index").write_text("theirs", encoding="utf-8")
    with pytest.raises(UserError, match=f"--models_dir {tmp_path} --model_name run1"):
        train.train(**flags_for(folder, "run1", checkpoint_dir=str(tmp_path)))
    assert names(run) == {"model-3.index"}
    assert read(run / "model-3.index") == "theirs"
