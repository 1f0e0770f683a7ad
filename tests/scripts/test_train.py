"""Training runs: whatever interrupts them, they end with the same model in the released format."""

import csv
import dataclasses
import functools
import inspect
import json
import os
import re
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
from gpt2.model_folder import SMALL_FILES, ModelFolder
from gpt2.training.options import TrainingOptions
from user_error import UserError

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
# Runs train.py, and kills its own process before the step that the first argument names, once the
# steps before it are in the log named by the second. The chief writes it, a little later.
WORKER = """
import os, signal, sys, time
from pathlib import Path
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
import train
from gpt2.training import workers
from gpt2.training.trainer import Trainer
last, log, real_step = int(sys.argv.pop(1)), Path(sys.argv.pop(1)), Trainer._train_step
def train_step(trainer, tokens, step):
    if step == last:
        while log.read_text().count("\\n") < 1 + step:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return real_step(trainer, tokens, step)
Trainer._train_step, workers.HEARTBEAT_SECONDS = train_step, 1
train.run(train.train)
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


def start(flags, worker, ports, last=-1):
    """Start train.py as a worker, in a process that kills itself before step `last`."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    tf_config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": worker}})
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "TF_CONFIG": tf_config}
    log = Path(flags["checkpoint_dir"], flags["run_name"], "logs", "log.csv")
    command = [sys.executable, "-c", WORKER, str(last), str(log)]
    command += [f"--{name}={value}" for name, value in flags.items()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes)


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


@pytest.mark.end_to_end
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


@pytest.mark.end_to_end
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


@pytest.mark.end_to_end
def test_a_trained_model_samples_and_scores(tf, capsys, undisturbed):
    import evaluate
    import generate_unconditional_samples as unconditional

    flags = {"model_name": "undisturbed/best", "models_dir": str(undisturbed.parent)}
    unconditional.sample_model(**flags, nsamples=1, length=5, seed=0)
    assert "SAMPLE 1" in capsys.readouterr().out
    evaluate.perplexity(FLAGS["dataset"], **flags)
    nats = np.log(float(re.search(r"perplexity per token +([\d.]+)", capsys.readouterr().out)[1]))
    assert nats == pytest.approx(np.nanmin(curves(undisturbed)[:, 3]), abs=0.5)


@pytest.mark.end_to_end
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
    assert shown_by_tensorboard(tf, run) == pytest.approx(dict(curves(run)[:, :2]))


def shown_by_tensorboard(tf, run):
    """The training losses by step, without those that a resumed run replaces."""
    losses = {}
    for path in sorted((run / "logs").glob("events.*")):
        for event in tf.train.summary_iterator(str(path)):
            if event.session_log.status == tf.SessionLog.START:
                losses = {step: loss for step, loss in losses.items() if step < event.step}
            for value in event.summary.value:
                if value.tag == "training_loss":
                    assert event.step not in losses
                    losses[event.step] = value.simple_value
    return losses


@pytest.mark.end_to_end
def test_ctrl_c_saves_the_run_after_the_step(tf, folder, undisturbed, monkeypatch, capsys):
    from gpt2.training.trainer import Trainer

    real = Trainer._train_step

    def train_step(trainer, tokens, step):
        if step == 11:
            signal.raise_signal(signal.SIGINT)
        return real(trainer, tokens, step)

    monkeypatch.setattr(Trainer, "_train_step", train_step)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train.train(**flags_for(folder, "interrupted"))
    assert "saved at step 12; run the same command to resume" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) == handler
    run = folder / "checkpoint" / "interrupted"
    assert weights_of(12) <= names(run)
    assert "model-12.index" in names(run / "state")
    np.testing.assert_allclose(curves(run), curves(undisturbed)[:12], rtol=0, atol=1e-5)


@pytest.mark.end_to_end
def test_two_workers_equal_one_with_twice_the_batch_and_survive_a_death(folder, undisturbed):
    flags = flags_for(folder, "cluster", batch_size=2)
    with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
        ports = [a.getsockname()[1], b.getsockname()[1]]
    launch = functools.partial(start, flags, ports=ports)

    chief, other = launch(worker=0), launch(worker=1, last=30)
    other.communicate(timeout=600)
    errors = chief.communicate(timeout=600)[1]
    assert (chief.returncode, other.returncode) == (1, -9), errors
    assert f"worker 1 at 127.0.0.1:{ports[1]} stopped responding" in errors
    assert "Traceback" not in errors
    run = folder / "checkpoint" / "cluster"
    assert len(curves(run)) == 30

    chief, other = launch(worker=0), launch(worker=1)
    for process in (chief, other):
        errors = process.communicate(timeout=600)[1]
        assert process.returncode == 0, errors
    np.testing.assert_allclose(curves(run), curves(undisturbed), rtol=0, atol=1e-5)
    assert names(run) == names(undisturbed)


