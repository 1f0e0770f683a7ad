"""Products by oneDNN, in the private operation that TensorFlow puts in place of a product when it
rewrites a graph.

It can keep a copy of the weights in the order that its fastest kernel reads ("packed"). On AVX2, a
product of 8 rows then takes half the time, and one of 32 rows three quarters.
"""

import functools
import os

import tensorflow.compat.v1 as tf

import model

FUSED_PRODUCT = "_MklNativeFusedMatMul"  # private, so another TensorFlow may not have it
MAX_ROWS = 2048  # of a float32 matrix: with more, oneDNN's kernel takes up to twice as long
# From this many rows and columns on, a bfloat16 matrix is as fast unpacked, for a single row of x.
WIDE = 1025


def is_available():
    """Whether TensorFlow has FUSED_PRODUCT, and oneDNN is on."""
    return os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0" and _is_registered(FUSED_PRODUCT)


@functools.cache  # it takes 0.3 ms, and is asked for each weight
def _is_registered(operation):
    """Whether TensorFlow can run an operation of this name."""
    from tensorflow.python.framework import kernels

    return bool(kernels.get_registered_kernels_for_op(operation).kernel)


def packed_linear(x, w, b, activation=None, *, transpose_b=False, min_rows=1):
    """activation(x w + b), for a `w` that is the same in every run.

    The copy of `w` is made at the first run, and kept as long as the session has this operation.
    So it must not be in a function that is called with several `w`.

    Args:
      x: float32 or the type of `w` [m, nx]
      w: float32 or bfloat16 [nx, nf], or [nf, nx] with transpose_b.
      b: float32 [nf]
      activation: None, or a function that is applied to the result.
      min_rows: if x has fewer, rows of zeros are added: oneDNN takes longer for very few.
    Returns: [m, nf] in float32, but after a GELU in the type of `w`, as the next product takes it.
    """
    m = x.shape[0]
    packs = m > 1 or w.dtype != tf.bfloat16 or min(w.shape) < WIDE
    missing = min_rows - m if packs else 0
    if missing > 0:
        x = tf.pad(x, [[0, missing], [0, 0]])
    n = 1 if transpose_b or w.dtype == tf.bfloat16 else _parts(x.shape[1])
    if n > 1:  # a sum of products
        biases = [b] + [tf.zeros_like(b)] * (n - 1)
        parts = zip(tf.split(x, n, axis=1), tf.split(w, n), biases, strict=True)
        y = tf.add_n([fused_linear(*part, packs=True) for part in parts])
    else:
        fused = activation if activation is model.gelu else None
        y = fused_linear(x, w, b, fused, transpose_b=transpose_b, packs=packs)
        y, activation = (y, None) if fused else (tf.cast(y, tf.float32), activation)
    y = y[:m] if missing > 0 else y
    return activation(y) if activation else y


def fused_linear(x, w, b, activation=None, *, transpose_b=False, packs=False):
    """activation(x w + b) in one operation; the activation is None or model.gelu.

    TensorFlow itself packs only constants. But weights as constants would be in the graph, which
    may have 2 GB at most.

    Args: as in `packed_linear`; packs, whether to keep a packed copy of `w`.
    Returns: [m, nf] in the type of `w`.
    """
    fused = [b"BiasAdd", *[b"GeluApproximate"] * (activation is model.gelu)]
    operation = tf.get_default_graph().create_op(
        FUSED_PRODUCT,
        [tf.cast(tf.convert_to_tensor(t), w.dtype) for t in (x, w, b)],
        [w.dtype],
        attrs={
            "T": tf.AttrValue(type=w.dtype.as_datatype_enum),
            "num_args": tf.AttrValue(i=1),
            "fused_ops": tf.AttrValue(list=tf.AttrValue.ListValue(s=fused)),
            "transpose_b": tf.AttrValue(b=transpose_b),
            "is_filter_const": tf.AttrValue(b=packs),
            "_kernel": tf.AttrValue(s=b"MklNameChangeOp"),
        },
    )
    return operation.outputs[0]


def _parts(n_rows):
    """The least number of equal parts that have MAX_ROWS rows at most."""
    return next(n for n in range(1, n_rows + 1) if n_rows % n == 0 and n_rows // n <= MAX_ROWS)
