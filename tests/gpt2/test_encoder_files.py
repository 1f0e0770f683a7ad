"""If the files of a vocabulary are damaged, the error names the file and the remedy."""

import json
import shutil

import pytest
from conftest import ROOT

from encoder import get_encoder
from gpt2.encoder_files import read_encoder
from user_error import UserError

TEXT = "She'd said they're here, we've 12 or 2019 things; の魔 中文 Ünïcödé 😀"


@pytest.fixture
def model(tmp_path):
    """A folder with the vocabulary of the 1M model."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name in ("encoder.json", "vocab.bpe"):
        shutil.copyfile(ROOT / "models/1M" / name, folder / name)
    return folder


def test_files_are_read_whatever_line_ends_and_byte_order_mark(model):
    ids = get_encoder("1M", ROOT / "models").encode(TEXT)
    assert read_encoder(model).encode(TEXT) == ids
    for name in ("encoder.json", "vocab.bpe"):
        data = (model / name).read_bytes()
        for variant in (data.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + data, data.rstrip(b"\n")):
            (model / name).write_bytes(variant)
            assert read_encoder(model).encode(TEXT) == ids


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("encoder.json", None),
        ("vocab.bpe", None),
        ("encoder.json", b'{"a": 0, "b"'),
        ("encoder.json", b"[]"),
        ("encoder.json", b'{"a": 1.5}'),
        ("encoder.json", b'{"a": 16777215}'),
        ("encoder.json", b'{"a": 0, "\\ud83d": 1}'),
        ("encoder.json", b'{"a": 1, "b": 1}'),
        ("encoder.json", b"\xff\xfe\x00"),
        ("vocab.bpe", b"#version: 0.2\na b c\n"),
    ],
)
def test_missing_or_broken_file_names_its_path_and_the_download(model, name, content):
    (model / name).unlink()
    if content is not None:
        (model / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} .*download_model.py tiny"):
        read_encoder(model)


@pytest.mark.parametrize("n_lines", [1, -1])
def test_merges_that_are_cut_short_are_refused_next_to_added_tokens(model, n_lines):
    ids = json.loads((model / "encoder.json").read_bytes()) | {"<|pad|>": 1280}
    (model / "encoder.json").write_text(json.dumps(ids), encoding="utf-8")
    lines = (model / "vocab.bpe").read_text(encoding="utf-8").splitlines(keepends=True)
    (model / "vocab.bpe").write_text("".join(lines[:n_lines]), encoding="utf-8")
    with pytest.raises(UserError, match=r"vocab.bpe is cut short .*no merge makes"):
        read_encoder(model)


def test_a_vocabulary_without_an_end_of_text_is_refused(model):
    text = (model / "encoder.json").read_text(encoding="utf-8")
    (model / "encoder.json").write_text(text.replace("endoftext", "end"), encoding="utf-8")
    with pytest.raises(UserError, match=r"encoder.json has no <\|endoftext\|>; get it again"):
        read_encoder(model)


def test_files_that_do_not_belong_together_are_refused(model):
    text = (model / "vocab.bpe").read_text(encoding="utf-8")
    (model / "vocab.bpe").write_text(text + "q zq\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"makes 'qzq', which .*download_model.py tiny"):
        read_encoder(model)
