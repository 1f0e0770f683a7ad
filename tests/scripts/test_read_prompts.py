"""How the texts of a prompt file are read, whatever wrote the file."""

import io
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import generate_conditional_samples
from gpt2.sampling.batch import StopConditions
from gpt2.sampling.prompts import PromptFile, split_texts
from interactive_conditional_samples import Conversation
from user_error import UserError


def texts_of(path, separator="\\n"):
    return [text for _, text in PromptFile(path, separator)]


def answered_lines(monkeypatch):
    """What a conversation is asked to continue from standard input."""
    answered = []
    conversation = Conversation(lm=None, nsamples=1, ends=StopConditions())
    monkeypatch.setattr(conversation, "respond", answered.append)
    conversation.answer_lines()
    return answered


def put_in(monkeypatch, content):
    """Let standard input hold these bytes."""
    stdin = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="\n")
    monkeypatch.setattr(sys, "stdin", stdin)


@pytest.mark.parametrize(
    ("name", "content", "separator", "prompts"),
    [
        ("a.txt", b"ROMEO:\r\nJULIET:\r\n", "\\n", ["ROMEO:", "JULIET:"]),
        ("a.txt", b"A\r\nb\r\n\r\nC\r\n", "\\n\\n", ["A\nb", "C"]),
        ("a.txt", b"\xef\xbb\xbfA\r\n", "###", ["A"]),
        ("a.jsonl", b'\xef\xbb\xbf{"text": "A\\r\\nb"}\r\n\r\n', "\\n", ["A\r\nb"]),
        ("a.jsonl", b'{"text": "\\uD83D\\ude00\xf0\x9f\x98\x80"}', "\\n", ["😀😀"]),
    ],
)
def test_crlf_byte_order_marks_and_surrogate_pairs_are_understood(
    tmp_path, name, content, separator, prompts
):
    (tmp_path / name).write_bytes(content)
    assert texts_of(str(tmp_path / name), separator) == prompts


def test_crlf_and_a_byte_order_mark_are_understood_in_standard_input(monkeypatch):
    content = b"\xef\xbb\xbfROMEO:\r\n\r\nJULIET:\r\n"
    put_in(monkeypatch, content)
    assert texts_of("-") == ["ROMEO:", "JULIET:"]
    put_in(monkeypatch, content)
    assert answered_lines(monkeypatch) == ["ROMEO:", "JULIET:"]


def test_json_that_is_nested_too_deeply_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.jsonl, line 1: expected a JSON object with a text"):
        texts_of(str(path))


@pytest.mark.parametrize(
    ("name", "content", "separator", "lines"),
    [
        ("a.txt", "A\n\nB\nC\n", "\\n", [1, 3, 4]),
        ("a.txt", "A\nb\n\nC\n\n\nD", "\\n\\n", [1, 4, 6]),
        ("a.txt", "A###B\nb###C", "###", [1, 1, 2]),
        ("a.jsonl", '{"text": "A\\n"}\n\n{"text": ""}\n{"text": "B"}', "", [1, 4]),
    ],
)
def test_prompts_know_their_lines(tmp_path, name, content, separator, lines):
    (tmp_path / name).write_text(content, encoding="utf-8")
    path = str(tmp_path / name)
    places = [place for place, _ in PromptFile(path, separator)]
    assert places == [f"{path}, line {line}" for line in lines]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [("\\ud83d", "a lone surrogate"), ("word " * 600, "the prompt is too long")],
)
def test_one_wrong_prompt_among_many_is_named_by_file_and_line(
    tmp_path, monkeypatch, wrong, reason
):
    path = tmp_path / "a.jsonl"
    texts = ["fine", "fine", wrong, "fine"]
    path.write_text("".join(f'{{"text": "{text}"}}\n' for text in texts), encoding="utf-8")
    with pytest.raises(UserError, match=rf"^{path}, line 3: .*{reason}"):
        generate_conditional_samples.continue_model(prompts=str(path), model_name="1M")


@given(st.lists(st.text("a#\r\n", max_size=6)), st.sampled_from(["\n", "\n\n", "#", "##", "#a#"]))
def test_chunks_are_split_like_the_whole(chunks, separator):
    whole = "".join(chunks).replace("\r\n", "\n").removesuffix("\n")
    assert [*split_texts(chunks, separator)] == whole.split(separator)


def test_texts_that_can_be_read_once_are_read_in_each_pass(monkeypatch):
    put_in(monkeypatch, "A\nè".encode())
    prompts = PromptFile("-")
    assert [*prompts] == [*prompts] == [("-, line 1", "A"), ("-, line 2", "è")]
    receiver, sender = os.pipe()
    os.write(sender, b"A\nB\n")
    os.close(sender)
    prompts = PromptFile(f"/dev/fd/{receiver}")
    os.close(receiver)
    assert [text for _, text in prompts] == [text for _, text in prompts] == ["A", "B"]


def test_a_file_that_changes_between_two_passes_is_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("A\n", encoding="utf-8")
    prompts = PromptFile(str(path))
    assert len([*prompts]) == 1
    path.write_text("A\nB\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.txt was changed while it was read$"):
        list(prompts)
