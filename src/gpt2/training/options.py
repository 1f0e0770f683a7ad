"""What a training run is started with: its options, and the workers that TF_CONFIG lists."""

import dataclasses
import os
from math import inf

from gpt2.user_file import parse_json
from hparams import HParams
from user_error import UserError, require

EXAMPLE = '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """How a model is trained. Each field is a flag of `train.py` with the same default.

    A train step is one update of the weights. It uses batch_size * accumulate windows per worker.
    """

    window: int  # tokens per window, the sequence length; the script's default is n_ctx
    steps: int = 1000  # train steps in total, including those before a resumption
    batch_size: int = 1  # windows computed together
    accumulate: int = 1  # batches per train step (gradient accumulation)
    learning_rate: float = 1e-4  # of Adam; the highest, reached at the end of the warm-up
    schedule: str = "cosine"  # after the warm-up: cosine (down to a tenth) or constant
    warmup_steps: int = 100  # train steps of linear warm-up; 0 means none
    clip_norm: float = 1.0  # largest global norm of the gradients
    recompute: bool = False  # gradient checkpointing: compute activations twice, to save memory
    held_out: float = 0.1  # fraction of the text, at its end, for validation; 0 means none
    eval_every: int = 100  # train steps between two validations
    eval_windows: int = 256  # maximum number of windows per validation
    save_every: int = 100  # train steps between two checkpoints
    keep: int = 1  # recent checkpoints kept, in addition to the best
    sample_every: int = 100  # train steps between two printed samples; 0 means none
    sample_length: int = 100  # tokens per printed sample
    seed: int = 0  # of the initial weights and of the windows

    def check(self, hparams: HParams) -> None:
        """Raise UserError, naming the value and the valid range, if a field is out of range."""
        for name in ("steps", "batch_size", "accumulate", "eval_every", "eval_windows"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("save_every", "keep", "sample_length"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("warmup_steps", "sample_every", "seed"):
            self._require(name, getattr(self, name) >= 0, "0 or above")
        for name in ("learning_rate", "clip_norm"):
            self._require(name, 0 < getattr(self, name) < inf, "above 0")
        self._require("schedule", self.schedule in ("cosine", "constant"), "cosine or constant")
        fits = 1 <= self.window <= hparams.n_ctx
        self._require("window", fits, f"from 1 to n_ctx = {hparams.n_ctx}")
        self._require("held_out", 0 <= self.held_out < 1, "at least 0 and below 1")

    def _require(self, name: str, holds: bool, legal: str) -> None:
        require(name, getattr(self, name), holds, legal)


@dataclasses.dataclass(frozen=True)
class TFConfig:
    """All workers, and which of them this process is."""

    addresses: tuple[str, ...] = ("localhost",)  # HOST:PORT of each; a single one is not used
    index: int = 0  # of this process

    @property
    def size(self) -> int:
        """The number of workers."""
        return len(self.addresses)

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes the files and prints the results."""
        return self.index == 0


def read_tf_config() -> TFConfig:
    """The workers in the environment variable TF_CONFIG, or this process alone without it.

    Raises: UserError if it is malformed.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return TFConfig()
    try:
        config = parse_json(text)
        jobs, task = config["cluster"], config["task"]
        addresses, index = tuple(jobs["worker"]), int(task["index"])
        is_legal = all(":" in address for address in addresses) and 0 <= index < len(addresses)
        if is_legal and list(jobs) == ["worker"] and task["type"] == "worker":
            return TFConfig(addresses, index)
    except (ValueError, OverflowError, KeyError, TypeError):
        pass
    raise UserError(f"TF_CONFIG must look like {EXAMPLE}, got {text}")
