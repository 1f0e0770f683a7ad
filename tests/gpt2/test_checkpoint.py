"""Finding models, and everything that can be wrong with their files."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import model_weights
import pytest
from conftest import ROOT

import model
from gpt2 import checkpoint
from hparams import HParams
from user_error import UserError

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
        model_weights.assign(tf, sess, model_weights.random_weights(HPARAMS))
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
    expected = model_weights.random_weights(HPARAMS)
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
    with pytest.raises(UserError, match=rf"{name}( is missing|: No such file).*download_model.py"):
        checkpoint.find_weights(folder, HPARAMS)


def test_file_that_is_cut_short_is_named_with_its_size(folder):
    data = folder / "model.ckpt.data-00000-of-00001"
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=f"{len(whole) - 1} bytes of {len(whole)}"):
        checkpoint.find_weights(folder, HPARAMS)


@pytest.mark.parametrize("name", ["checkpoint", "model.ckpt.index"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match=f"{name}.* (is missing|a pipe or a device, not a file)"):
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


def test_meta_files_hold_nothing_that_tensorflow_1_15_refuses(tf):
    # It stops at an attribute that its own VarHandleOp lacks.
    known = {"container", "shared_name", "dtype", "shape", "_class", "_output_shapes"}
    shipped = (ROOT / "models" / "1M" / "model.ckpt.meta").read_bytes()
    for meta in (shipped, checkpoint.meta_graph(HPARAMS)):
        nodes = tf.MetaGraphDef.FromString(meta).graph_def.node
        handles = [node for node in nodes if node.op == "VarHandleOp"]
        assert len(handles) > 25
        assert {key for node in handles for key in node.attr} <= known


def test_a_larger_n_ctx_in_hparams_is_not_blamed_on_the_weights(folder):
    larger = HParams(**{**HPARAMS.values(), "n_ctx": 4096})
    with pytest.raises(
        UserError, match=r"hparams\.json is of another model: it needs \d+"
    ) as caught:
        checkpoint.find_weights(folder, larger)
    assert "download" not in str(caught.value)


@pytest.fixture
def vocabulary(tmp_path):
    """A copy of the embedded model's vocabulary, and what adds tokens to it."""
    for name in ("encoder.json", "vocab.bpe"):
        shutil.copyfile(ROOT / "models" / "1M" / name, tmp_path / name)
    path = tmp_path / "encoder.json"

    def add(tokens):
        text = path.read_text(encoding="utf-8")
        path.write_text(json.dumps(json.loads(text) | tokens), encoding="utf-8")

    return SimpleNamespace(folder=tmp_path, add=add)


@pytest.mark.parametrize("n_vocab", [1280, 1282, 1344, 2304])
@pytest.mark.parametrize(
    "tokens", [{"<|pad|>": 1280, "ĠROMEOĠROMEO": 1281}, {"<|pad|>": 1281, "zyzzyva": 1300}]
)
def test_tokens_that_were_added_load_with_a_line_that_says_so(vocabulary, caplog, n_vocab, tokens):
    vocabulary.add(tokens)
    encoder = checkpoint.load_encoder(vocabulary.folder, HParams(n_vocab=n_vocab))
    assert encoder.decode(encoder.encode("What, The <|pad|>")) == "What, The <|pad|>"
    assert encoder.decode([1281]) in ("ROMEO ROMEO", " ROMEO ROMEO", "<|pad|>")
    checkpoint.load_encoder(vocabulary.folder, HParams(n_vocab=n_vocab))
    (said,) = caplog.messages
    assert "irregular vocabulary: no merge makes 2 of the tokens in encoder.json, '<|pad|>'" in said


@pytest.mark.parametrize("n_vocab", [1000, 1279, 1280 + 1025, 50257])
def test_a_vocabulary_of_another_size_is_refused(n_vocab):
    with pytest.raises(UserError, match=f"hparams.json says {n_vocab} tokens, encoder.json has"):
        checkpoint.load_encoder(ROOT / "models" / "1M", HParams(n_vocab=n_vocab))


def test_merges_that_are_cut_short_are_refused_next_to_added_tokens(vocabulary):
    vocabulary.add({"<|pad|>": 1280})
    path = vocabulary.folder / "vocab.bpe"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for end in (0, 1, 500, -1):
        path.write_text("".join(lines[:end]), encoding="utf-8")
        with pytest.raises(UserError, match=r"vocab.bpe is cut short"):
            checkpoint.load_encoder(vocabulary.folder, HParams(n_vocab=1281))


def test_a_run_folder_of_a_fork_names_the_files_to_copy(tmp_path):
    run = tmp_path / "run1"
    run.mkdir()
    for name in ["checkpoint", "counter", "model-6.index", "model-6.meta"]:
        (run / name).touch()
    with pytest.raises(UserError) as caught:
        checkpoint.load_hparams(run)
    message = str(caught.value)
    assert f"copy hparams.json, encoder.json, vocab.bpe to {run} from the model" in message
    assert "download" not in message
