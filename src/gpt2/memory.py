"""How much memory this process may use, and how many samples fit in it."""

import contextlib
import os
from pathlib import Path

import engine
from hparams import HParams

MAX_BATCH = 32  # larger batches are hardly faster
CONTAINER_LIMITS = [  # of Linux's control groups, version 2 and 1; in bytes
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
]


def default_batch_size(hparams: HParams, dtype: str = "float32") -> int:
    """How many samples of n_ctx tokens fit in a quarter of the memory, next to the weights.

    At most MAX_BATCH.
    """
    memory = memory_bytes()
    room = min(memory // 4, memory - weight_bytes(hparams, MAX_BATCH, dtype))
    return max(1, min(MAX_BATCH, room // sample_bytes(hparams, hparams.n_ctx)))


def weight_bytes(hparams: HParams, batch_size: int, dtype: str = "float32") -> int:
    """The memory that the weights need for batches of this size."""
    return hparams.n_params() * engine.bytes_of_a_weight(batch_size, dtype)


def sample_bytes(hparams: HParams, cache_length: int) -> int:
    """The memory that one sample needs while it is generated."""
    # Keys and values of each layer and position, and a few rows of logits for sampling.
    return 4 * (2 * hparams.n_layer * cache_length * hparams.n_embd + 8 * hparams.n_vocab)


def memory_bytes() -> int:
    """The memory of the machine, or of the container that this runs in."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # Windows
        memory = 8 << 30
    for limit in CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" means no limit
            memory = min(memory, int(limit.read_text(encoding="utf-8")))
    return memory
