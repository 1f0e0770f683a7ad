"""Which texts files hold."""

import io
import json

import pytest
from scoring import MadeUp

from gpt2.evaluation.texts import Text, check_files, counted, is_list, read_texts
from gpt2.terminal import log_once
from gpt2.text_stream import Counts
from user_error import UserError


def test_each_file_and_standard_input_is_a_text(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"typed")))
    (tmp_path / "a.txt").write_text("This is a", encoding="utf-8")
    files = [str(tmp_path / "a.txt"), "-"]
    check_files(files)
    assert [(text.name, "".join(text.chunks)) for text in read_texts(files)] == [
        ("a.txt", "This is a"),
        ("standard input", "typed"),
    ]
    assert is_list(files)
    assert not is_list(files[:1])
    with pytest.raises(UserError, match="only once"):
        check_files(["-", "-"])


def test_json_lines_are_texts_and_samples_come_after_their_prompts(tmp_path):
    path = tmp_path / "dump.jsonl"
    records = [
        {"text": "no number"},
        {"synthetic": True, "number": 7, "prompt": "ROMEO:", "text": " Ay me"},
        {"number": 8, "prompt": None, "text": ""},
    ]
    path.write_text("\n\n".join(map(json.dumps, records)), encoding="utf-8")
    assert is_list([str(path)])
    texts = list(read_texts([str(path)]))
    assert [(text.name, text.context, *text.chunks) for text in texts] == [
        ("1", "", "no number"),
        ("7", "ROMEO:", " Ay me"),
        ("8", "", ""),
    ]
    assert next(read_texts([str(path), "other"])).name == "dump.jsonl 1"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": 5}', "expected a JSON object with a text"),
        ('{"text": "a", "prompt": [1]}', "the prompt is not text"),
    ],
)
def test_a_line_without_a_text_is_named(tmp_path, line, message):
    path = tmp_path / "broken.jsonl"
    path.write_text('{"text": "fine"}\n' + line, encoding="utf-8")
    with pytest.raises(UserError, match=f"broken.jsonl, line 2: {message}"):
        list(read_texts([str(path)]))


def test_the_end_of_text_in_a_text_is_ordinary_and_reported_once(caplog):
    log_once.cache_clear()
    text, counts = "One.<|endoftext|>Zwei für\n <|endoftext|>", Counts()
    assert "".join(counted([text], Counts())) == "".join(counted(text, counts)) == text
    assert (counts.words, counts.characters, counts.bytes) == (3, 40, 41)
    (record,) = caplog.records
    assert "contains <|endoftext|>, which is scored as ordinary characters" in record.message


def test_a_prompt_is_seen_and_not_scored():
    scorer = MadeUp()
    text = Text("a", [" Ay me"], "ROMEO:")
    assert "".join(token.text for (token,) in text.score([scorer])) == " Ay me"
    assert scorer.encoder.decode(scorer.seen[0].ids) == "<|endoftext|>ROMEO: Ay me"
    assert text.totals[0]["bytes"] == 6


def test_half_a_character_is_an_error():
    with pytest.raises(UserError, match="lone surrogate"):
        list(Text("a", ["\ud800"]).score([MadeUp()]))
