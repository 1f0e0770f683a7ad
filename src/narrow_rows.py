"""Products of one row with weights of bfloat16, for XLA's loop.

XLA's own are as slow as in float32, as it widens the weights before the loop. Here a product is a
sum of products of vectors, which XLA computes in one pass over the weights and widens on the way,
but only if

- it gets the weights as their bits, since it widens bfloat16 whatever is computed;
- they are slices from an index that it does not know, since it computes what is the same in every
  step before the loop.
"""

import math

import tensorflow.compat.v1 as tf

import narrow_weights

# The number of products of vectors in a sum: the fastest ones for the 117M shape.
LINEAR_PARTS = 8  # for weights of conv1d
PREDICT_PARTS = 48  # for wte


def bits(w):
    """A weight as `products` takes it: of bfloat16 the bits, uint16 [nx, nf]. Copies nothing."""
    return tf.bitcast(tf.reshape(w, w.shape[-2:]), tf.uint16) if w.dtype == tf.bfloat16 else w


def widened(bits):
    """The numbers in float32."""
    return tf.bitcast(tf.bitwise.left_shift(tf.cast(bits, tf.uint32), 16), tf.float32)


def gather(w, indices):
    """tf.gather, from numbers or from `bits`."""
    rows = tf.gather(w, indices)
    return widened(rows) if w.dtype == tf.uint16 else rows


def products(position):
    """As engines.Engine.products, for one row and weights from `bits`."""
    zero = tf.minimum(position, 0)

    def product(x, w, axis, n):
        """x w, or x wᵀ if axis is 1, in n parts or, if n does not divide nx, in fewer."""
        sizes = w.shape.as_list()
        n = math.gcd(n, sizes[axis])
        sizes[axis] //= n
        total = 0
        for i, part in enumerate(tf.split(x[0], n)):
            start = zero + i * sizes[axis]
            w_part = widened(tf.slice(w, [0, start] if axis else [start, 0], sizes))
            total += w_part * tf.expand_dims(part, 1 - axis)
        return tf.reduce_sum(total, axis)[None]

    def linear(x, w, b, activation=None):
        y = product(x, w, 0, LINEAR_PARTS) + b
        return activation(y) if activation else y

    def predict(h, wte, transpose_b):
        return product(h, wte, 1, PREDICT_PARTS) + narrow_weights.mean_logit(h)

    return linear, predict
