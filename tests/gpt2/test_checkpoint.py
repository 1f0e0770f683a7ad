"""Restoring a model's variables, and the graph that is written next to them."""

import dataclasses
import shutil

import pytest
from conftest import ROOT

import model
from gpt2 import checkpoint
from gpt2.model_folder import ModelFolder
from user_error import UserError


def restore(tf, sess, folder, hparams):
    model.model(hparams, tf.placeholder(tf.int32, [None, None]))
    checkpoint.restore(sess, folder / "model.ckpt")
    return {v.op.name: sess.run(v) for v in tf.global_variables()}


def test_restores_every_variable(tf, sess, tiny):
    found = restore(tf, sess, tiny.folder, tiny.hparams)
    assert found.keys() == tiny.weights.keys()
    assert all((found[name] == tiny.weights[name]).all() for name in found)


def test_damaged_weights_are_found_by_their_checksum(tf, sess, tiny, tmp_path):
    folder = shutil.copytree(tiny.folder, tmp_path / "tiny")
    data = folder / "model.ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    assert ModelFolder(folder).is_complete()
    with pytest.raises(UserError, match=r"a checksum does not match; .*download_model") as caught:
        restore(tf, sess, folder, tiny.hparams)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("n_embd", 15, r"holds model/wpe as \[512, 12\], not \[512, 15\]; hparams.json"),
        ("n_layer", 3, r"has no variable model/h2/ln_1/g; hparams.json"),
    ],
)
def test_weights_of_another_shape_are_refused(tf, sess, tiny, field, value, message):
    with pytest.raises(UserError, match=message):
        restore(tf, sess, tiny.folder, dataclasses.replace(tiny.hparams, **{field: value}))


def test_meta_files_hold_nothing_that_tensorflow_1_15_refuses(tf, tiny):
    # It stops at an attribute that its own VarHandleOp lacks.
    known = {"container", "shared_name", "dtype", "shape", "_class", "_output_shapes"}
    shipped = (ROOT / "models" / "1M" / "model.ckpt.meta").read_bytes()
    for meta in (shipped, checkpoint.meta_graph(tiny.hparams)):
        nodes = tf.MetaGraphDef.FromString(meta).graph_def.node
        handles = [node for node in nodes if node.op == "VarHandleOp"]
        assert len(handles) > 25
        assert {key for node in handles for key in node.attr} <= known
