"""Texts become token ids once, whatever way they are named; what is no text is named."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from encoder import get_encoder
from gpt2 import checkpoint
from gpt2.training import dataset
from hparams import HParams, UserError

MODEL = ROOT / "models" / "1M"
HPARAMS = checkpoint.load_hparams(MODEL)
END = 1279  # <|endoftext|> in this vocabulary


def encode(text, **flags):
    return get_encoder("1M", str(MODEL.parent)).encode(text, **flags)


def load(path, cache):
    return dataset.load_tokens(str(path), MODEL, HPARAMS, cache)


@pytest.fixture
def texts(tmp_path):
    """Two texts and an empty one in a folder, and one a folder further down."""
    folder = tmp_path / "texts"
    (folder / "more").mkdir(parents=True)
    (folder / "a.txt").write_text("Speak, speak.", encoding="utf-8")
    (folder / "b.txt").write_text("", encoding="utf-8")
    (folder / "c.txt").write_text("Resolved rather to die\n", encoding="utf-8")
    (folder / ".hidden").write_bytes(b"\xff")
    (folder / "more" / "d.md").write_text("No more talking", encoding="utf-8")
    return folder


def test_texts_of_a_folder_have_one_end_of_text_between_them(texts, tmp_path):
    parts = ["Speak, speak.", "Resolved rather to die\n", "No more talking"]
    expected = [i for part in parts for i in [END, *encode(part)]][1:]
    tokens = load(texts, tmp_path)
    assert tokens.tolist() == expected
    assert tokens.dtype == np.uint16


def test_a_pattern_names_some_of_them(texts, tmp_path, monkeypatch):
    expected = [*encode("Speak, speak."), END, *encode("Resolved rather to die\n")]
    assert load(texts / "*.txt", tmp_path).tolist() == expected
    monkeypatch.chdir(texts.parent)
    assert load("texts/[ac].txt", tmp_path).tolist() == expected


def test_end_of_text_inside_a_file_is_a_single_id(tmp_path):
    path = tmp_path / "text"
    path.write_text("Speak.<|endoftext|>Speak.", encoding="utf-8")
    assert load(path, tmp_path).tolist() == [*encode("Speak."), END, *encode("Speak.")]


def test_a_long_text_has_the_ids_of_the_whole(tmp_path):
    text = "My lord, 中文 <|endoftext|>it is\r\n" * 6000  # several chunks of corpus.read_text
    path = tmp_path / "text"
    path.write_bytes(text.encode())
    assert load(path, tmp_path).tolist() == encode(text, allow_special=True)


def test_a_text_is_encoded_once_and_again_when_it_changed(texts, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    path = texts / "a.txt"
    first = load(path, cache)
    calls = []
    real = dataset.encode_files
    monkeypatch.setattr(dataset, "encode_files", lambda *a: calls.append(a) or real(*a))
    assert load(path, cache).tolist() == first.tolist()
    assert not calls
    path.write_text("Speak, speak. Speak.", encoding="utf-8")
    assert load(path, cache).tolist() == encode("Speak, speak. Speak.")
    assert len(calls) == 1
    assert {file.suffix for file in cache.iterdir()} == {".npz"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file, and no files that match"),
        (b"", "is empty"),
        (b"\xff" * 100, "is not UTF-8 text: invalid start byte"),
        (b"text\0" * 100, "is not a text file: it contains NUL bytes"),
    ],
)
def test_a_dataset_that_is_no_text_is_named(tmp_path, content, message):
    path = tmp_path / "text"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load(path, tmp_path / "cache")
    assert str(path) in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_arrays_of_other_programs_are_taken_one_after_the_other(tmp_path):
    np.savez(tmp_path / "a.npz", np.array([1, 2]), np.array([[3, END]]))
    assert load(tmp_path / "a.npz", tmp_path).tolist() == [1, 2, 3, END]


@pytest.mark.parametrize(
    ("array", "message"),
    [([0.5], "holds float64"), ([1280], "not from 0 to"), ([-1], "not from 0 to")],
)
def test_arrays_that_are_no_ids_are_refused(tmp_path, array, message):
    np.savez(tmp_path / "a.npz", np.array(array))
    with pytest.raises(UserError, match=message):
        load(tmp_path / "a.npz", tmp_path)


def test_an_npz_that_is_torn_or_of_another_vocabulary_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    dataset.write_tokens(path, np.arange(3000, dtype=np.uint16), MODEL)
    with pytest.raises(UserError, match="vocabulary of another model"):
        dataset.read_tokens(path, "other", 1280)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"is no \.npz of token ids"):
        dataset.read_tokens(path, "other", 1280)


def test_the_script_makes_what_training_takes(texts, tmp_path):
    output = tmp_path / "out.npz"
    script = [sys.executable, str(ROOT / "src" / "encode.py"), str(texts), str(output)]
    done = subprocess.run([*script, "--model_name", "1M"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert load(output, tmp_path).tolist() == load(texts, tmp_path).tolist()


def test_both_parts_of_a_text_must_hold_a_window():
    training, testing = dataset.split(np.arange(100), 0.1, 9)
    assert (training.tolist(), testing.tolist()) == ([*range(90)], [*range(90, 100)])
    with pytest.raises(UserError, match="too short: 10 of its 100 tokens are held out"):
        dataset.split(np.arange(100), 0.1, 10)
    with pytest.raises(UserError, match="too short: 10 of its 100 tokens are to train on"):
        dataset.split(np.arange(100), 0.9, 10)
    assert len(dataset.split(np.arange(100), 0, 99)[1]) == 0


def test_random_windows_are_neighbouring_tokens_and_depend_on_the_seed_alone():
    tokens = np.arange(100, dtype=np.uint16) * 3
    windows = dataset.random_windows(tokens, 7, 500, seed=[1, 2])
    assert windows.shape == (500, 8)
    assert (np.diff(windows) == 3).all()
    assert {*windows[:, 0]} == {*tokens[:93]}
    np.testing.assert_array_equal(windows, dataset.random_windows(tokens, 7, 500, seed=[1, 2]))
    assert not np.array_equal(windows, dataset.random_windows(tokens, 7, 500, seed=[1, 3]))


@given(st.integers(0, 60), st.integers(1, 9), st.integers(1, 9))
def test_neighbouring_windows_predict_no_token_twice(n, window, most):
    windows = dataset.neighbouring_windows(np.arange(n), window, most)
    assert windows.shape == (min(most, max(n - 1, 0) // window), window + 1)
    predicted = windows[:, 1:].ravel().tolist()
    assert len({*predicted}) == len(predicted)
    assert {*predicted} <= {*range(1, n)}


def test_a_vocabulary_of_another_size_is_refused():
    with pytest.raises(UserError, match=r"hparams\.json says 1000 tokens, encoder\.json has 1280"):
        checkpoint.load_encoder(MODEL, HParams(n_vocab=1000))
