"""The evaluation script as a user runs it."""

import io
import json
import re
import shutil

import pytest
from conftest import ROOT

import evaluate
from gpt2.evaluation import tasks
from user_error import UserError

EVALUATE = ROOT / "src" / "evaluate.py"
DATA = ROOT / "tests" / "data"


@pytest.fixture
def flags(tiny):
    """Flags that choose the tiny model."""
    return {"model_name": "tiny", "models_dir": str(tiny.folder.parent)}


def test_progress_is_shown_on_a_terminal_until_the_end(flags, monkeypatch, capsys):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    evaluate.perplexity(str(DATA / "enwik8"), **flags)
    assert re.search(r"enwik8: 100%.* 155/155 ", terminal.getvalue())
    assert "bits per byte" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", EVALUATE, "nowhere"], "nowhere: no such file"),
        (["perplexity", EVALUATE, "--state", "no/where"], "no/where: no such folder"),
        (["task", "ptb", EVALUATE, "--models_dir", "."], f"{EVALUATE}: the first line should"),
        (["score", "empty", "--model_name", "1M"], "the text is empty"),
        (["score", "empty.jsonl", "--model_name", "1M"], "empty.jsonl: no texts in it"),
        (["score", "empty", "empty", "--top", 2], "--top needs a single text, or --format html"),
        (["score", EVALUATE, "--format", "pdf"], "format must be one of table, jsonl, html, got"),
        (["perplexity", EVALUATE, "--window", 999, "--model_name", "1M"], "window must be from 1"),
        (["perplexity", "-", "--state", "x"], "--state needs a file"),
        (["task", "lambda", EVALUATE], "no task 'lambda'; it is one of lambada, cbt-cn"),
        (["paper", "--data_dir", "."], "--data_dir: no file of a task in ., such as"),
    ],
)
def test_errors_are_one_line_before_tensorflow_is_imported(
    monkeypatch, run_here, tmp_path, arguments, message
):
    def too_early():
        raise AssertionError("TensorFlow was imported")

    monkeypatch.chdir(tmp_path)
    for name in ("empty", "empty.jsonl"):
        (tmp_path / name).touch()
    monkeypatch.setattr("gpt2.model_session.import_tensorflow", too_early)
    commands = {name: getattr(evaluate, name) for name in ("score", "perplexity", "task", "paper")}
    done = run_here(lambda: evaluate.run(commands), "evaluate.py", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"evaluate.py: {message}")
    assert done.stderr.count("\n") == 1


def test_models_with_different_vocabularies_cannot_be_compared(tmp_path, tiny, flags):
    other = tmp_path / "other"
    shutil.copytree(tiny.folder, other)
    table = json.loads((other / "encoder.json").read_text(encoding="utf-8"))
    table["A"], table["B"] = table["B"], table["A"]
    (other / "encoder.json").write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(UserError, match="different vocabularies"):
        evaluate.score([str(DATA / "text8")], against=str(other), **flags)


def test_paper_prints_measured_next_to_published_and_what_is_missing(tmp_path, tiny, capsys):
    shutil.copytree(tiny.folder, tmp_path / "models" / "124M")
    data = tmp_path / "data" / "deep" / "er"
    data.mkdir(parents=True)
    shutil.copyfile(DATA / "ptb.txt", data / "ptb.test.txt")
    shutil.copyfile(DATA / "text8", data / "text8")
    flags = {"model_name": "124M", "models_dir": str(tmp_path / "models")}
    flags["state"] = str(tmp_path / "state")
    evaluate.paper(str(tmp_path / "data"), **flags)
    printed = capsys.readouterr().out
    assert re.search("^124M +measured +published$", printed, re.M)
    assert re.search(r"^text8 +bits per character +[\d.]+ +1.17$", printed, re.M)
    assert re.search(r"^ptb +perplexity per word +[\d.]+ +65.85$", printed, re.M)
    assert "lambada       missing: no lambada_test.jsonl or lambada_test_plain_text.txt" in printed

    # A second run reads what the first one measured.
    content = json.loads((tmp_path / "state").read_text())
    for value in content["done"].values():
        if "bits per character" in value:
            value["bits per character"] = 1234.5
    (tmp_path / "state").write_text(json.dumps(content))
    evaluate.paper(str(tmp_path / "data"), **flags)
    assert "1234.50" in capsys.readouterr().out


def test_a_state_belongs_to_one_run(tmp_path, flags, capsys):
    flags["state"] = str(tmp_path / "state")
    evaluate.perplexity(str(DATA / "text8"), **flags, window=16)
    first = capsys.readouterr().out
    evaluate.perplexity(str(DATA / "text8"), **flags, window=16, batch_size=1)
    assert capsys.readouterr().out == first
    with pytest.raises(UserError, match="a run with another dtype and window and stride;"):
        evaluate.perplexity(str(DATA / "text8"), **flags, window=15, dtype="tf32")
    with pytest.raises(UserError, match="a run with another task and file;"):
        evaluate.task("enwik8", str(DATA / "enwik8"), **flags, window=16)


def test_published_values_are_found_by_either_name_of_a_size_and_by_the_measured_metric():
    assert tasks.published("1558M", "lambada", "accuracy, whole word, stop-word filter") == 63.24
    assert tasks.published("117M", "ptb", "perplexity per word") == 65.85
    assert tasks.published("1M", "ptb", "perplexity per word") is None
    assert tasks.published("117M", "ptb", "lines that differ") is None
    assert list(tasks.PUBLISHED) == tasks.TASKS
