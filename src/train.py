#!/usr/bin/env python3
"""Fine-tune a model on text, or train one from random weights."""

import contextlib
import dataclasses
import math
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from gpt2.command_line import run
from gpt2.file_lock import write_lock
from gpt2.model_folder import SMALL_FILES, ModelFolder, find_model
from gpt2.tensorflow_session import check_device, choose_device, import_tensorflow
from gpt2.terminal import status_line
from gpt2.training.options import TFConfig, TrainingOptions, read_tf_config
from user_error import ClusterError, UserError, require


def train(
    dataset: str,
    model_name: str,
    run_name: str,
    models_dir: str = "models",
    checkpoint_dir: str = "checkpoint",
    from_scratch: bool = False,
    steps: int = TrainingOptions.steps,
    batch_size: int = TrainingOptions.batch_size,
    accumulate: int = TrainingOptions.accumulate,
    window: int | None = None,
    learning_rate: float = TrainingOptions.learning_rate,
    schedule: str = TrainingOptions.schedule,
    warmup_steps: int = TrainingOptions.warmup_steps,
    clip_norm: float = TrainingOptions.clip_norm,
    recompute: bool = TrainingOptions.recompute,
    held_out: float = TrainingOptions.held_out,
    eval_every: int = TrainingOptions.eval_every,
    eval_windows: int = TrainingOptions.eval_windows,
    save_every: int = TrainingOptions.save_every,
    keep: int = TrainingOptions.keep,
    sample_every: int = TrainingOptions.sample_every,
    sample_length: int = TrainingOptions.sample_length,
    seed: int = TrainingOptions.seed,
    device: str = "auto",
) -> None:
    """Fine-tune a model on text, or train one from random weights.

    The same command resumes a run that was interrupted. The result is a model in the released
    format: use it with --models_dir CHECKPOINT_DIR --model_name RUN_NAME, or RUN_NAME/best for the
    weights with the lowest validation loss. Several machines train together if TF_CONFIG lists
    them.

    Args:
      dataset: a text file, a folder, a pattern in quotes, or an .npz of token ids; <|endoftext|>
        separates documents within a file. In .jsonl, each line has a text.
      model_name: model to start from; it also gives the shape and the vocabulary.
      run_name: the result is saved in CHECKPOINT_DIR/RUN_NAME.
      models_dir: folder that holds the model.
      checkpoint_dir: folder that holds the runs, and encoded text in its subfolder cache.
      from_scratch: start from random weights instead of the model's.
      steps: train steps, that is updates of the weights.
      batch_size: windows per batch.
      accumulate: batches per train step; their gradients are averaged (gradient accumulation).
      window: tokens per window, the sequence length; n_ctx of the model unless given.
      learning_rate: the highest learning rate, reached after the warm-up.
      schedule: of the learning rate after the warm-up; cosine (down to a tenth) or constant.
      warmup_steps: train steps over which the learning rate rises to its highest value.
      clip_norm: gradients with a larger global norm are scaled down to it.
      recompute: save memory by computing activations twice (gradient checkpointing).
      held_out: fraction of the text, at its end, that is held out for validation.
      eval_every: train steps between two validations.
      eval_windows: maximum number of held-out windows used by a validation.
      save_every: train steps between two checkpoints.
      keep: how many recent checkpoints to keep, in addition to the best.
      sample_every: train steps between two printed samples; 0 prints none.
      sample_length: tokens per printed sample.
      seed: seed of the random weights and of the choice of windows.
    """
    flags = locals()  # all parameters, so this must be the first line
    tf_config = read_tf_config()
    model = find_model(model_name, models_dir)
    flags["window"] = model.hparams.n_ctx if window is None else window
    fields = dataclasses.fields(TrainingOptions)
    options = TrainingOptions(**{field.name: flags[field.name] for field in fields})
    options.check(model.hparams)
    check_device(device)
    weights = None if from_scratch else model.weights
    run_folder = check_run_folder(run_name, Path(checkpoint_dir), model)
    with status_line(f"loading {model.name} ..."):
        from gpt2.training.dataset import hold_out, load_tokens  # imports NumPy

        _ = model.encoder  # read it before the progress bar of the encoding appears
    tokens = load_tokens(dataset, model, Path(checkpoint_dir) / "cache")
    texts = hold_out(tokens, held_out, options.window)
    with only_run(run_folder) if tf_config.is_chief else contextlib.nullcontext():
        run_training(options, weights, texts, model, run_folder, tf_config, device)


