"""The slow steps of sample.py in a way that is fast on every engine.

The docstrings give the TensorFlow equivalent where it is one line.
"""

import functools

import numpy as np
import tensorflow.compat.v1 as tf

TINY = 1.2e-38  # the smallest float32 that no processor flushes to zero
GROUP_SIZE = 29  # logits of which `largest` takes the maximum first; divides n_vocab of the release
TOP_K_BOUNDS = (64, 512)  # sizes of partial sorts; any k up to a bound is read from its sort
BLOCK_SIZE = 256  # probabilities looked at one by one; more of them are summed in blocks first


def draw_from_top_k(logits, k, draw):
    """Draw a token for each row among those that top-k keeps.

    The definition is the second branch. If the tokens are few, `draw` handles these alone.

    Args:
      logits, k: as in `kth_largest`.
      draw: gives an index int32 [batch] for logits float [batch, n]; -inf excludes one.
    Returns: int32 [batch]
    """
    x, tokens, are_all = candidates(logits, k)
    return tf.cond(
        are_all,
        lambda: tf.gather(tokens, draw(x), batch_dims=1),
        lambda: draw(mask_below(logits, kth_largest(logits, k), float("-inf"))),
    )


def mask_below(logits, threshold, masked):
    """`logits` float [batch, n], with `masked` where they are below `threshold` [batch, 1]."""
    return tf.where_v2(logits < threshold, tf.cast(masked, logits.dtype), logits)


def candidates(logits, k):
    """The tokens that top-k keeps, if they are few: later steps then handle n values, not n_vocab.

    Args: as in `kth_largest`.
    Returns: float [batch, n], logits in the order of the vocabulary, -inf where top-k drops them.
      int32 [batch, n], the tokens.
      bool [], whether these are all. They are not if k is 0, or n and more, or if too many tokens
      tie with the k-th. The two others then mean nothing.
    """
    n = min(TOP_K_BOUNDS[0], logits.shape.as_list()[-1])
    batch = tf.shape(logits)[0]
    k = tf.cast(k, tf.int32)

    def some():
        ordered, tokens = largest(logits, n)
        kth = tf.gather(ordered, [k - 1], axis=1)
        x = tf.where_v2(ordered < kth, tf.cast(float("-inf"), ordered.dtype), ordered)
        order = tf.argsort(tokens, axis=1)
        x, tokens = (tf.gather(t, order, batch_dims=1) for t in (x, tokens))
        # Not ordered[:, -1]: of a sort that is sliced twice, XLA does not see that it is a top-k.
        return x, tokens, tf.reduce_all(tf.reduce_min(ordered, axis=1, keepdims=True) < kth)

    def none():
        x, tokens = tf.zeros([batch, n], logits.dtype), tf.zeros([batch, n], tf.int32)
        return x, tokens, tf.constant(False)

    return tf.cond((k > 0) & (k < n), some, none)


def kth_largest(logits, k):
    """The k-th largest logit of each row: `tf.sort(logits, direction="DESCENDING")[:, k - 1]`.

    XLA needs to know how much to sort when it compiles, but not which entry is read. So one
    compiled program serves every k.

    Args:
      logits: float [batch, n_vocab]
      k: int or int32 [], from 0 to n_vocab; 0 gives -inf.
    Returns: float [batch, 1]
    """
    n_vocab = logits.shape.as_list()[-1]
    bounds = [bound for bound in TOP_K_BOUNDS if 2 * bound * GROUP_SIZE < n_vocab] + [n_vocab]

    def everything():
        return tf.fill([tf.shape(logits)[0], 1], tf.constant(float("-inf"), logits.dtype))

    def within(bound):
        return tf.gather(largest(logits, bound)[0], [tf.maximum(k, 1) - 1], axis=1)

    k = tf.cast(k, tf.int32)
    branches = [everything, *(functools.partial(within, bound) for bound in bounds)]
    index = sum(tf.cast(k > bound, tf.int32) for bound in [0, *bounds[:-1]])
    return tf.ensure_shape(tf.switch_case(index, branches), [logits.shape[0], 1])


def largest(logits, k):
    """The k largest logits of each row, in order, and where they are: `tf.nn.top_k(logits, k)`.

    XLA sorts everything it is given. The k largest values are in the k groups with the largest
    maxima, so only those groups are sorted. A group is every m-th logit: so the maxima of
    neighbouring groups are computed together.
    """
    if 2 * k * GROUP_SIZE >= logits.shape.as_list()[-1]:
        return tf.nn.top_k(logits, k=k)
    padded = _pad(logits, GROUP_SIZE, float("-inf"))
    m = padded.shape[1] // GROUP_SIZE
    maxima = tf.reduce_max(tf.reshape(padded, [-1, GROUP_SIZE, m]), axis=1)
    groups = tf.nn.top_k(maxima, k=k)[1]
    where = tf.expand_dims(groups, 1) + m * np.arange(GROUP_SIZE, dtype=np.int32)[:, None]
    where = tf.reshape(where, [-1, GROUP_SIZE * k])
    values, best = tf.nn.top_k(tf.gather(padded, where, batch_dims=1), k=k)
    return values, tf.gather(where, best, batch_dims=1)