@pytest.mark.end_to_end
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


@pytest.mark.end_to_end
def test_a_full_disk_is_reported_and_the_run_can_be_resumed(tf, folder, undisturbed):
    resource = pytest.importorskip("resource")
    run = shutil.copytree(undisturbed, folder / "checkpoint" / "full")
    flags = flags_for(folder, run.name, steps=61)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room, torn in [(50_000, "best/model-61.meta"), (200_000, "state/model-61")]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            with pytest.raises(OSError, match="File too large: ") as caught:
                train.train(**flags)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.filename == str(run / torn)
        assert "\n" not in caught.value.strerror
        assert names(run / "state") == names(undisturbed / "state")
        assert names((run / torn).parent) == names((undisturbed / torn).parent)
    train.train(**flags)
    assert curves(run)[:, 0].tolist() == [*range(1, 62)]


@pytest.mark.end_to_end
def test_best_begins_anew_on_another_text(tf, folder, undisturbed, tmp_path, capsys):
    run = shutil.copytree(undisturbed, folder / "checkpoint" / "other")
    (tmp_path / "text").write_text(read(ROOT / "README.md"), encoding="utf-8")
    train.train(**flags_for(folder, run.name, steps=61, dataset=str(tmp_path / "text")))
    out = capsys.readouterr().out
    assert "resuming from step 60\nthe text or its validation windows are not those of" in out
    last = curves(run)[-1, 3]
    assert last > np.nanmin(curves(undisturbed)[:, 3])
    assert f"best weights (validation loss {last:.4f})" in out
    assert names(run / "best") == VOCABULARY | weights_of(61)


@pytest.mark.end_to_end
@pytest.mark.parametrize("held_out", [0.3, 0.0])
def test_a_run_that_diverges_ends_before_it_replaces_anything(tf, folder, undisturbed, held_out):
    run = shutil.copytree(undisturbed, folder / "checkpoint" / f"nan-{held_out}")
    flags = flags_for(folder, run.name, steps=61, held_out=held_out, sample_every=1)
    with pytest.raises(UserError, match=r"^the loss after step 61 is nan; ") as caught:
        train.train(**flags | {"learning_rate": 1e30, "schedule": "constant"})
    best = ModelFolder(run / "best").weights
    assert f"; still good: {run / 'model-60'}, {best}; use a lower" in str(caught.value)
    for place in (".", "best", "state"):
        assert names(run / place) == names(undisturbed / place)
    assert len(curves(run)) == STEPS


def test_a_second_run_in_the_same_folder_is_refused(folder):
    flags = flags_for(folder, "twice")
    with (
        train.only_run(folder / "checkpoint" / "twice"),
        pytest.raises(UserError, match="another run is writing to"),
    ):
        train.train(**flags)
    assert not (folder / "checkpoint" / "twice").exists()


@pytest.mark.parametrize("name", ["hparams.json", "encoder.json", "vocab.bpe"])
def test_a_run_of_another_shape_or_vocabulary_is_not_resumed(folder, tmp_path, name):
    run = shutil.copytree(folder / "models" / "tiny", tmp_path / "checkpoint" / "run")
    (run / "state").mkdir()
    with (run / name).open("a", encoding="utf-8") as file:
        file.write(" ")
    flags = flags_for(folder, "run", checkpoint_dir=str(run.parent))
    with pytest.raises(UserError, match=rf"^cannot resume .*{name} and .*{name} differ; give"):
        train.train(**flags)


@pytest.mark.end_to_end
def test_a_model_of_another_shape_than_its_weights_is_refused(tf, folder, undisturbed):
    model = shutil.copytree(undisturbed, folder / "models" / "other")
    shape = json.loads(read(model / "hparams.json")) | {"n_ctx": 63}
    (model / "hparams.json").write_text(json.dumps(shape), encoding="utf-8")
    with pytest.raises(UserError, match=r"holds model/wpe as \[64, 12\], not \[63, 12\]"):
        train.train(**flags_for(folder, "new", model_name="other", from_scratch=False))
    assert not (folder / "checkpoint" / "new").exists()


