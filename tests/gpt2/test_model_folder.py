"""Finding models, and everything that can be wrong with their files."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import ROOT

from gpt2.model_folder import ModelFolder, find_model, newest_weights
from user_error import UserError

MODEL = ROOT / "models" / "1M"
JSON = (MODEL / "hparams.json").read_text(encoding="utf-8")
DATA = "model.ckpt.data-00000-of-00001"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of 1M to break."""
    return Path(shutil.copytree(MODEL, tmp_path / "tiny"))


def change(path: Path, **fields: object) -> None:
    """Set fields of a JSON object in a file."""
    values = json.loads(path.read_text(encoding="utf-8")) | fields
    path.write_text(json.dumps(values), encoding="utf-8")


def test_finds_a_model_from_the_working_directory_then_from_the_repository(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    for name in ("MODELS", "HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(folder.parent))
    for models_dir in (".", "$MODELS", "~"):
        assert find_model("tiny", models_dir).path.samefile(folder)
    assert find_model("1M").path == MODEL


@pytest.mark.parametrize("name", ["", "..", "/"])
def test_a_model_needs_a_name(tmp_path, name):
    with pytest.raises(UserError, match="--model_name must be the name of a folder, got"):
        find_model(name, str(tmp_path))


@pytest.mark.parametrize(
    ("name", "command"), [("345M", "download_model.py 345M"), ("x", "download_model.py 117M")]
)
def test_unknown_model_names_folder_and_command(tmp_path, name, command):
    with pytest.raises(UserError) as caught:
        find_model(name, str(tmp_path))
    assert str(tmp_path / name) in str(caught.value)
    assert str(caught.value).endswith(command)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "hparams.json: Expecting property name"),
        ("[]", "hparams.json: expected an object with n_vocab"),
        (JSON.replace('"n_ctx": 256, ', ""), "hparams.json: n_ctx is missing"),
        (JSON.replace("{", '{"n_heads": 2, '), "hparams.json: unknown hyperparameter 'n_heads'"),
        (JSON.replace("128,", "-128,"), "hparams.json: n_embd must be a whole number"),
        ("\xff", r"hparams.json: .*utf-8"),
    ],
)
def test_broken_hparams_are_named(tmp_path, text, message):
    (tmp_path / "hparams.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=message) as caught:
        _ = ModelFolder(tmp_path).hparams
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["checkpoint", "model.ckpt.index", DATA])
def test_missing_file_is_named(folder, name):
    assert ModelFolder(folder).is_complete()
    (folder / name).unlink()
    with pytest.raises(UserError, match=rf"{name}( is missing|: No such file).*download_model.py"):
        _ = ModelFolder(folder).weights
    assert not ModelFolder(folder).is_complete()


def test_weights_without_the_other_files_lead_to_the_model_that_was_fine_tuned(folder):
    """As nshepperd's code and gpt-2-simple save them."""
    (folder / "hparams.json").unlink()
    with pytest.raises(UserError, match=r"hparams.json: No such file .*; copy hparams.json, enc"):
        _ = ModelFolder(folder).hparams


def test_weights_smaller_than_the_model_may_be_cut_short_or_of_another_one(folder):
    size = (folder / DATA).stat().st_size
    change(folder / "hparams.json", n_ctx=257)
    both = f"has {size} bytes of weights, and hparams.json needs {size + 4 * 128}: .*download"
    with pytest.raises(UserError, match=both):
        _ = ModelFolder(folder).weights
    assert not ModelFolder(folder).is_complete()


def test_weights_may_be_in_several_files_of_which_none_is_missing(folder):
    """As TensorFlow writes them where variables lie on several devices."""
    parts = [folder / f"model.ckpt.data-0000{i}-of-00002" for i in range(2)]
    whole = (folder / DATA).read_bytes()
    for part, content in zip(parts, (whole[:1000], whole[1000:]), strict=True):
        part.write_bytes(content)
    (folder / DATA).unlink()
    assert ModelFolder(folder).is_complete()
    parts[1].unlink()
    with pytest.raises(UserError, match=rf"{parts[1].name} is missing"):
        _ = ModelFolder(folder).weights


