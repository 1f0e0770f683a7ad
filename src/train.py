#!/usr/bin/env python3
"""Train a model on texts, from its checkpoint or from random weights."""

import math
from pathlib import Path
from typing import Any

from gpt2 import checkpoint
from gpt2.command_line import import_tensorflow, run
from gpt2.tensorflow_session import check_device, choose_device
from gpt2.training.dataset import load_tokens, split
from gpt2.training.workers import Cluster
from hparams import HParams, UserError, require


def train(
    dataset: str,
    model_name: str,
    run_name: str,
    models_dir: str = "models",
    checkpoint_dir: str = "checkpoint",
    from_scratch: bool = False,
    steps: int = 1000,
    batch_size: int = 1,
    accumulate: int = 1,
    window: int | None = None,
    learning_rate: float = 1e-4,
    schedule: str = "cosine",
    warmup_steps: int = 100,
    clip_norm: float = 1.0,
    recompute: bool = False,
    held_out: float = 0.1,
    eval_every: int = 100,
    eval_windows: int = 256,
    save_every: int = 100,
    keep: int = 1,
    sample_every: int = 100,
    sample_length: int = 100,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Train a model on texts. The same command goes on with a run that was interrupted.

    The result is a model like the released ones: use it with --models_dir CHECKPOINT_DIR
    --model_name RUN_NAME, or RUN_NAME/best for the weights with the lowest held-out loss.
    Several machines train together if TF_CONFIG names them.

    Args:
      dataset: text file, folder of them, pattern in quotes, or .npz of src/encode.py;
        <|endoftext|> in a text ends it.
      model_name: model to start from; gives the shape and the vocabulary too.
      run_name: the result lands in CHECKPOINT_DIR/RUN_NAME.
      models_dir: folder that holds the model.
      checkpoint_dir: folder that holds the runs, and encoded texts in its folder cache.
      from_scratch: start from random weights, not from the model's.
      steps: how many times the weights are updated.
      batch_size: windows computed side by side.
      accumulate: how many times as many windows go into an update, computed one batch after the
        other.
      window: tokens in a window; n_ctx of the model unless given.
      learning_rate: the highest; it rises to it over the warm-up.
      schedule: cosine, which then falls to a tenth, or constant.
      warmup_steps: updates over which the rate rises.
      clip_norm: gradients longer than this, all taken together, are shortened to it.
      recompute: compute each layer twice, to save memory.
      held_out: share of the text, at its end, that is not trained on.
      eval_every: updates between two evaluations on the held-out text.
      eval_windows: how many windows of the held-out text are used, at most.
      save_every: updates between two checkpoints.
      keep: how many of the last checkpoints are kept, beside the best.
      sample_every: updates between two samples that are printed; 0 prints none.
      sample_length: tokens in such a sample.
      seed: fixes the random weights and the choice of windows.
    """
    settings = dict(locals())
    cluster = Cluster()
    folder = checkpoint.find_model(model_name, models_dir)
    hparams = checkpoint.load_hparams(folder)
    settings["window"] = window = hparams.n_ctx if window is None else window
    check_settings(settings, hparams)
    check_device(device)
    weights = None if from_scratch else checkpoint.find_weights(folder, hparams)
    run_folder = Path(checkpoint_dir) / run_name
    if run_folder.resolve() == folder.resolve():
        raise UserError(f"--run_name: {run_folder} is the model to start from; choose another name")
    check_run_folder(run_folder, folder)
    tokens = load_tokens(dataset, folder, hparams, Path(checkpoint_dir) / "cache")
    texts = split(tokens, held_out, window)

    tf = import_tensorflow()
    from gpt2.training.trainer import Run

    config, processor = choose_device(device, tf)
    if cluster.is_chief:
        print(f"{len(texts[0])} tokens to train on, {len(texts[1])} held out; on {processor}")
    try:
        with tf.Graph().as_default():
            Run(settings, cluster, hparams, folder, run_folder, config).go(weights, *texts)
    except tf.errors.ResourceExhaustedError:
        raise UserError(
            "out of memory; try a smaller --batch_size with a higher --accumulate, or --recompute"
        ) from None
    except tf.errors.OpError:
        cluster.blame()
        raise


def check_run_folder(run_folder: Path, model_folder: Path) -> None:
    """Raise UserError if `run_folder` holds files and no run of ours, which has a folder `state`.

    They may be checkpoints that other code trained: nothing may be written or deleted there.
    """
    if not run_folder.exists() or (run_folder / "state").is_dir():
        return
    if run_folder.is_dir() and not any(run_folder.iterdir()):
        return
    start = f"--models_dir {run_folder.parent} --model_name {run_folder.name}"
    missing = [name for name in checkpoint.VOCABULARY if not (run_folder / name).is_file()]
    copy = f", after copying {', '.join(missing)} there from {model_folder}" if missing else ""
    raise UserError(
        f"{run_folder} was not made by train.py, so nothing in it is touched; choose another "
        f"--run_name. To train from its weights, give {start} as well{copy}"
    )


def check_settings(settings: dict[str, Any], hparams: HParams) -> None:
    """Raise UserError, naming what is legal and the value, if a setting is out of range."""
    for name in ("steps", "batch_size", "accumulate", "eval_every", "eval_windows"):
        require(name, settings[name], settings[name] >= 1, "at least 1")
    for name in ("save_every", "keep", "sample_length"):
        require(name, settings[name], settings[name] >= 1, "at least 1")
    for name in ("warmup_steps", "sample_every", "seed"):
        require(name, settings[name], settings[name] >= 0, "0 or above")
    for name in ("learning_rate", "clip_norm"):
        require(name, settings[name], 0 < settings[name] < math.inf, "above 0")
    schedule = settings["schedule"]
    require("schedule", schedule, schedule in ("cosine", "constant"), "cosine or constant")
    n_ctx, window = hparams.n_ctx, settings["window"]
    require("window", window, 1 <= window <= n_ctx, f"from 1 to n_ctx = {n_ctx}")
    held_out, run_name = settings["held_out"], settings["run_name"]
    require("held_out", held_out, 0 <= held_out < 1, "at least 0 and below 1")
    require("run_name", run_name, run_name == Path(run_name).name != "", "the name of a folder")


if __name__ == "__main__":
    run(train)
