"""The training graph: its loss and gradients, compared with other ways to compute them."""

import json

import model_weights
import numpy as np
import pytest
from conftest import new_session

import model
import numpy_gpt2
from gpt2 import checkpoint
from gpt2.training.tf_config import TFConfig, read_tf_config
from hparams import HParams
from user_error import UserError

ODD = HParams(n_vocab=13, n_ctx=11, n_embd=15, n_head=3, n_layer=2)
IDS = np.random.default_rng(0).integers(0, 13, [4, 8])


@pytest.fixture(scope="module")
def train_graph(tf):
    from gpt2.training import train_graph

    return train_graph


@pytest.fixture(scope="module")
def weights():
    return model_weights.random_weights(ODD)


def build(train_graph, tf_config=TFConfig(), **options):  # noqa: B008
    from gpt2.training.workers import Workers

    return train_graph.build(ODD, workers=Workers(tf_config), **options)


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


def first_moments(tf, train_graph, weights, parts):
    """The loss of a train step, and Adam's first moments after two of them, from the gradients."""
    with new_session(tf) as sess:
        graph = build(train_graph, accumulate=parts, clip_norm=1e9)
        sess.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        for variable in graph.weights:
            variable.load(weights[variable.op.name], sess)
        for _ in range(2):  # by the second one, the sums must be 0 again
            *others, last = np.split(IDS, parts)
            for part in others:
                sess.run(graph.add, {graph.ids: part})
            loss = sess.run(graph.update, {graph.ids: last, graph.learning_rate: 0})
        assert sess.run(graph.step) == 2
        return loss, {v.op.name: sess.run(v) for v in tf.global_variables() if "Adam" in v.op.name}


@pytest.fixture(scope="module")
def whole_batch(tf, train_graph, weights):
    return first_moments(tf, train_graph, weights, 1)


def test_accumulated_gradients_equal_those_of_the_whole_batch(
    tf, train_graph, weights, whole_batch
):
    loss, moments = whole_batch
    assert any(name.endswith("wte/Adam") for name in moments)
    part_loss, part_moments = first_moments(tf, train_graph, weights, 4)
    assert part_loss == pytest.approx(loss, rel=1e-6)
    for name, moment in moments.items():
        np.testing.assert_allclose(part_moments[name], moment, atol=1e-6, err_msg=name)


def test_several_workers_sum_loss_and_gradients_in_one_collective(tf, train_graph):
    two = TFConfig(("a:1", "b:1"), index=1)
    with tf.Graph().as_default() as whole:
        graph = build(train_graph, two, accumulate=4)
        step = tf.graph_util.extract_sub_graph(whole.as_graph_def(), [graph.update.op.name])
    assert len([node for node in step.node if node.op == "CollectiveReduce"]) == 1
    with tf.Graph().as_default() as alone:
        build(train_graph)
    assert not [node for node in alone.as_graph_def().node if node.op == "CollectiveReduce"]


def test_large_gradients_are_clipped(tf, train_graph, weights, whole_batch):
    _, moments = whole_batch
    gradients = [m / 0.19 for name, m in moments.items() if name.endswith("Adam")]
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    with new_session(tf) as sess:
        graph = build(train_graph, clip_norm=float(norm) / 4)
        sess.run(tf.global_variables_initializer())
        for variable in graph.weights:
            variable.load(weights[variable.op.name], sess)
        sess.run(graph.update, {graph.ids: IDS, graph.learning_rate: 0})
        clipped = [sess.run(v) for v in tf.global_variables() if v.op.name.endswith("/Adam")]
    found = 10 * np.sqrt(sum((g**2).sum() for g in clipped))
    assert found == pytest.approx(norm / 4, rel=1e-4)


def test_four_windows_are_memorized(tf, sess, train_graph):
    tf.set_random_seed(0)
    graph = build(train_graph)
    sess.run(tf.global_variables_initializer())
    assert sess.run(graph.loss, {graph.ids: IDS}) > 2
    for _ in range(300):
        sess.run(graph.update, {graph.ids: IDS, graph.learning_rate: 0.01})
    assert sess.run(graph.loss, {graph.ids: IDS}) < 0.1


def test_an_untrained_model_predicts_a_uniform_distribution(tf, sess, train_graph):
    hparams = HParams(n_vocab=5000, n_ctx=64, n_layer=2)
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


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        {"cluster": {"worker": ["a:1"]}},
        {"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}},
        {"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}},
        {"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}},
    ],
)
def test_a_malformed_tf_config_is_refused(monkeypatch, config):
    text = config if isinstance(config, str) else json.dumps(config)
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match="TF_CONFIG must look like") as caught:
        read_tf_config()
    assert "\n" not in str(caught.value)