def run_training(
    options: TrainingOptions,
    weights: Path | None,
    texts: tuple[Any, Any],
    model: ModelFolder,
    run_folder: Path,
    tf_config: TFConfig,
    device: str,
) -> None:
    """Import TensorFlow, train, and print where the result is.

    Args: as in Trainer; texts are the tokens to train on and those for validation.
    Raises: UserError with a remedy, also if memory runs out.
    """
    if tf_config.size > 1:  # or TensorFlow logs each attempt to reach a worker before it starts
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with status_line(f"loading {model.name} ..."):
        tf = import_tensorflow()
    from tqdm import tqdm

    from gpt2.training.trainer import Trainer
    from gpt2.training.workers import Workers

    config, processor = choose_device(device, tf)
    workers = Workers(tf_config)
    if workers.is_chief:
        training, validation = map(len, texts)
        print(f"training on {training} tokens, validating on {validation}, using {processor}")
    try:
        with tf.Graph().as_default():
            trainer = Trainer(options, workers, model, run_folder, config, tqdm.write)
            best = trainer.train(weights, *texts)
    except tf.errors.ResourceExhaustedError:
        raise UserError(
            "out of memory; try a smaller --batch_size with a higher --accumulate, or --recompute"
        ) from None
    except tf.errors.OpError as error:
        if workers.size == 1:
            raise
        raise ClusterError(
            f"a worker stopped or does not respond ({type(error).__name__}); look at the output of "
            "each, then start all with the same flags to resume from the last checkpoint"
        ) from None
    if workers.is_chief:
        print(summary(run_folder, best))


def summary(run_folder: Path, best: float) -> str:
    """Where the weights and the curves of a finished run are, and how to sample.

    Args:
      run_folder: folder of the run.
      best: the lowest validation loss; infinity if there was no validation.
    """
    python, runs = Path(sys.executable), _shown(run_folder.parent)
    found = f"best weights (validation loss {best:.4f})" if best < math.inf else "weights"
    name = run_folder.name + ("/best" if best < math.inf else "")
    script = _shown(Path(__file__).with_name("generate_unconditional_samples.py"))
    flags = f"--models_dir {runs} --model_name {shlex.quote(name)}"
    return (
        f"{found}: {_shown(run_folder.parent / name)}\n"
        f"sample from them: {_shown(python)} {script} {flags}\n"
        f"loss curves: {_shown(run_folder / 'logs' / 'loss.svg')}"
    )


def _shown(path: Path) -> str:
    """A path for a command line, relative to the working directory if it is inside it."""
    path = path.absolute()
    return shlex.quote(str(path.relative_to(Path.cwd()) if Path.cwd() in path.parents else path))


def check_run_folder(run_name: str, checkpoint_dir: Path, model: ModelFolder) -> Path:
    """The folder of the run.

    Raises: UserError if it is the folder of the model, if it has a run of another shape or
      vocabulary, or if it has other files: they may be checkpoints of another program.
    """
    require("run_name", run_name, run_name == Path(run_name).name != "", "the name of a folder")
    folder = checkpoint_dir / run_name
    if folder.resolve() == model.path.resolve():
        raise UserError(f"--run_name: {folder} is the model to start from; choose another name")
    if any(folder.glob("*")) and not (folder / "state").is_dir():
        raise UserError(
            f"{folder} was not made by train.py, so nothing in it is touched; choose another "
            f"--run_name. To train from its weights, add --models_dir {folder.parent} "
            f"--model_name {folder.name}"
        )
    for name in SMALL_FILES:
        saved, given = folder / name, model.path / name
        if saved.exists() and saved.read_bytes() != given.read_bytes():
            raise UserError(
                f"cannot resume {folder}: {saved} and {given} differ; give the model that it was "
                "started with, or another --run_name"
            )
    return folder


def only_run(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Keep other runs out of the run folder. Raises: UserError if another run is in it."""
    state = folder / "state"
    state.mkdir(parents=True, exist_ok=True)
    return write_lock(state)


if __name__ == "__main__":
    run(train)
