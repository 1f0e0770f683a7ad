"""The training graph: its loss and gradients, compared with other ways to compute them."""

import model_weights
import numpy as np
import pytest
from conftest import new_session

import model
import numpy_gpt2
from gpt2 import checkpoint
from gpt2.training.options import TFConfig, TrainingOptions
from hparams import HParams

ODD = HParams(n_vocab=13, n_ctx=11, n_embd=15, n_head=3, n_layer=2)
IDS = np.random.default_rng(0).integers(0, 13, [4, 8])


@pytest.fixture(scope="module")
def train_graph(tf):
    from gpt2.training import train_graph

    return train_graph


@pytest.fixture(scope="module")
def weights():
    return model_weights.random_weights(ODD)


def numpy_loss(weights, ids):
    losses = []
    for row in ids:
        logits = numpy_gpt2.logits(ODD, weights, row[:-1])
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        losses.append(-logits[np.arange(len(row) - 1), row[1:]])
    return np.mean(losses)


def gradients_of(tf, sess, train_graph, weights, recompute=False):
    """Loss and gradients by the name of the variable."""
    ids = tf.constant(IDS)
    loss = train_graph.mean_loss(ODD, ids, recompute)
    variables = tf.trainable_variables()
    gradients = train_graph.gradients(loss, variables)
    sess.run(tf.global_variables_initializer())
    model_weights.assign(tf, sess, weights)
    values = sess.run([loss, *gradients])
    return values[0], {v.op.name: g for v, g in zip(variables, values[1:], strict=True)}


def test_gradients_equal_finite_differences(tf, sess, train_graph, weights):
    loss, gradients = gradients_of(tf, sess, train_graph, weights)
    assert loss == pytest.approx(numpy_loss(weights, IDS), rel=1e-5)
    assert gradients.keys() == weights.keys()
    rng = np.random.default_rng(1)
    for name, gradient in gradients.items():
        direction = rng.normal(size=gradient.shape)
        ends = [
            numpy_loss({**weights, name: weights[name].astype(float) + step * direction}, IDS)
            for step in (1e-5, -1e-5)
        ]
        slope = (ends[0] - ends[1]) / 2e-5
        assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-3, abs=1e-4), name


def test_gradient_checkpointing_changes_no_gradient(tf, train_graph, weights):
    found = []
    for recompute in (False, True):
        with new_session(tf) as sess:
            found.append(gradients_of(tf, sess, train_graph, weights, recompute))
            names = [op.name for op in sess.graph.get_operations()]
            # With checkpointing, the activation of each layer is computed again.
            assert sum(name.endswith("Tanh") for name in names) == 2 * (1 + recompute)
    (plain_loss, plain), (loss, gradients) = found
    assert loss == pytest.approx(plain_loss, rel=1e-6)
    for name, gradient in plain.items():
        np.testing.assert_allclose(gradients[name], gradient, atol=1e-6, err_msg=name)


def first_moments(tf, train_graph, weights, parts=1, clip_norm=1e9):
    """The loss of a train step, and Adam's first moments after two of them, from the gradients."""
    from gpt2.training.workers import Workers

    with new_session(tf) as sess:
        options = TrainingOptions(8, accumulate=parts, clip_norm=clip_norm)
        graph = train_graph.build(ODD, options, Workers())
        sess.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        for variable in graph.weights:
            variable.load(weights[variable.op.name], sess)
        for _ in range(2):  # by the second one, the sums must be 0 again
            *others, last = np.split(IDS, parts)
            for part in others:
                sess.run(graph.add, {graph.ids: part})
            loss = sess.run(graph.update, {graph.ids: last, graph.learning_rate: 0})
        assert sess.run(graph.step) == 2
        moments = [v for v in tf.global_variables() if v.op.name.endswith("/Adam")]
        return loss, {v.op.name: sess.run(v) for v in moments}


@pytest.fixture(scope="module")
def whole_batch(tf, train_graph, weights):
    return first_moments(tf, train_graph, weights)


def test_accumulated_gradients_equal_those_of_the_whole_batch(
    tf, train_graph, weights, whole_batch
):
    loss, moments = whole_batch
    assert len(moments) == len(weights)
    part_loss, part_moments = first_moments(tf, train_graph, weights, parts=4)
    assert part_loss == pytest.approx(loss, rel=1e-6)
    for name, moment in moments.items():
        np.testing.assert_allclose(part_moments[name], moment, atol=1e-6, err_msg=name)


def test_large_gradients_are_clipped(tf, train_graph, weights, whole_batch):
    def norm(moments):
        return np.sqrt(sum((moment**2).sum() for moment in moments.values())) / 0.19

    expected = norm(whole_batch[1]) / 4
    _, clipped = first_moments(tf, train_graph, weights, clip_norm=float(expected))
    assert norm(clipped) == pytest.approx(expected, rel=1e-4)


def test_several_workers_sum_loss_and_gradients_in_one_collective(tf, train_graph):
    from gpt2.training.workers import Workers

    two = Workers(TFConfig(("a:1", "b:1"), index=1))
    with tf.Graph().as_default() as whole:
        options = TrainingOptions(8, accumulate=4)
        graph = train_graph.build(HParams(13, 11, 15, 3, 1), options, two)
        definition = whole.as_graph_def()
    for operation, n_collectives in [(graph.add, 0), (graph.update.op, 1)]:
        needed = tf.graph_util.extract_sub_graph(definition, [operation.name]).node
        assert sum(node.op == "CollectiveReduce" for node in needed) == n_collectives


def test_an_untrained_model_predicts_a_uniform_distribution(tf, sess, train_graph):
    hparams = HParams(n_vocab=5000, n_ctx=64, n_embd=48, n_head=3, n_layer=2)
    ids = np.random.default_rng(0).integers(0, hparams.n_vocab, [8, 65])
    tf.set_random_seed(0)
    loss = train_graph.mean_loss(hparams, tf.constant(ids))
    sess.run(tf.global_variables_initializer())
    assert sess.run(loss) == pytest.approx(np.log(hparams.n_vocab), rel=0.02)


def test_the_meta_graph_holds_the_model_and_nothing_else(tf, train_graph):
    with tf.Graph().as_default():
        meta = tf.MetaGraphDef.FromString(checkpoint.meta_graph(ODD))
        tf.train.import_meta_graph(meta)
        found = {v.op.name: v.shape.as_list() for v in tf.global_variables()}
    with tf.Graph().as_default():
        model.model(ODD, tf.placeholder(tf.int32, [None, None]))
        assert found == {v.op.name: v.shape.as_list() for v in tf.global_variables()}
    assert not any(node.device for node in meta.graph_def.node)
