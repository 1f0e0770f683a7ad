"""The graph that trains: loss, gradients, and the optimizers.

Sources: Adam, arXiv:1412.6980; Adafactor, arXiv:1804.04235; recomputation, arXiv:1604.06174;
mixed precision, arXiv:1710.03740.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow.compat.v1 as tf

import model
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
    optimizer: str = "adam",
    clip_norm: float = 1.0,
    accumulate: int = 1,
    recompute: bool = False,
    mixed_precision: bool = False,
    cluster: Cluster,
) -> Graph:
    """Build the graph of training.

    Args:
      hparams: HParams
      optimizer: adam or adafactor.
      clip_norm: gradients longer than this, all taken together, are shortened to it.
      accumulate: parts of a batch, computed one after the other.
      recompute: keep the inputs of layers only, and compute the layers once more for the gradients.
      mixed_precision: let TensorFlow use 16 bits where that does no harm; for GPUs.
      cluster: the workers whose gradients are averaged.
    """
    ids = tf.placeholder(tf.int32, [None, None])
    rate = tf.placeholder(tf.float32, [])
    loss = mean_loss(hparams, ids, recompute)
    weights = tf.trainable_variables()
    if optimizer == "adam":
        opt = tf.train.AdamOptimizer(rate, beta2=0.95)
    else:
        # Keras's form of it keeps one number for each weight beside the factors.
        opt = KerasOptimizer(keras.optimizers.Adafactor, rate, weights)
    if mixed_precision:
        opt = tf.mixed_precision.enable_mixed_precision_graph_rewrite(opt)

    values = [loss, *gradients(opt, loss, weights)]
    sums = [_sum_variable(value) for value in values] if accumulate > 1 else []
    add = tf.group(*(s.assign_add(value) for s, value in zip(sums, values, strict=False)))
    if sums:
        values = [s + value for s, value in zip(sums, values, strict=True)]
    mean, *means = (cluster.sum(value) / (accumulate * cluster.size) for value in values)
    clipped, _ = tf.clip_by_global_norm(means, clip_norm)
    step = tf.train.get_or_create_global_step()
    best = tf.Variable(np.inf, trainable=False, name="best", dtype=tf.float32)
    with tf.control_dependencies([opt.apply_gradients(zip(clipped, weights, strict=True))]):
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


def gradients(opt: Any, loss: Any, weights: Any) -> list[Any]:
    """The gradient of the loss by each variable, in its shape."""
    pairs = opt.compute_gradients(loss, weights)
    return [tf.convert_to_tensor(gradient) for gradient, _ in pairs]  # wpe's is sparse


def _sum_variable(like: Any) -> Any:
    # A local variable is in no checkpoint: between two updates all of them are 0.
    return tf.Variable(
        tf.zeros(like.shape), trainable=False, collections=[tf.GraphKeys.LOCAL_VARIABLES]
    )


class KerasOptimizer(tf.train.Optimizer):
    """An optimizer of Keras, which expects eager execution, in a graph.

    Args:
      kind: class of the optimizer.
      rate: float [], the learning rate.
      weights: all variables that it will update.
    """

    def __init__(self, kind: Any, rate: Any, weights: list[Any]):
        super().__init__(use_locking=False, name=kind.__name__)
        self._rate = rate
        self._optimizer = kind(learning_rate=lambda: self._rate)
        self._optimizer.build([_Renamed(variable) for variable in weights])

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        """As in the base class."""
        values, variables = zip(*grads_and_vars, strict=True)

        @tf.function(autograph=False)  # it keeps reads and writes of variables in their order
        def update(rate, *values):
            outside, self._rate = self._rate, rate
            self._optimizer.apply_gradients(zip(values, variables, strict=True))
            self._rate = outside
            return self._optimizer.iterations.value + 0

        return update(self._rate, *values).op


class _Renamed:
    """A variable under a name that Keras takes for the variables that go with it."""

    def __init__(self, variable: Any):
        self._variable = variable
        self.name = variable.op.name.replace("/", "_")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._variable, name)


def model_graph(hparams: HParams) -> bytes:
    """The graph of the model alone, as in the file .meta of a release."""
    with tf.Graph().as_default():
        model.model(hparams, tf.placeholder(tf.int32, [None, None]))
        return tf.train.Saver().export_meta_graph(clear_devices=True).SerializeToString()
