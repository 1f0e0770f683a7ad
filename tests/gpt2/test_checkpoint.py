"""Finding models, and everything that can be wrong with their files."""

import shutil
from pathlib import Path

import pytest
from conftest import ROOT

import model
import numpy_gpt2
from gpt2 import checkpoint
from hparams import HParams, UserError

HPARAMS = HParams(n_vocab=13, n_ctx=11, n_embd=15, n_head=3, n_layer=2)
JSON = '{"n_vocab": 13, "n_ctx": 11, "n_embd": 15, "n_head": 3, "n_layer": 2}'


@pytest.fixture(scope="module")
def made(tf, tmp_path_factory) -> Path:
    """A checkpoint with random weights, written by TensorFlow's own saver."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    (folder / "hparams.json").write_text(JSON, encoding="utf-8")
    with tf.Graph().as_default(), tf.Session() as sess:
        model.model(HPARAMS, tf.placeholder(tf.int32, [None, None]))
        numpy_gpt2.assign(tf, sess, numpy_gpt2.random_weights(HPARAMS))
        tf.train.Saver().save(sess, str(folder / "model.ckpt"))
    return folder


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(made, tmp_path / "tiny"))


def restore(tf, sess, folder, hparams=HPARAMS):
    model.model(hparams, tf.placeholder(tf.int32, [None, None]))
    checkpoint.restore(sess, checkpoint.find_weights(folder, hparams))
    return {v.op.name: sess.run(v) for v in tf.global_variables()}


def test_restores_every_variable_even_after_the_folder_moved(tf, sess, folder):
    expected = numpy_gpt2.random_weights(HPARAMS)
    found = restore(tf, sess, folder)
    assert found.keys() == expected.keys()
    assert all((found[name] == expected[name]).all() for name in expected)


def test_finds_a_model_from_the_working_directory_then_from_the_repository(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert checkpoint.find_model("tiny", ".").samefile(folder)
    assert checkpoint.find_model("1M") == ROOT / "models" / "1M"


def test_models_dir_expands_home_and_variables(folder, monkeypatch):
    monkeypatch.setenv("MODELS", str(folder.parent))
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent))
    assert checkpoint.find_model("tiny", "$MODELS").samefile(folder)
    assert checkpoint.find_model("tiny", "~").samefile(folder)


@pytest.mark.parametrize("name", ["", ".", "..", "/"])
def test_a_model_needs_a_name(folder, name):
    with pytest.raises(UserError, match="--model_name must be the name of a folder, got"):
        checkpoint.find_model(name, str(folder))


@pytest.mark.parametrize(
    ("name", "command"), [("345M", "download_model.py 345M"), ("x", "download_model.py 117M")]
)
def test_unknown_model_names_folder_and_command(tmp_path, name, command):
    with pytest.raises(UserError) as caught:
        checkpoint.find_model(name, str(tmp_path))
    assert str(tmp_path / name) in str(caught.value)
    assert str(caught.value).endswith(command)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "hparams.json: Expecting property name"),
        ("[" * 100_000, "hparams.json: the JSON is nested too deeply"),
        ("[]", "hparams.json: expected an object with n_vocab"),
        (JSON.replace('"n_ctx": 11, ', ""), "hparams.json: n_ctx is missing"),
        (JSON.replace("n_ctx", "n_contex"), "hparams.json: n_ctx is missing"),
        (JSON.replace("{", '{"n_heads": 2, '), "hparams.json: unknown hyperparameter 'n_heads'"),
        (JSON.replace("15", "-15"), "hparams.json: n_embd must be a whole number"),
    ],
)
def test_broken_hparams_are_named(folder, text, message):
    (folder / "hparams.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        checkpoint.load_hparams(folder)
    assert "\n" not in str(caught.value)


def test_hparams_that_are_no_text_are_named(folder):
    (folder / "hparams.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"hparams.json: .*utf-8"):
        checkpoint.load_hparams(folder)


@pytest.mark.parametrize(
    "name", ["checkpoint", "model.ckpt.index", "model.ckpt.data-00000-of-00001"]
)
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing.*download_model.py"):
        checkpoint.find_weights(folder, HPARAMS)


def test_file_that_is_cut_short_is_named_with_its_size(folder):
    data = folder / "model.ckpt.data-00000-of-00001"
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=f"{len(whole) - 1} bytes of {len(whole)}"):
        checkpoint.find_weights(folder, HPARAMS)


def test_checkpoint_file_that_names_nothing_is_named(folder):
    (folder / "checkpoint").write_text("<html>", encoding="utf-8")
    with pytest.raises(UserError, match="names no model_checkpoint_path"):
        checkpoint.find_weights(folder, HPARAMS)


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


def test_a_byte_order_mark_before_hparams_is_dropped(folder):
    path = folder / "hparams.json"
    before = checkpoint.load_hparams(folder)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert checkpoint.load_hparams(folder) == before


@pytest.mark.parametrize(
    ("size", "origin"),
    [(497759232, "117M, judging by its size"), (1419292672, "345M, judging"), (5, "117M, for ex")],
)
def test_a_run_folder_of_a_fork_names_the_files_to_copy_and_their_model(tmp_path, size, origin):
    run = tmp_path / "run1"
    run.mkdir()
    for name in ["checkpoint", "counter", "model-6.index", "model-6.meta"]:
        (run / name).touch()
    with (run / "model-6.data-00000-of-00001").open("wb") as file:
        file.truncate(size)
    with pytest.raises(UserError) as caught:
        checkpoint.load_hparams(run)
    message = str(caught.value)
    assert f"copy hparams.json, encoder.json, vocab.bpe to {run} from the model" in message
    assert origin in message
    assert "download" not in message
