"""Causal attention that skips most of what the mask hides: as model.causal_attention, faster."""

import tensorflow.compat.v1 as tf

import model

N_BLOCKS = 4  # with 8, the products are too small: no faster at 512 positions


def causal(q, k, v):
    """Attention of each position to itself and to all earlier ones.

    The queries are computed in blocks, each with the keys up to its own last position. So 3/8 of
    the scores are never computed.

    Args:
      q, k, v: float [batch, n_head, sequence, head_dim]
    Returns: float [batch, n_head, sequence, head_dim]
    """
    sequence = model.shape_list(q)[-2]
    ends = [sequence * (i + 1) // N_BLOCKS for i in range(N_BLOCKS)]
    parts = []
    for start, end in zip([0, *ends], ends, strict=False):
        bias = model.causal_bias(end - start, end, dtype=q.dtype)
        parts.append(model.attention(q[:, :, start:end], k[:, :, :end], v[:, :, :end], bias))
    return tf.concat(parts, axis=-2)


def attend(q, k, v, past):
    """What model.attn takes as `attend`, for a text with nothing before or after it."""
    assert past is None
    return causal(q, k, v), None
