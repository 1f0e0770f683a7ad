"""Restoring a model's variables, and the graph that is written next to them."""

import dataclasses
import shutil

import pytest
from conftest import ROOT

import model
from gpt2 import checkpoint
from gpt2.download.released_files import DATA, INDEX
from user_error import UserError


def restore(tf, sess, folder, hparams):
    model.model(hparams, tf.placeholder(tf.int32, [None, None]))
    checkpoint.restore(sess, folder / "model.ckpt")
    return {v.op.name: sess.run(v) for v in tf.global_variables()}


def test_restores_every_variable(tf, sess, tiny):
    found = restore(tf, sess, tiny.folder, tiny.hparams)
    assert found.keys() == tiny.weights.keys()
    assert all((found[name] == tiny.weights[name]).all() for name in found)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (DATA, lambda content: bytes([content[0] ^ 1]) + content[1:]),
        (DATA, lambda content: content[:-10]),
        (INDEX, lambda content: b""),
        (INDEX, lambda content: content[:-10]),
        (INDEX, lambda content: bytes([content[0] ^ 1]) + content[1:]),
    ],
)
def test_damaged_files_are_found_while_they_are_read(tf, sess, tiny, tmp_path, name, damage):
    folder = shutil.copytree(tiny.folder, tmp_path / "tiny")
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(UserError, match=r"is damaged: .*download_model") as caught:
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
