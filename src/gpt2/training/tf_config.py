"""The workers of a training run, as the environment variable TF_CONFIG lists them."""

import dataclasses
import os

from gpt2.user_file import parse_json
from user_error import UserError

EXAMPLE = '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'


@dataclasses.dataclass(frozen=True)
class TFConfig:
    """All workers, and which of them this process is."""

    addresses: tuple[str, ...] = ("localhost",)  # HOST:PORT of each worker; one may be nameless
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
    """Parse TF_CONFIG; without it, this process is the only worker.

    Raises: UserError if it is malformed.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return TFConfig()
    try:
        config = parse_json(text)
        jobs, task = config["cluster"], config["task"]
        addresses, index = tuple(jobs["worker"]), int(task["index"])
        if isinstance(jobs["worker"], str) or not all(isinstance(a, str) for a in addresses):
            raise TypeError
        if list(jobs) == ["worker"] and task["type"] == "worker" and 0 <= index < len(addresses):
            return TFConfig(addresses, index)
    except (ValueError, OverflowError, KeyError, TypeError):
        pass
    raise UserError(f"TF_CONFIG must look like {EXAMPLE}, got {text}")
