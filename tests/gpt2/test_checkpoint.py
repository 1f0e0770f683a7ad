"""Restoring a model's variables, and the graph that is written next to them."""

import shutil
from pathlib import Path

import model_weights
import pytest
from conftest import ROOT

import model
from gpt2 import checkpoint
from gpt2.model_folder import ModelFolder
from hparams import HParams
from user_error import UserError

HPARAMS = HParams(n_vocab=13, n_ctx=11, n_embd=15, n_head=3, n_layer=2)


@pytest.fixture(scope="module")
def made(tf, tmp_path_factory) -> Path:
    """A checkpoint with random weights, written by TensorFlow's own saver."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    (folder / "hparams.json").write_text(HPARAMS.to_json(), encoding="utf-8")
    with tf.Graph().as_default(), tf.Session() as sess:
        model.model(HPARAMS, tf.placeholder(tf.int32, [None, None]))
        model_weights.assign(tf, sess, model_weights.random_weights(HPARAMS))
        tf.train.Saver().save(sess, str(folder / "model.ckpt"))
    return folder


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(made, tmp_path / "tiny"))


def restore(tf, sess, folder, hparams=HPARAMS):
    model.model(hparams, tf.placeholder(tf.int32, [None, None]))
    checkpoint.restore(sess, ModelFolder(folder).weights)
    return {v.op.name: sess.run(v) for v in tf.global_variables()}


def test_restores_every_variable_even_after_the_folder_moved(tf, sess, folder):
    expected = model_weights.random_weights(HPARAMS)
    found = restore(tf, sess, folder)
    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() for name in expected)


def test_damaged_weights_are_found_by_their_checksum(tf, sess, folder):
    data = folder / "model.ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(UserError, match=r"a checksum does not match; .*download_model") as caught:
        restore(tf, sess, folder)
    assert "\n" not in str(caught.value)


def test_weights_of_another_shape_are_refused(tf, sess, folder):
    smaller = HParams(n_vocab=13, n_ctx=11, n_embd=12, n_head=3, n_layer=2)
    with pytest.raises(UserError, match=r"holds model/wpe as \[11, 15\], not \[11, 12\]"):
        restore(tf, sess, folder, smaller)


def test_weights_that_lack_a_layer_are_refused(tf, sess, folder):
    deeper = HParams(n_vocab=13, n_ctx=11, n_embd=15, n_head=3, n_layer=3)
    with pytest.raises(UserError, match=r"holds model/h2/ln_1/g not at all; hparams.json"):
        model.model(deeper, tf.placeholder(tf.int32, [None, None]))
        checkpoint.restore(sess, folder / "model.ckpt")


def test_meta_files_hold_nothing_that_tensorflow_1_15_refuses(tf):
    # It stops at an attribute that its own VarHandleOp lacks.
    known = {"container", "shared_name", "dtype", "shape", "_class", "_output_shapes"}
    shipped = (ROOT / "models" / "1M" / "model.ckpt.meta").read_bytes()
    for meta in (shipped, checkpoint.meta_graph(HPARAMS)):
        nodes = tf.MetaGraphDef.FromString(meta).graph_def.node
        handles = [node for node in nodes if node.op == "VarHandleOp"]
        assert len(handles) > 25
        assert {key for node in handles for key in node.attr} <= known