@pytest.mark.parametrize(
    ("n_vocab", "tokens"),
    [
        (1280, {"<|pad|>": 1280, "ĠROMEOĠROMEO": 1281}),  # without rows for them
        (2304, {"<|pad|>": 1281, "zyzzyva": 1300}),
    ],
)
def test_tokens_that_were_added_load_with_a_line_about_them(folder, caplog, n_vocab, tokens):
    change(folder / "encoder.json", **tokens)
    change(folder / "hparams.json", n_vocab=n_vocab)
    encoder = ModelFolder(folder).encoder
    assert encoder.decode(encoder.encode("What, The <|pad|>")) == "What, The <|pad|>"
    assert encoder.decode([1281]) in ("ROMEO ROMEO", " ROMEO ROMEO", "<|pad|>")
    _ = ModelFolder(folder).encoder
    (line,) = caplog.messages
    assert "no merge makes 2 of the tokens" in line and "'<|pad|>'" in line


@pytest.mark.parametrize("n_vocab", [1279, 1280 + 1025])
def test_a_vocabulary_of_another_size_is_refused(folder, n_vocab):
    change(folder / "hparams.json", n_vocab=n_vocab)
    with pytest.raises(UserError, match=f"hparams.json has {n_vocab} tokens, encoder.json has"):
        _ = ModelFolder(folder).encoder


def test_the_fingerprint_is_of_the_content_and_not_of_names_and_spelling(folder):
    expected = ModelFolder(MODEL).fingerprint
    for path in folder.glob("model.ckpt*"):
        path.rename(path.with_name(path.name.replace("model.ckpt", "model-7")))
    (folder / "checkpoint").write_text('model_checkpoint_path: "model-7"', encoding="utf-8")
    for name in ("hparams.json", "encoder.json"):
        values = dict(reversed(json.loads((folder / name).read_bytes()).items()))
        (folder / name).write_text(json.dumps(values, indent=1), encoding="utf-8")
    assert ModelFolder(folder).fingerprint == expected


def exchange_tokens(folder: Path) -> None:
    ids = json.loads((folder / "encoder.json").read_bytes())
    change(folder / "encoder.json", a=ids["b"], b=ids["a"])


def exchange_merges(folder: Path) -> None:
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")
    lines[1], lines[2] = lines[2], lines[1]
    (folder / "vocab.bpe").write_text("\n".join(lines), encoding="utf-8")


def change_a_weight(folder: Path) -> None:
    index = bytearray((folder / "model.ckpt.index").read_bytes())
    index[index.index(b"\x35", index.index(b"model/h0")) + 1] ^= 1  # a checksum of a tensor
    (folder / "model.ckpt.index").write_bytes(index)


@pytest.mark.parametrize(
    "change_it",
    [
        exchange_tokens,
        exchange_merges,
        change_a_weight,
        lambda folder: change(folder / "hparams.json", n_head=2),
    ],
)
def test_the_fingerprint_covers_all_that_a_model_consists_of(folder, change_it):
    change_it(folder)
    assert ModelFolder(folder).fingerprint != ModelFolder(MODEL).fingerprint


@pytest.mark.parametrize(
    "text",
    [
        'model_checkpoint_path: "model-6"\nall_model_checkpoint_paths: "model-3"\n',
        "model_checkpoint_path: 'model-6'",
        '  model_checkpoint_path :"model-6"  # the last one',
        'model_checkpoint_path: "/home/me/caf\\303\\251/a:b # c/model-6"',
        r'model_checkpoint_path: "C:\Users\me\run\model-6"',
    ],
)
def test_the_file_checkpoint_is_read_as_tensorflow_and_people_write_it(tmp_path, text):
    (tmp_path / "checkpoint").write_text(text, encoding="utf-8")
    assert newest_weights(tmp_path) == tmp_path / "model-6"


@pytest.mark.parametrize(
    "text",
    [b"<html>", b'model_checkpoint_path: "run/"', b'model_checkpoint_path: "\xff"',
     b'model_checkpoint_path: "\x1b[31mred"', b'model_checkpoint_path: "' + b"m" * 5000 + b'"'],
)  # fmt: skip
def test_a_file_checkpoint_that_names_no_file_is_refused(tmp_path, text):
    (tmp_path / "checkpoint").write_bytes(text)
    with pytest.raises(UserError, match="has no line of the form model_checkpoint_path"):
        newest_weights(tmp_path)
