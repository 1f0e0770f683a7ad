"""What computes: XLA's compiled loop, or TensorFlow's own operations; and whether with oneDNN.

Tokens per second at the 117M shape in float32. benchmarks/bench_engines.py makes such a table. Two
AVX-512 cores (AMD EPYC, 2026-11-29, idle), 48 tokens, medians of five turns up to 4 samples, and of
three with more:

  batch     XLA   with oneDNN   TensorFlow   with oneDNN   packed (packed.py)
  1        56.7          56.8         34.6          36.0                 39.4
  2        55.6          58.8         19.1          61.2                 71.5
  3        85.2          92.6         29.9          98.0                117.7
  4       116.8         123.0         37.9         105.7                151.2
  8       202.8         206.1        139.2         168.1                313.7
  16      304.1         312.4        235.1         261.2                426.9
  32      343.5         344.3        288.7         330.6                452.6

Two AVX2 cores (AMD EPYC, 2026-11-28), with oneDNN. In the first four rows, the best of five or six
turns beside another load, so that only ratios within a row mean anything; in the last two, the best
of three on an idle machine. The last column is older than the cut matrices in packed.py, and
attention by Eigen's product.

  batch x tokens     XLA    TensorFlow    packed
  1 x 16            32.9          19.4      24.1
  2 x 16            26.2          25.2      39.7
  4 x 16            42.2             -      67.5
  8 x 16               -          81.1     109.9
  8 x 32            76.4         124.8         -
  32 x 24          207.9         237.9         -

XLA multiplies eight rows on one core, and reads the keys of all samples on one (up to 512
positions). So on four AVX-512 cores (Intel Xeon), TensorFlow's own operations were faster from 16
samples on, without packed weights; packed ones were not measured there.

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
MIN_ROWS = {"avx512": 3, "avx2": 1, "other": 1}  # of x in packed.py: fewer take oneDNN longer
CPUINFO = "/proc/cpuinfo"
FUSED_PRODUCT = "_MklNativeFusedMatMul"  # private, so another TensorFlow may not have it


@functools.cache
def processor():
    """The kind of this processor, as far as it matters here: avx512, avx2 or other."""
    try:
        flags = re.findall(r"^flags\s*:.*", Path(CPUINFO).read_text("utf-8"), re.M)[0]
    except (OSError, IndexError):
        return "other"
    return "avx512" if " avx512f" in flags else "avx2" if " avx2" in flags else "other"


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


def is_compiled(batch_size, can_pack=False):
    """Whether XLA compiles the loop for this batch size; None is any size.

    On a GPU always, and on a CPU for small batches; unless the user chose.

    Args: can_pack, whether it could have packed weights otherwise.
    Raises: as in `chosen`.
    """
    import tensorflow.compat.v1 as tf

    if chosen():
        return chosen() == "xla"
    if batch_size is None or tf.config.list_physical_devices("GPU"):
        return True
    return batch_size < (PACKED_FROM if can_pack else UNCOMPILED_FROM[processor()])


def is_packed(dtype):
    """Whether a loop that is not compiled has packed copies of weights that stay the same."""
    import tensorflow.compat.v1 as tf

    if processor() == "other" or tf.as_dtype(dtype) != tf.float32 or not _has_fused_product():
        return False
    if chosen():
        return chosen() == "packed"
    return not tf.config.list_physical_devices("GPU")


def rewrites_graphs():
    """Whether TensorFlow should rewrite a graph before its first run, to fuse what it can.

    On x86 this takes up to half a second and gains nothing: what gains is fused when it is built.
    """
    import tensorflow.compat.v1 as tf

    return processor() == "other" or bool(tf.config.list_physical_devices("GPU"))


def has_fast_linear(dtype):
    """Whether whole texts are evaluated with fast_model.linear: where no graph is rewritten."""
    import tensorflow.compat.v1 as tf

    return not rewrites_graphs() and tf.as_dtype(dtype) == tf.float32


def fuses_gelu():
    """Whether fast_model.linear leaves a GELU to oneDNN, within its product.

    On AVX2, oneDNN's GELU takes a third as long as the product. Without it, a prompt of 512 takes
    0.96 of the time. On AVX-512 it takes 1.035 times as long without it.
    """
    return processor() == "avx512" and _has_fused_product()


def _has_fused_product():
    """Whether TensorFlow has FUSED_PRODUCT, and oneDNN is on."""
    from tensorflow.python.framework import kernels

    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        return False
    return bool(kernels.get_registered_kernels_for_op(FUSED_PRODUCT).kernel)


def copies_of_weights(batch_size):
    """How many copies of the weights a process holds at most; known before TensorFlow is there."""
    if chosen():
        return 2 if chosen() == "packed" else 1
    return 2 if processor() != "other" and batch_size >= PACKED_FROM else 1
