"""What a step of the loop is made of, for each of the three engines, and what a whole text is.

  xla         XLA compiles the loop as a whole
  tensorflow  TensorFlow's own operations
  packed      the same, with weights that oneDNN packs once (onednn.py)

They give the same tokens, but for the last digit of a logit. engine.py has the rule that chooses.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow.compat.v1 as tf

import engine
import fast_model
import kv_cache
import model
import narrow_rows
import narrow_weights
import onednn


class Engine(NamedTuple):
    """What a step is made of."""

    compiled: bool  # whether XLA compiles the loop, once for each length of the caches
    shares_block: bool  # whether all layers can call one block that was traced once
    prepare: Callable  # gives a weight, before the loop, the shape and type that `products` take
    products: Callable  # for a step's position: model.linear, and model.predict's `matmul`
    matmul: Callable  # in attention, as tf.matmul
    write: Callable  # writes a position of a cache, as kv_cache.write_in_place


def engine_for(batch_size, dtype="float32", constant=False, quick=False):
    """The Engine that engine.choose names; arguments and errors as there."""
    name = engine.choose(batch_size, dtype, constant, quick)
    return by_name(name, batch_size, engine.stores_bfloat16(dtype))


def by_name(name, batch_size=None, narrow=False):
    """The Engine of a name in engine.ENGINES, for a batch size; None is any.

    Args: narrow, whether weights are stored as bfloat16.
    """

    def plain(position):
        return linear, tf.matmul

    if name == "xla" and narrow:
        prepare, products = narrow_rows.bits, narrow_rows.products
        return Engine(True, True, prepare, products, tf.matmul, kv_cache.write_to_copy)
    if name == "xla":
        # For one row, XLA is faster with blocks of rows, which it multiplies in parallel.
        prepare = split_rows if batch_size == 1 else one_matrix
        return Engine(True, True, prepare, plain, tf.matmul, kv_cache.write_to_copy)
    write = kv_cache.write_in_place
    if name == "tensorflow":
        return Engine(False, True, one_matrix, plain, tf.matmul, write)
    packed = functools.partial(onednn.packed_linear, min_rows=engine.MIN_ROWS[engine.processor()])

    def predict(h, wte, transpose_b):
        y = packed(h, wte, tf.zeros(wte.shape[:1]), transpose_b=transpose_b)
        return y + narrow_weights.mean_logit(h) if narrow_weights.is_narrow(wte) else y

    # Each packed copy belongs to one operation, so the layers share no block.
    return Engine(False, False, one_matrix, lambda _: (packed, predict), small_products, write)


def text_linear(x, w, b, activation=None):
    """model.linear for whole texts: the fastest way for the processor and the type of `w`.

    The result has that type, too: so attention is computed in bfloat16, with half the casts.
    """
    if activation not in (None, model.gelu):
        return activation(text_linear(x, w, b))
    if narrow_weights.is_narrow(w):
        return onednn.fused_linear(x, one_matrix(w), b, activation)
    if activation is None or engine.rewrites_graphs() or x.dtype != tf.float32:
        return linear(x, w, b, activation)
    # On AVX2, oneDNN's GELU takes a third as long as the product; on AVX-512 it gains.
    if engine.processor() == "avx512" and onednn.is_available():
        return onednn.fused_linear(x, one_matrix(w), b, activation)
    return fast_model.gelu(linear(x, w, b))


def text_predict(h, wte, transpose_b):
    """model.predict's `matmul` for whole texts, for any type of `wte`."""
    y = shifted_logits(h, wte, transpose_b)
    if not narrow_weights.is_narrow(wte):
        return y
    return tf.cast(y, h.dtype) + narrow_weights.mean_logit(h)


def shifted_logits(h, wte, transpose_b):
    """The same, less a number for each row of `h`; so their softmax is the same."""
    if not narrow_weights.is_narrow(wte):
        return tf.matmul(h, wte, transpose_b=transpose_b)
    return onednn.fused_linear(h, wte, tf.zeros(wte.shape[:1]), transpose_b=transpose_b)


def one_matrix(w):
    """[1, nx, nf] -> [nx, nf]; others stay the same."""
    return tf.squeeze(w, 0) if w.shape.ndims == 3 else w


def split_rows(w, n=8):
    """[1, nx, nf] -> [n, nx // n, nf] if n divides nx, else [nx, nf]; others stay the same.

    A reshape inside the loop would keep XLA from sharing the product among the cores.
    """
    if w.shape.ndims != 3 or w.shape[1] % n:
        return one_matrix(w)
    _, nx, nf = w.shape.as_list()
    return tf.reshape(w, [n, nx // n, nf])


def linear(x, w, b, activation=None):
    """model.linear, for a `w` in any number of blocks of rows.

    On a CPU, TensorFlow fuses a product, a bias and a GELU, which is faster. It would also fuse a
    product and a bias alone, which is slower: the additional axis between them prevents that.

    Args: as in model.linear, but w: float [nx, nf] or [blocks, nx // blocks, nf].
    """
    y = product(x, w)
    if activation:
        return activation(y + b)
    return tf.squeeze(y[None] + b, 0)


def product(x, w):
    """x w: float [m, nf], for `w` as in `linear`."""
    if w.shape.ndims == 2:
        return tf.matmul(x, w)
    if w.shape[0] == 1:
        return tf.matmul(x, one_matrix(w))
    x = tf.transpose(model.split_states(x, w.shape[0]), [1, 0, 2])
    return tf.reduce_sum(tf.matmul(x, w), axis=0)


def small_products(x, y, transpose_b=False):
    """tf.matmul(x, y, transpose_b=transpose_b) of many matrices with one row, by Eigen.

    TensorFlow gives tf.matmul to oneDNN, which takes up to a third longer for them.
    """
    return tf.raw_ops.BatchMatMulV3(x=x, y=y, Tout=x.dtype, adj_y=transpose_b)
