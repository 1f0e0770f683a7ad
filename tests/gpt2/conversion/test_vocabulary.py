"""Vocabularies in both formats; none of this needs TensorFlow or transformers."""

import json

import pytest
import tokenizers
from conftest import ROOT, shared

from encoder import Encoder, get_encoder
from gpt2.conversion.vocabulary import read_vocabulary, write_hugging_face, write_released
from hparams import HParams
from user_error import UserError

HPARAMS = HParams(n_vocab=1280)
TEXT = "ROMEO: I'll  say 3½ 中文 🙂 of 'em\n\n\tNay!  "
TOKENIZER = "tokenizer.json"


@pytest.fixture(scope="module")
def encoder():
    return get_encoder("1M", str(ROOT / "models"))


@pytest.fixture
def folder(encoder, tmp_path):
    """The vocabulary of 1M in Hugging Face's format."""
    write_hugging_face(tmp_path, encoder, HPARAMS)
    return tmp_path


def change(path, **fields):
    values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(values | fields), encoding="utf-8")


def change_part(folder, part, **fields):
    values = json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))
    change(folder / TOKENIZER, **{part: (values[part] or {}) | fields})


def test_the_tokenizers_library_gives_the_same_ids(encoder, folder):
    theirs = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER))
    assert theirs.encode(TEXT).ids == encoder.encode(TEXT)
    assert theirs.decode(encoder.encode(TEXT)) == TEXT
    assert theirs.encode("a<|endoftext|>").ids[-1] == encoder.encoder["<|endoftext|>"]


@pytest.mark.parametrize("kept", [[TOKENIZER], ["vocab.json", "merges.txt"]])
def test_either_set_of_files_will_do(encoder, folder, kept):
    for path in folder.iterdir():
        if path.name not in kept:
            path.unlink()
    ids, merges = read_vocabulary(folder, 1280)
    assert list(ids.items()) == list(encoder.encoder.items())
    assert merges == list(encoder.bpe_ranks)


def test_the_released_vocabulary_comes_back_byte_for_byte(tmp_path):
    release = shared("gpt2")
    write_hugging_face(tmp_path, get_encoder("gpt2", str(release.parent)), HParams())
    ids, merges = read_vocabulary(tmp_path, 50257)
    write_released(tmp_path, ids, merges)
    for ours, theirs in [("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")]:
        assert (tmp_path / ours).read_bytes() == (release / ours).read_bytes()
        assert (tmp_path / theirs).read_bytes() == (release / ours).read_bytes()


def test_merges_may_lack_the_version_and_end_lines_in_any_way(encoder, folder):
    (folder / TOKENIZER).unlink()
    path = folder / "merges.txt"
    lines = path.read_text(encoding="utf-8").split("\n")
    path.write_bytes("\ufeff".encode() + "\r\n".join(lines[1:]).encode())
    assert read_vocabulary(folder, 1280)[1] == list(encoder.bpe_ranks)


@pytest.mark.parametrize("place", ["tokenizer.json", "added_tokens.json"])
def test_added_tokens_keep_their_text_and_id(folder, place):
    if place == "added_tokens.json":
        (folder / TOKENIZER).unlink()
        change(folder / place, **{"<new é>": 1280})
    else:
        old = {"id": 1279, "content": "<|endoftext|>"}
        change(folder / place, added_tokens=[old, {"id": 1280, "content": "<new é>"}])
    ids, merges = read_vocabulary(folder, 1281)
    made = Encoder(ids, merges)
    assert made.decode([1280]) == "<new é>"
    assert made.regular

    write_hugging_face(folder, made, HParams(n_vocab=1281))
    theirs = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER))
    assert theirs.encode("a<new é>").ids[-1] == 1280
    assert theirs.decode([1280], skip_special_tokens=False) == "<new é>"
    assert read_vocabulary(folder, 1281) == (ids, merges)


def test_an_added_token_with_another_id_is_named(folder):
    change(folder / TOKENIZER, added_tokens=[{"id": 1280, "content": "!"}])
    with pytest.raises(UserError, match=r"tokenizer.json: the added token '!' has two ids"):
        read_vocabulary(folder, 1300)


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        ("normalizer", {"type": "NFC"}, "normalizer is 'NFC'; GPT-2's is None"),
        ("pre_tokenizer", {"add_prefix_space": True}, "add_prefix_space is set"),
        ("pre_tokenizer", {"use_regex": False}, "use_regex false is set"),
        ("model", {"type": "Unigram"}, "model is 'Unigram'; GPT-2's is 'BPE'"),
        ("model", {"ignore_merges": True}, "ignore_merges is set, which gives other token ids"),
        ("model", {"vocab": []}, "not have the format of a BPE tokenizer"),
        ("model", {"merges": [["a", 1]]}, "not have the format of a BPE tokenizer"),
    ],
)
def test_other_rules_and_broken_tables_are_named(folder, part, fields, message):
    change_part(folder, part, **fields)
    with pytest.raises(UserError, match=message) as caught:
        read_vocabulary(folder, 1280)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "value"),
    [("model", None), ("pre_tokenizer", "BPE"), ("added_tokens", 1)],
)
def test_parts_of_another_type_are_no_traceback(folder, part, value):
    change(folder / TOKENIZER, **{part: value})
    with pytest.raises(UserError, match=TOKENIZER):
        read_vocabulary(folder, 1280)


@pytest.mark.parametrize("name", ["add_prefix_space", "add_bos_token"])
def test_settings_that_add_to_a_text_are_refused(folder, name):
    change(folder / "tokenizer_config.json", **{name: True})
    with pytest.raises(UserError, match=f"tokenizer_config.json: {name} is set"):
        read_vocabulary(folder, 1280)


def test_a_vocabulary_without_an_end_is_refused(folder):
    text = (folder / TOKENIZER).read_text(encoding="utf-8").replace("<|endoftext|>", "</s>")
    (folder / TOKENIZER).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"has no .*endoftext"):
        read_vocabulary(folder, 1280)


def test_merges_that_are_missing_or_no_text_are_named(folder):
    (folder / TOKENIZER).unlink()
    (folder / "merges.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"merges.txt is not UTF-8 text"):
        read_vocabulary(folder, 1280)
    (folder / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"neither tokenizer.json nor vocab.json with merges.txt"):
        read_vocabulary(folder, 1280)
