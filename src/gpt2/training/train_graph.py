"""The training graph: loss, gradients, and the optimizer.

Sources: Adam, arXiv:1412.6980; gradient checkpointing, arXiv:1604.06174.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

import model
from gpt2.training.options import TrainingOptions
from gpt2.training.workers import Workers
from hparams import HParams


class TrainGraph(NamedTuple):
    """What a training loop runs. A train step runs `add` on every batch except the last, then
    `update` on the last."""

    ids: Any  # placeholder int32 [batch, window + 1]
    learning_rate: Any  # placeholder float32 []
    loss: Any  # float32 [], the mean over the tokens of `ids`, in nats
    add: Any  # operation that accumulates the gradients of a batch
    update: Any  # updates the weights; float32 [], the mean loss over all batches and workers
    step: Any  # int64 variable [], the train steps so far
    best: Any  # float32 variable [], the lowest validation loss so far
    text: Any  # int64 variable [], a checksum of the text that `best` was measured with
    weights: Any  # the model's variables
    number: Any  # placeholder float64 []
    total: Any  # float64 [], the sum of `number` over the workers
    broadcast: Any  # operation that gives all workers the chief's variables


def build(hparams: HParams, options: TrainingOptions, workers: Workers) -> TrainGraph:
    """Build the training graph in the default graph; gradients are averaged over the workers."""
    ids = tf.placeholder(tf.int32, [None, None])
    learning_rate = tf.placeholder(tf.float32, [])
    loss = mean_loss(hparams, ids, options.recompute)
    weights = tf.trainable_variables()
    values, add, reset = _accumulated([loss, *gradients(loss, weights)], options.accumulate)
    sums = workers.all_reduce(values)
    mean, *means = (value / (options.accumulate * workers.size) for value in sums)
    clipped, _ = tf.clip_by_global_norm(means, options.clip_norm)

    step = tf.train.get_or_create_global_step()
    best = tf.Variable(np.inf, trainable=False, name="best", dtype=tf.float32)
    text = tf.Variable(0, trainable=False, name="text", dtype=tf.int64)
    adam = tf.train.AdamOptimizer(learning_rate, beta2=0.95)
    with tf.control_dependencies([adam.apply_gradients(zip(clipped, weights, strict=True))]):
        step_and_reset = [step.assign_add(1), reset()]
    with tf.control_dependencies(step_and_reset):
        update = tf.identity(mean)
    number = tf.placeholder(tf.float64, [])
    (total,) = workers.all_reduce([number])
    # One collective for each variable; one for all, with Adam's, would need three times the memory.
    broadcast = tf.group(*(v.assign(workers.broadcast(v)) for v in tf.global_variables()))
    return TrainGraph(
        ids, learning_rate, loss, add, update, step, best, text, weights, number, total, broadcast
    )


def mean_loss(hparams: HParams, ids: Any, recompute: bool = False) -> Any:
    """The mean cross-entropy of each next token, float32 [], in nats.

    Args:
      ids: int32 [batch, window + 1]; the first token of each row is not predicted.
      recompute: use gradient checkpointing.
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
    """model.block with gradient checkpointing: the backward pass computes its activations again.

    Returns: the output of the block, and None for `present`.
    """

    @tf.recompute_grad
    def layer(x):
        return model.block(x, scope, past=past, hparams=hparams)[0]

    return layer(x), None


def gradients(loss: Any, weights: Any) -> list[Any]:
    """The gradient of the loss with respect to each variable, in its shape."""
    found = tf.gradients(loss, weights)
    return [tf.convert_to_tensor(gradient) for gradient in found]  # the gradient of wpe is sparse


def _accumulated(values: list[Any], n: int) -> tuple[list[Any], Any, Callable[[], Any]]:
    """Sums of `values` over `n` runs of the graph.

    Returns: the sums including the values of the current run, an operation that adds the values of
    the current run, and a function that builds the operation to reset the sums.
    """
    if n == 1:
        return values, tf.no_op(), tf.no_op
    # Local variables are not in checkpoints: between two train steps the sums are 0.
    local = {"trainable": False, "collections": [tf.GraphKeys.LOCAL_VARIABLES]}
    sums = [tf.Variable(tf.zeros(value.shape), **local) for value in values]
    add = tf.group(*(s.assign_add(value) for s, value in zip(sums, values, strict=True)))
    totals = [s + value for s, value in zip(sums, values, strict=True)]
    return totals, add, lambda: tf.group(*(s.assign(tf.zeros_like(s)) for s in sums))
