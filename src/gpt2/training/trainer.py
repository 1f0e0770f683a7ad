"""A training run: train steps, validation, checkpoints and samples, each when it is due."""

import contextlib
import logging
import math
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from tqdm import trange

import sample
from gpt2 import checkpoint
from gpt2.model_folder import ModelFolder
from gpt2.sampling.sample_file import banner
from gpt2.training import train_graph
from gpt2.training.dataset import neighbouring_windows, random_windows
from gpt2.training.options import TrainingOptions
from gpt2.training.run_folder import RunFolder
from gpt2.training.training_log import Row, read_log, write_log
from gpt2.training.workers import Workers
from user_error import UserError

log = logging.getLogger("gpt2")


class Trainer:
    """A training run in the default graph.

    Args:
      options: how to train.
      workers: the processes that train together.
      model: gives the shape and the vocabulary.
      run_folder: where checkpoints and logs go.
      config: tf.ConfigProto.
      report: called with each line about the progress, and with each sample.
    """

    def __init__(
        self,
        options: TrainingOptions,
        workers: Workers,
        model: ModelFolder,
        run_folder: Path,
        config: Any,
        report: Callable[[str], object],
    ):
        self.options, self.workers, self.hparams = options, workers, model.hparams
        self.report = report
        tf.set_random_seed(options.seed)
        with workers.device():
            self.graph = train_graph.build(self.hparams, options, workers)
            if workers.is_chief:
                if options.sample_every:
                    self.sample = self._sampler(model)
                self.folder = RunFolder(run_folder, model, self.graph.weights, options.keep)
            initial = tf.group(tf.global_variables_initializer(), tf.local_variables_initializer())
        self.session = workers.session(config)
        self.session.run(initial)

    def train(self, weights: Path | None, training: np.ndarray, validation: np.ndarray) -> float:
        """Train to the last step.

        Args:
          weights: checkpoint to start from, unless the run is resumed; None for random weights.
          training, validation: token ids, [tokens]; validation may be empty.
        Returns: the lowest validation loss, in nats per token; infinity if there was none.
        Raises: UserError if a loss is not finite, if the run cannot be resumed, or if the workers
          differ. KeyboardInterrupt after Ctrl-C, once the run is saved.
        """
        if self.workers.is_chief:
            if not self.folder.resume(self.session) and weights:
                checkpoint.restore(self.session, weights, self.graph.weights)
            self.folder.prepare()
        if self.workers.size > 1:
            log.info("worker %d waits until all are ready", self.workers.index)
            self.session.run(self.graph.broadcast)
        self._check_same_data(training)
        n_windows, window = self.options.eval_windows, self.options.window
        windows = neighbouring_windows(validation, window, n_windows)
        first = int(self.session.run(self.graph.step))
        if self.workers.is_chief and first >= self.options.steps:
            self.report(f"already trained for {first} steps; raise --steps to continue")
        elif self.workers.is_chief:
            self._resume_best(first, zlib.crc32(windows.data, zlib.crc32(training.data)))
        self._loop(first, training, windows)
        self._sum_over_workers(0)  # no worker may exit before all have reached this line
        best = float(self.session.run(self.graph.best))
        self.session.close()
        return best

    def _resume_best(self, first: int, checksum: int) -> None:
        """Report that the run resumes after step `first`, and reset `best` if the text changed.

        Args: checksum, of the tokens to train on and of the validation windows.
        """
        if first:
            self.report(f"resuming from step {first}")
            if checksum != self.session.run(self.graph.text):
                self.report("the text has changed: the best weights are chosen anew")
                self.graph.best.load(math.inf, self.session)
        self.graph.text.load(checksum, self.session)

    def _loop(self, first: int, training: np.ndarray, windows: np.ndarray) -> None:
        """Run all train steps after step `first`, and validate on `windows`."""
        steps = self.options.steps
        rows = read_log(self.folder.logs, first) if self.workers.is_chief else []
        with interrupts() as interrupted:
            bar = trange(first, steps, initial=first, total=steps, unit="step", disable=None)
            for step in bar:
                row: Row = {"step": step + 1} | self._train_step(training, step)
                rows.append(row)
                stop = interrupted.is_set()
                due = self._due(step + 1) | ({"save"} if stop else set())
                self._check_loss(step + 1, row["training_loss"])
                if "eval" in due and len(windows):
                    row["validation_loss"] = self._validate(windows)
                    self._check_loss(step + 1, row["validation_loss"])
                elif due:
                    loss = self._mean_loss(self._windows(training, step)[: self.options.batch_size])
                    self._check_loss(step + 1, loss)
                bar.set_postfix(loss=f"{row['training_loss']:.3f}")
                if due and self.workers.is_chief:
                    self._record(rows, due)
                if stop:
                    self.report(f"stopped after step {step + 1}; run the same command to resume")
                    raise KeyboardInterrupt

    def _due(self, step: int) -> set[str]:
        """What it is time for after a train step: a subset of eval, save and sample."""
        names = ("eval", "save", "sample")
        every = {name: getattr(self.options, f"{name}_every") for name in names}
        last = step == self.options.steps
        return {name for name, n in every.items() if n > 0 and (step % n == 0 or last)}

    def _check_loss(self, step: int, loss: float) -> None:
        """Raise UserError if a loss at a train step is not finite.

        Weights are saved only after this check: if a weight is not finite, neither is the loss.
        """
        if not math.isfinite(loss):
            raise UserError(
                f"the loss at step {step} is {loss}, so training ends without saving; use a lower "
                "--learning_rate, and check the weights that it started from"
            )

    def _sampler(self, model: ModelFolder) -> Callable[[], str]:
        """A function that samples a text from the current weights."""
        encoder = model.encoder
        tokens = sample.sample_sequence(
            hparams=self.hparams,
            length=min(self.options.sample_length, self.hparams.n_ctx),
            start_token=model.end_of_text,
            batch_size=1,
            top_k=min(40, self.hparams.n_vocab),
        )

        def make() -> str:
            ids = self.session.run(tokens)[0, 1:].tolist()
            return encoder.decode(i for i in ids if i in encoder.decoder)  # padding has no token

        return make

    def _sum_over_workers(self, number: float) -> float:
        return float(self.session.run(self.graph.total, {self.graph.number: number}))

    def _check_same_data(self, training: np.ndarray) -> None:
        """Raise UserError unless all workers have the same options and text."""
        number = zlib.crc32(training.data, zlib.crc32(repr((self.options, self.hparams)).encode()))
        if self._sum_over_workers(number) != self.workers.size * number:
            raise UserError("the workers have different flags or different texts")

    def _train_step(self, tokens: np.ndarray, step: int) -> dict[str, float]:
        """Update the weights once.

        Returns: the loss, the learning rate and the speed, named as in LOG_COLUMNS.
        """
        graph, options = self.graph, self.options
        learning_rate = learning_rate_at(step, options)
        windows = self._windows(tokens, step)
        *others, last = np.split(windows, options.accumulate)
        began = time.perf_counter()
        for batch in others:
            self.session.run(graph.add, {graph.ids: batch})
        feed = {graph.ids: last, graph.learning_rate: learning_rate}
        loss = float(self.session.run(graph.update, feed))
        n_tokens = self.workers.size * len(windows) * options.window
        speed = n_tokens / (time.perf_counter() - began)
        return {"training_loss": loss, "learning_rate": learning_rate, "tokens_per_second": speed}

    def _windows(self, tokens: np.ndarray, step: int) -> np.ndarray:
        """This worker's windows of a train step: int32 [batch_size * accumulate, window + 1]."""
        options, size = self.options, self.workers.size
        n = options.batch_size * options.accumulate * size
        # Every worker draws all windows and takes its share, so the windows of a step do not depend
        # on the number of workers.
        windows = random_windows(tokens, options.window, n, seed=[options.seed, step])
        return windows[self.workers.index :: size]

    def _mean_loss(self, windows: np.ndarray) -> float:
        """The loss of the current weights on some windows, in nats per token."""
        return float(self.session.run(self.graph.loss, {self.graph.ids: windows}))

    def _validate(self, windows: np.ndarray) -> float:
        """The mean loss over windows, in nats per token; each worker computes a share."""
        mine = windows[self.workers.index :: self.workers.size]
        batch_size = self.options.batch_size
        total = 0.0
        for i in range(0, len(mine), batch_size):
            batch = mine[i : i + batch_size]
            total += self._mean_loss(batch) * len(batch)
        return self._sum_over_workers(total) / len(windows)

    def _record(self, rows: list[Row], due: set[str]) -> None:
        """Log the train steps so far, and print, save and sample as it is due."""
        row, step = rows[-1], int(rows[-1]["step"])
        write_log(self.folder.logs, rows)
        if "eval" in due:
            losses = [f"{k.replace('_', ' ')} {x:.4f}" for k, x in row.items() if "loss" in k]
            self.report(f"step {step}: {', '.join(losses)}")
        validation_loss = row.get("validation_loss", math.inf)
        if validation_loss < self.session.run(self.graph.best):
            self.graph.best.load(validation_loss, self.session)
            self.folder.save_best(self.session, step)
        if "save" in due:
            self.folder.save(self.session, step)
        if "sample" in due:
            self.report(f"{banner(step)}\n{self.sample()}")


def learning_rate_at(step: int, options: TrainingOptions) -> float:
    """The learning rate of a train step, counted from 0.

    Linear warm-up, then constant, or half a cosine down to a tenth.
    """
    highest, warmup_steps = options.learning_rate, options.warmup_steps
    if step < warmup_steps:
        return highest * (step + 1) / warmup_steps
    if options.schedule == "constant":
        return highest
    progress = (step - warmup_steps) / max(1, options.steps - warmup_steps)
    return highest * (0.55 + 0.45 * math.cos(math.pi * progress))


@contextlib.contextmanager
def interrupts() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets, so that the step can be finished and saved.

    A second Ctrl-C interrupts at once.
    """
    interrupted = threading.Event()

    def handle(*_: Any) -> None:
        interrupted.set()
        log.info("\nfinishing this step, then saving and stopping")
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
