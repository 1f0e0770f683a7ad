"""The rule of what computes, by processor and batch size. Nothing here needs TensorFlow at first.

benchmarks/README.md has the measurements behind the rule, and benchmarks/bench_engines.py makes
such a table. XLA multiplies eight rows on one core, and reads the keys of all samples on one (up to
512 positions): it is the fastest for one sample, and the slowest for many.

A user can choose otherwise: GPT2_ENGINE=xla, tensorflow or packed in the environment for the loop,
and TensorFlow's own TF_ENABLE_ONEDNN_OPTS=1 or =0 for oneDNN.
"""

import functools
import os
import re
from pathlib import Path

from user_error import require

ENGINES = "xla", "tensorflow", "packed"
PACKED_FROM = 2  # batch size, where weights can be packed; elsewhere:
UNCOMPILED_FROM = {"avx512": 16, "avx2": 2, "other": 16}
MIN_ROWS = {"avx512": 3, "avx2": 1, "other": 1}  # of x in onednn.py: fewer take oneDNN longer
CPUINFO = "/proc/cpuinfo"


@functools.cache
def processor():
    """The kind of this processor, as far as it matters here: avx512, avx2 or other."""
    flags = _flags()
    return "avx512" if "avx512f" in flags else "avx2" if "avx2" in flags else "other"


@functools.cache
def has_bfloat16():
    """Whether this processor has instructions for products in bfloat16."""
    return not _flags().isdisjoint(["avx512_bf16", "amx_bf16"])


def _flags():
    """The names of what this processor can do, on Linux and x86; elsewhere none."""
    try:
        return set(re.findall(r"^flags\s*:.*", Path(CPUINFO).read_text("utf-8"), re.M)[0].split())
    except (OSError, IndexError):
        return set()


def chosen():
    """What the user chose in GPT2_ENGINE; "" for nothing. Raises: UserError if it is unknown."""
    name = os.environ.get("GPT2_ENGINE", "")
    require("GPT2_ENGINE", name, name in ("", *ENGINES), f"one of {', '.join(ENGINES)}")
    return name


def set_environment():
    """To be called before TensorFlow is imported: switch on oneDNN where it is faster.

    TensorFlow does so by itself on the newest processors only. Raises: as in `chosen`.
    """
    chosen()
    if processor() != "other":
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # oneDNN's own allocator never returns memory: 2 GB with 64 samples at a time.
    os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")


def choose(batch_size, dtype="float32", constant=False, quick=False):
    """The name of the engine of the loop, one of ENGINES.

    Args:
      batch_size: int; None is any size.
      dtype: float32 or bfloat16, to compute in.
      constant: whether the weights are the same in every run, so that they can be packed.
      quick: whether nothing may be compiled, which takes some seconds.
    Raises: as in `chosen`.
    """
    import tensorflow.compat.v1 as tf

    import onednn

    computes = dtype == "float32" or has_bfloat16()
    can_pack = constant and computes and processor() != "other" and onednn.is_available()
    if chosen():
        return chosen() if can_pack or chosen() != "packed" else "tensorflow"
    on_cpu = not tf.config.list_physical_devices("GPU")
    if batch_size is not None and on_cpu:
        quick_row = quick and dtype == "bfloat16"  # other products are slow in it
        if can_pack and (batch_size >= PACKED_FROM or quick_row):
            return "packed"
        if not can_pack and batch_size >= UNCOMPILED_FROM[processor()]:
            return "tensorflow"
    return "tensorflow" if quick else "xla"


def stores_bfloat16(dtype):
    """Whether weights are stored as bfloat16, and sums stay float32.

    That is the fast way on a processor with instructions for it. `dtype` is as in `choose`.
    """
    return dtype == "bfloat16" and choose(PACKED_FROM, dtype, constant=True) == "packed"


def rewrites_graphs():
    """Whether TensorFlow should rewrite a graph before its first run, to fuse what it can.

    On x86 this takes up to half a second and gains nothing: what gains is fused when it is built.
    """
    import tensorflow.compat.v1 as tf

    return processor() == "other" or bool(tf.config.list_physical_devices("GPU"))


def bytes_of_a_weight(batch_size, dtype="float32"):
    """What a process holds for each weight at most; known before TensorFlow is imported."""
    can_pack = processor() != "other" and chosen() in ("", "packed")
    if dtype == "bfloat16" and has_bfloat16() and can_pack:
        return 2 if batch_size == 1 else 4  # for one sample, large matrices are not packed
    return 8 if can_pack and (chosen() or batch_size >= PACKED_FROM) else 4
