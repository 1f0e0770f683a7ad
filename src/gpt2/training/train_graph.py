"""The training graph: loss, gradients, and the optimizer.

Sources: Adam, arXiv:1412.6980; gradient checkpointing, arXiv:1604.06174.
"""

from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

import model
from gpt2 import checkpoint
from gpt2.training.workers import Cluster
from hparams import HParams


class Graph(NamedTuple):
    """What a training loop runs. An update sums up gradients with `add`, and ends in `update`."""

    ids: Any  # placeholder int32 [batch, window + 1]
    rate: Any  # placeholder float32 [], the learning rate
    loss: Any  # float32 [], mean over the tokens of `ids`, in nats
    add: Any  # all parts of a batch but the last
    update: Any  # the last part; gives the loss, float32 [], over all parts and all workers
    step: Any  # int64 variable [], updates made so far
    best: Any  # float32 variable [], the lowest held-out loss so far
    weights: Any  # the model's variables
    number: Any  # placeholder float64 []
    total: Any  # float64 [], the sum of all workers' `number`
    share: Any  # gives all workers the chief's variables


def build(
    hparams: HParams,
    *,
    clip_norm: float = 1.0,
    accumulate: int = 1,
    recompute: bool = False,
    cluster: Cluster,
) -> Graph:
    """Build the graph of training.

    Args:
      hparams: HParams
      clip_norm: gradients longer than this, all taken together, are shortened to it.
      accumulate: parts of a batch, computed one after the other.
      recompute: keep the inputs of layers only, and compute the layers once more for the gradients.
      cluster: the workers whose gradients are averaged.
    """
    ids = tf.placeholder(tf.int32, [None, None])
    rate = tf.placeholder(tf.float32, [])
    loss = mean_loss(hparams, ids, recompute)
    weights = tf.trainable_variables()
    values = [loss, *gradients(loss, weights)]
    sums = [_sum_variable(value) for value in values] if accumulate > 1 else []
    add = tf.group(*(s.assign_add(value) for s, value in zip(sums, values, strict=False)))
    if sums:
        values = [s + value for s, value in zip(sums, values, strict=True)]
    mean, *means = (cluster.sum(value) / (accumulate * cluster.size) for value in values)
    clipped, _ = tf.clip_by_global_norm(means, clip_norm)
    step = tf.train.get_or_create_global_step()
    best = tf.Variable(np.inf, trainable=False, name="best", dtype=tf.float32)
    adam = tf.train.AdamOptimizer(rate, beta2=0.95)
    with tf.control_dependencies([adam.apply_gradients(zip(clipped, weights, strict=True))]):
        done = [step.assign_add(1), *(s.assign(tf.zeros_like(s)) for s in sums)]
    with tf.control_dependencies(done):
        update = tf.identity(mean)
    number = tf.placeholder(tf.float64, [])
    share = tf.group(*(v.assign(cluster.from_chief(v)) for v in tf.global_variables()))
    return Graph(
        ids, rate, loss, add, update, step, best, weights, number, cluster.sum(number), share
    )


def mean_loss(hparams: HParams, ids: Any, recompute: bool = False) -> Any:
    """The mean cross-entropy of each next token, float [], in nats.

    Args:
      ids: int32 [batch, window + 1]; the first token of a row is not predicted.
      recompute: as in `build`.
    """
    X, labels = ids[:, :-1], ids[:, 1:]
    layer = recomputed_block if recompute else model.block
    with tf.variable_scope("model", reuse=tf.AUTO_REUSE):
        positions = model.positions_for(X, 0)
        h, _ = model.transformer(hparams, X, positions, [None] * hparams.n_layer, layer)
        logits = model.predict(hparams, h)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.reduce_mean(losses)


def recomputed_block(x, scope, *, past, hparams):
    """As model.block, with nothing remembered of what is inside; its second result is None."""

    @tf.recompute_grad
    def layer(x):
        return model.block(x, scope, past=past, hparams=hparams)[0]

    return layer(x), None


def gradients(loss: Any, weights: Any) -> list[Any]:
    """The gradient of the loss with respect to each variable, in its shape."""
    found = tf.gradients(loss, weights)
    return [tf.convert_to_tensor(gradient) for gradient in found]  # that of wpe is sparse


def _sum_variable(like: Any) -> Any:
    # A local variable is in no checkpoint: between two updates all of them are 0.
    return tf.Variable(
        tf.zeros(like.shape), trainable=False, collections=[tf.GraphKeys.LOCAL_VARIABLES]
    )


def model_graph(hparams: HParams) -> bytes:
    """The graph of the model alone, as in the file .meta of a release."""
    return checkpoint.meta_graph(hparams)