def nucleus(p, least):
    """Which tokens are in each row's nucleus, the smallest set whose total probability reaches
    `least`.

    The first branch is the definition. To sort a large vocabulary takes long, so the other is a
    radix selection: the bits of floats from 0 to 1 are integers in the same order, and three passes
    find the smallest one in the nucleus, ten bits at a time. Probabilities are added as multiples
    of 2^-30, since sums of integers do not depend on their order, which differs between processors.

    Args:
      p: float32 [batch, n_vocab], probabilities.
      least: float32 [], below 1.
    Returns: bool [batch, n_vocab]
    """
    n_vocab = p.shape.as_list()[-1]
    if n_vocab is not None and n_vocab <= BLOCK_SIZE:
        ordered = tf.sort(p, axis=1, direction="DESCENDING")
        before = tf.cumsum(ordered, axis=1, exclusive=True)
        kept = tf.where_v2(before < tf.maximum(least, TINY), ordered, 1.0)
        return p >= tf.reduce_min(kept, axis=1, keepdims=True)
    bits = tf.bitwise.bitwise_and(tf.bitcast(p, tf.int32), 2**30 - 1)  # NaN may have others
    units = tf.cast(tf.round(p * 2.0**30), tf.int32)
    wanted = tf.maximum(tf.cast(least * 2.0**30, tf.int32), 1)
    smallest, above = 0, 0  # the bits found so far; the units of what is surely larger
    for shift in (20, 10, 0):
        # From 0 to 1023 where the higher bits are those of the smallest; others are not counted.
        digits = tf.bitwise.right_shift(tf.bitwise.bitwise_xor(bits, smallest), shift)
        counted = tf.raw_ops.DenseBincount(input=digits, size=1024, weights=units)
        reached = above + tf.cumsum(counted, axis=1, reverse=True)
        enough = tf.reduce_sum(tf.cast(reached >= wanted, tf.int32), axis=1, keepdims=True)
        digit = tf.maximum(enough - 1, 0)
        above = tf.gather(reached - counted, digit, axis=1, batch_dims=1)
        smallest += digit * 2**shift
    return bits >= smallest


def inverse_cdf(p, uniform):
    """The token at which the cumulative probability of each row exceeds a uniform number:
    `tf.reduce_sum(tf.cast(tf.cumsum(p, axis=1) <= uniform[:, None], tf.int32), axis=1)`.

    Two short cumulative sums, over blocks and then within a block, replace one over n_vocab.

    Args:
      p: float32 [batch, n_vocab], probabilities.
      uniform: float32 [batch], in [0, 1).
    Returns: int32 [batch]
    """
    uniform = tf.expand_dims(uniform, 1)
    if p.shape.as_list()[-1] <= BLOCK_SIZE:
        return tf.squeeze(_search_cumulative(p, uniform)[0], 1)
    p = _pad(p, BLOCK_SIZE, 0)
    blocks = tf.reshape(p, [-1, p.shape[1] // BLOCK_SIZE, BLOCK_SIZE])
    block, rest = _search_cumulative(tf.reduce_sum(blocks, axis=2), uniform)
    chosen = tf.squeeze(tf.gather(blocks, block, axis=1, batch_dims=1), 1)
    token, _ = _search_cumulative(chosen, rest)
    return tf.squeeze(block * BLOCK_SIZE + token, 1)


def _pad(x, size, pad_with):
    """[batch, n] -> [batch, ceil(n / size) * size]"""
    missing = -x.shape.as_list()[-1] % size
    if missing == 0:
        return x
    # Not tf.pad, for which TensorFlow uses a single core.
    padding = tf.fill([tf.shape(x)[0], missing], tf.cast(pad_with, x.dtype))
    return tf.concat([x, padding], axis=1)


def _search_cumulative(p, fraction):
    """The first index where the cumulative sum of `p` [batch, n] exceeds `fraction` [batch, 1] of
    the total; and which fraction of that entry lies below the threshold."""
    last = p.shape.as_list()[1] - 1
    sums = tf.cumsum(p, axis=1)
    threshold = fraction * tf.gather(sums, [last], axis=1)
    i = tf.reduce_sum(tf.cast(sums <= threshold, tf.int32), axis=1, keepdims=True)
    i = tf.minimum(i, last)  # sums that are NaN exceed nothing
    size, upto = (tf.gather(t, i, axis=1, batch_dims=1) for t in (p, sums))
    return i, tf.clip_by_value((threshold - (upto - size)) / size, 0, 1 - 2**-23)
