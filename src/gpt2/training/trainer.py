"""A training run: updates, evaluations, checkpoints and samples, each when it is due."""

import contextlib
import math
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from tqdm import tqdm, trange

import sample
from encoder import END_OF_TEXT
from gpt2 import checkpoint
from gpt2.sampling.sample_file import banner
from gpt2.training import train_graph
from gpt2.training.dataset import neighbouring_windows, random_windows
from gpt2.training.run_folder import RunFolder
from gpt2.training.workers import Cluster
from hparams import HParams, UserError


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
        self.settings, self.cluster, self.hparams = settings, cluster, hparams
        tf.set_random_seed(settings["seed"])
        names = ("clip_norm", "accumulate", "recompute")
        flags = {name: settings[name] for name in names}
        with cluster.device():
            self.graph = train_graph.build(hparams, cluster=cluster, **flags)
            if cluster.is_chief:
                self.sample = self._sampler(model_folder)
                meta = train_graph.model_graph(hparams)
                weights, keep = self.graph.weights, settings["keep"]
                self.folder = RunFolder(run_folder, model_folder, meta, weights, keep)
            initial = tf.group(tf.global_variables_initializer(), tf.local_variables_initializer())
        self.session = cluster.session(config)
        self.session.run(initial)

    def _sampler(self, model_folder: Path) -> Callable[[], str]:
        """What makes a sample of the model as it is then."""
        encoder = checkpoint.load_encoder(model_folder, self.hparams)
        tokens = sample.sample_sequence(
            hparams=self.hparams,
            length=min(self.settings["sample_length"], self.hparams.n_ctx),
            start_token=encoder.encoder[END_OF_TEXT],
            batch_size=1,
            top_k=min(40, self.hparams.n_vocab),
        )

        def make() -> str:
            ids = self.session.run(tokens)[0, 1:].tolist()
            return encoder.decode(i for i in ids if i in encoder.decoder)  # not rows of padding

        return make

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
        mine = windows[self.cluster.index :: self.cluster.size]
        batch_size = self.settings["batch_size"]
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
        print("\nafter this update the run is saved and ends", file=sys.stderr)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
