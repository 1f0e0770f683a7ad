#!/usr/bin/env python3
"""Train a model on texts, from its checkpoint or from random weights."""

import contextlib
import math
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm, trange

import checkpoint
from cluster import Cluster
from command_line import import_tensorflow, run
from dataset import load_tokens, neighbouring_windows, random_windows, split
from device import check_device, choose_device
from output import banner
from settings import HParams, UserError, require


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
    optimizer: str = "adam",
    learning_rate: float = 1e-4,
    schedule: str = "cosine",
    warmup_steps: int = 100,
    clip_norm: float = 1.0,
    recompute: bool = False,
    mixed_precision: bool = False,
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
      optimizer: adam, or adafactor, which needs less memory.
      learning_rate: the highest; it rises to it over the warm-up.
      schedule: cosine, which then falls to a tenth, or constant.
      warmup_steps: updates over which the rate rises.
      clip_norm: gradients longer than this, all taken together, are shortened to it.
      recompute: compute each layer twice, to save memory.
      mixed_precision: compute with 16 bits where that does no harm; GPUs only.
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
    settings["window"] = window = window or hparams.n_ctx
    check_settings(settings, hparams)
    check_device(device)
    weights = None if from_scratch else checkpoint.find_weights(folder, hparams)
    run_folder = Path(checkpoint_dir) / run_name
    if run_folder.resolve() == folder.resolve():
        raise UserError(f"--run_name: {run_folder} is the model to start from; choose another name")
    tokens = load_tokens(dataset, folder, hparams, Path(checkpoint_dir) / "cache")
    texts = split(tokens, held_out, window)

    tf = import_tensorflow()
    config, processor = choose_device(device, tf)
    if mixed_precision and not processor.startswith("GPU"):
        raise UserError("--mixed_precision needs a GPU, and this runs on " + processor)
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
    for name, legal in [("optimizer", ("adam", "adafactor")), ("schedule", ("cosine", "constant"))]:
        require(name, settings[name], settings[name] in legal, " or ".join(legal))
    n_ctx, window = hparams.n_ctx, settings["window"]
    require("window", window, 1 <= window <= n_ctx, f"from 1 to n_ctx = {n_ctx}")
    held_out, run_name = settings["held_out"], settings["run_name"]
    require("held_out", held_out, 0 <= held_out < 1, "at least 0 and below 1")
    require("run_name", run_name, run_name == Path(run_name).name != "", "the name of a folder")


def rate_at(step: int, settings: dict[str, Any]) -> float:
    """The learning rate of an update: a linear rise, then constant, or half a cosine down to a
    tenth."""
    highest, warmup_steps = settings["learning_rate"], settings["warmup_steps"]
    if step < warmup_steps:
        return highest * (step + 1) / warmup_steps
    if settings["schedule"] == "constant":
        return highest
    done = (step - warmup_steps) / max(1, settings["steps"] - warmup_steps)
    return highest * (0.55 + 0.45 * math.cos(math.pi * done))