def test_the_end_says_where_the_weights_are_and_how_to_use_them(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    run = Path("checkpoint", "my run")
    script = "src/generate_unconditional_samples.py"
    found = train.summary(run, 1.25)
    for part in [
        "best weights (validation loss 1.2500): 'checkpoint/my run/best'\n",
        f"{script} --models_dir checkpoint --model_name 'my run/best'\n",
        "'checkpoint/my run/logs/loss.svg'",
        "tensorboard --logdir checkpoint\n",
    ]:
        assert part in found
    monkeypatch.chdir(tmp_path)
    found = train.summary(run, float("inf"))
    assert found.startswith("weights: 'checkpoint/my run'\n")
    assert f"{shlex.quote(str(ROOT / script))} --models_dir checkpoint --model_name 'my" in found


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_learning_rate_rises_and_then_falls_or_stays(tf, schedule):
    from gpt2.training.trainer import learning_rate_at

    options = TrainingOptions(1, learning_rate=1.0, warmup_steps=10, steps=100, schedule=schedule)
    rates = [learning_rate_at(step, options) for step in range(101)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert rates[10] == pytest.approx(1)
    assert rates[100] == pytest.approx(0.1 if schedule == "cosine" else 1)
    assert (np.diff(rates[10:]) <= 0).all()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"window": 65}, "window must be from 1 to n_ctx = 64, got 65"),
        ({"schedule": "linear"}, "schedule must be cosine or constant, got linear"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0.0"),
        ({"held_out": 1.0}, "held_out must be at least 0 and below 1, got 1.0"),
        ({"run_name": "a/b"}, "run_name must be the name of a folder, got a/b"),
        ({"model_name": "none"}, "no model in"),
        ({"from_scratch": False}, "checkpoint: No such file or directory; download it with"),
        ({"window": 64, "held_out": 0.01}, "too short: .* are held out, and a window needs 65"),
    ],
)
def test_a_mistake_is_reported_before_anything_is_written(folder, flags, message):
    with pytest.raises(UserError, match=message):
        train.train(**flags_for(folder, "mistake") | flags)
    assert not (folder / "checkpoint" / "mistake").exists()


def test_every_option_is_a_flag_with_the_same_default():
    flags = inspect.signature(train.train).parameters
    options = {field.name: field.default for field in dataclasses.fields(TrainingOptions)}
    del options["window"]  # whose default depends on the model
    assert {name: flags[name].default for name in options} == options
    places = {"dataset", "model_name", "run_name", "models_dir", "checkpoint_dir"}
    assert flags.keys() == options.keys() | places | {"window", "from_scratch", "device"}


def test_a_run_does_not_overwrite_the_model_it_starts_from(folder):
    flags = flags_for(folder, "tiny", checkpoint_dir=str(folder / "models"))
    with pytest.raises(UserError, match="is the model to start from"):
        train.train(**flags)


def test_a_folder_that_other_code_made_is_refused_and_left_as_it_is(folder, tmp_path):
    run = tmp_path / "checkpoint" / "run1"
    run.mkdir(parents=True)
    for name in ["counter", "model-3.index", "model-6.data-00000-of-00001", "events.x"]:
        (run / name).write_text(name, encoding="utf-8")
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    flags = flags_for(folder, "run1", checkpoint_dir=str(tmp_path / "checkpoint"))
    with pytest.raises(UserError) as caught:
        train.train(**flags)
    message = str(caught.value)
    assert f"--models_dir {run.parent} --model_name run1" in message
    copied = "copying hparams.json, encoder.json, vocab.bpe there from "
    assert copied + str(folder / "models" / "tiny") in message
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_only_files_of_a_run_are_deleted_in_its_folder(tf, tmp_path, folder):
    from gpt2.training.run_folder import RunFolder

    foreign = ["model-2019.backup", "model-2019.data.old", "model-7.index.txt", "notes.txt"]
    torn = ["model-9.index", "model-9.data-00000-of-00001", "model-9.meta.new"]
    for name in foreign + torn:
        (tmp_path / name).touch()
    with tf.Graph().as_default():
        weights = [tf.get_variable("x", [1])]
        RunFolder(tmp_path, folder / "models" / "tiny", b"", weights, 2).prepare()
    left = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert left == {*foreign, *SMALL_FILES}