class Run:
    """A training run in the default graph.

    Args:
      settings: the flags of `train`, by name.
      cluster: this process and those beside it.
      model_folder, run_folder: where it starts from, and where its files go.
      config: tf.ConfigProto
    """

    def __init__(
        self,
        settings: dict[str, Any],
        cluster: Cluster,
        hparams: HParams,
        model_folder: Path,
        run_folder: Path,
        config: Any,
    ):
        import tensorflow.compat.v1 as tf

        import training
        from run_folder import RunFolder

        self.settings, self.cluster, self.hparams = settings, cluster, hparams
        tf.set_random_seed(settings["seed"])
        names = ("optimizer", "clip_norm", "accumulate", "recompute", "mixed_precision")
        flags = {name: settings[name] for name in names}
        with cluster.device():
            self.graph = training.build(hparams, cluster=cluster, **flags)
            self.sample = self._sampler(model_folder)
            if cluster.is_chief:
                meta = training.model_graph(hparams)
                weights, keep = self.graph.weights, settings["keep"]
                self.folder = RunFolder(run_folder, model_folder, meta, weights, keep)
            initial = tf.group(tf.global_variables_initializer(), tf.local_variables_initializer())
        self.session = cluster.session(config)
        self.session.run(initial)

    def _sampler(self, model_folder: Path) -> Callable[[], str]:
        """What makes a sample of the model as it is then."""
        import sample

        encoder = checkpoint.load_encoder(model_folder, self.hparams)
        tokens = sample.sample_sequence(
            hparams=self.hparams,
            length=min(self.settings["sample_length"], self.hparams.n_ctx),
            start_token=encoder.encoder["<|endoftext|>"],
            batch_size=1,
            top_k=min(40, self.hparams.n_vocab),
        )
        return lambda: encoder.decode(self.session.run(tokens)[0, 1:])

    def go(self, weights: Path | None, training: np.ndarray, testing: np.ndarray) -> None:
        """Train to the end.

        Args:
          weights: checkpoint to start from, unless there is a state to go on from.
          training, testing: token ids, [tokens].
        """
        if self.cluster.is_chief:
            if not self.folder.resume(self.session) and weights:
                checkpoint.restore(self.session, weights, self.graph.weights)
            self.folder.prepare()
        self.cluster.join(self.session, self.graph.share)
        self._check_agreement(training)
        n_windows, steps = self.settings["eval_windows"], self.settings["steps"]
        held_out = neighbouring_windows(testing, self.settings["window"], n_windows)
        first = int(self.session.run(self.graph.step))
        if first >= steps:
            print(f"{first} updates were made already; a higher --steps goes on")
        log = self.folder.log(first) if self.cluster.is_chief else None
        bar = trange(first, steps, initial=first, total=steps, unit="step", disable=None)
        closing = contextlib.closing(log) if log else contextlib.nullcontext()
        with closing, interrupts() as interrupted:
            for step in bar:
                values = self._update(training, step)
                if len(held_out) and self._is_due("eval_every", step + 1):
                    values["held_out_loss"] = self._evaluate(held_out)
                bar.set_postfix(loss=f"{values['loss']:.3f}")
                if log:
                    self._record(step + 1, values, log, save=interrupted.is_set())
                if interrupted.is_set():
                    raise KeyboardInterrupt
            self.cluster.dissolve()
            self._total(0)  # the others need this worker until they are here, too
        self.session.close()

    def _is_due(self, name: str, step: int) -> bool:
        every = self.settings[name]
        return every > 0 and (step % every == 0 or step == self.settings["steps"])

    def _total(self, number: float) -> float:
        """The sum of all workers' numbers."""
        return float(self.session.run(self.graph.total, {self.graph.number: number}))

    def _check_agreement(self, training: np.ndarray) -> None:
        """Raise UserError unless all workers have the same flags and texts."""
        own = {"dataset", "models_dir", "checkpoint_dir", "device"}
        flags = [(name, value) for name, value in self.settings.items() if name not in own]
        number = zlib.crc32(repr(flags).encode() + training.tobytes())
        if self._total(number) != self.cluster.size * number:
            raise UserError("the workers differ in their flags, or in their texts")

    def _update(self, tokens: np.ndarray, step: int) -> dict[str, float]:
        """Make an update; gives its loss, rate and speed, by the names of Log.COLUMNS."""
        graph, parts, size = self.graph, self.settings["accumulate"], self.cluster.size
        window, seed = self.settings["window"], self.settings["seed"]
        n = self.settings["batch_size"] * parts * size
        rate = rate_at(step, self.settings)
        # All workers draw all windows, and take their own: it is as if one of them took all.
        windows = random_windows(tokens, window, n, seed=[seed, step])[self.cluster.index :: size]
        *others, last = np.split(windows, parts)
        began = time.perf_counter()
        for part in others:
            self.session.run(graph.add, {graph.ids: part})
        loss = float(self.session.run(graph.update, {graph.ids: last, graph.rate: rate}))
        if not math.isfinite(loss):
            raise UserError(
                f"the loss of update {step + 1} is {loss}; begin anew with a lower --learning_rate "
                "and another --run_name"
            )
        speed = n * window / (time.perf_counter() - began)
        return {"loss": loss, "rate": rate, "tokens_per_second": speed}

    def _evaluate(self, windows: np.ndarray) -> float:
        """The mean loss in nats a token over windows, which the workers share out."""
        mine, batch_size = (
            windows[self.cluster.index :: self.cluster.size],
            self.settings["batch_size"],
        )
        total = 0.0
        for i in range(0, len(mine), batch_size):
            ids = mine[i : i + batch_size]
            total += self.session.run(self.graph.loss, {self.graph.ids: ids}) * len(ids)
        return self._total(total) / len(windows)

    def _record(self, step: int, values: dict[str, float], log: Any, save: bool) -> None:
        """Tell of an update, log it, and save what is due, or if `save` says so."""
        log.add(step, **values)
        if self._is_due("eval_every", step):
            numbers = {name: x for name, x in values.items() if name.endswith("loss")}
            tqdm.write(f"step {step}: " + ", ".join(f"{k} {x:.4f}" for k, x in numbers.items()))
        held_out_loss = values.get("held_out_loss", math.inf)
        if held_out_loss < math.inf and held_out_loss < self.session.run(self.graph.best):
            self.graph.best.load(held_out_loss, self.session)
            self.folder.save_best(self.session, step)
        if save or self._is_due("save_every", step):
            log.flush()
            self.folder.save(self.session, step)
        if self._is_due("sample_every", step):
            tqdm.write(f"{banner(step)}\n{self.sample()}")


@contextlib.contextmanager
def interrupts() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that an update is ended and saved; a second one is as ever."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted  # signals are out of reach
        return

    def note(*_: Any) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    run(train)
