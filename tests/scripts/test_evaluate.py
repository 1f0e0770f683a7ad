"""The evaluation script as a user runs it."""

import io
import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

import evaluate
from gpt2.evaluation import tasks
from user_error import UserError

EVALUATE = ROOT / "src" / "evaluate.py"
DATA = ROOT / "tests" / "data"
TEXT = "Now is the winter of our discontent, 中文 & <b>.\n"


@pytest.fixture
def flags(tiny):
    """Flags that choose the tiny model."""
    return {"model_name": "tiny", "models_dir": str(tiny.folder.parent)}


@pytest.mark.end_to_end
def test_scores_stdin_with_the_embedded_model_and_reports_the_choice(tmp_path):
    command = [sys.executable, EVALUATE, "score", "-", "--format", "jsonl", "--models_dir"]
    done = subprocess.run(
        [*command, tmp_path], input=TEXT, capture_output=True, encoding="utf-8", timeout=100
    )
    assert done.returncode == 0
    assert re.fullmatch("using the small model 1M.*\nrunning on .*\n", done.stderr)
    *rows, last = map(json.loads, done.stdout.splitlines())
    assert "".join(row["text"] for row in rows) == TEXT
    assert last["totals"]["tokens"] == len(rows)
    assert last["totals"]["bytes"] == len(TEXT.encode())


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
        ([], "the following arguments are required: COMMAND"),
        (["scores"], "argument COMMAND: invalid choice: 'scores'"),
        (["score"], "the following arguments are required: FILES"),
        (["score", EVALUATE, "nowhere"], "nowhere: no such file"),
        (["perplexity", EVALUATE, "--state", "no/where"], "no/where: no such folder"),
        (["task", "ptb", EVALUATE, "--models_dir", "."], f"{EVALUATE}, line 1: a Penn"),
        (["score", "empty", "--model_name", "1M"], "the text is empty"),
        (["score", "empty.jsonl", "--model_name", "1M"], "empty.jsonl: no texts in it"),
        (["score", "empty", "empty", "--top", 2], "--top needs a single text, or --format html"),
        (["score", EVALUATE, "--top", -1], "top must be from 0 to n_vocab"),
        (["score", EVALUATE, "--against", "9M"], "no model in models/9M"),
        (["score", EVALUATE, "--format", "pdf"], "format must be one of table, jsonl, html, got"),
        (
            ["perplexity", EVALUATE, "--windw", 5],
            "unknown argument --windw; did you mean --window?",
        ),
        (["perplexity", EVALUATE, "--window", 999, "--model_name", "1M"], "window must be from 1"),
        (["perplexity", "-", "--state", "x"], "--state needs a file"),
        (["task", "lambda", EVALUATE], "no task 'lambda'; it is one of lambada, cbt-cn"),
        (["paper"], "the following arguments are required: --data_dir"),
        (["paper", "--data_dir", "nowhere"], "--data_dir: no folder nowhere"),
        (["paper", "--data_dir", "data", "--models_dir", "."], "no model in 117M"),
        (["paper", "--data_dir", "no data"], "--data_dir: no file of a task in no data, such as"),
    ],
)
def test_errors_are_one_line_before_tensorflow_is_imported(
    monkeypatch, run_here, tmp_path, arguments, message
):
    def too_early():
        raise AssertionError("TensorFlow was imported")

    monkeypatch.chdir(tmp_path)
    for name in ("empty", "empty.jsonl", "data/deep/text8", "no data/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr("gpt2.model_session.import_tensorflow", too_early)
    commands = {name: getattr(evaluate, name) for name in ("score", "perplexity", "task", "paper")}
    done = run_here(lambda: evaluate.run(commands), "evaluate.py", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"evaluate.py: {message}")
    assert done.stderr.count("\n") == 1


def test_a_dump_is_a_row_for_each_sample(tmp_path, flags, capsys):
    path = tmp_path / "dump.jsonl"
    samples = [{"number": 3, "prompt": "ROMEO:", "text": " Ay me"}, {"number": 4, "text": "No."}]
    path.write_text("\n".join(map(json.dumps, samples)), encoding="utf-8")
    evaluate.score([str(path)], format="jsonl", **flags)
    rows = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert [(row["name"], row["totals"]["characters"]) for row in rows] == [("3", 6), ("4", 3)]


def test_models_with_different_vocabularies_cannot_be_compared(tmp_path, tiny, flags):
    other = tmp_path / "other"
    shutil.copytree(tiny.folder, other)
    table = json.loads((other / "encoder.json").read_text(encoding="utf-8"))
    table["A"], table["B"] = table["B"], table["A"]
    (other / "encoder.json").write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(UserError, match="different vocabularies"):
        evaluate.score([str(DATA / "text8")], against=str(other), **flags)


def test_the_page_of_a_real_model(flags, capsys):
    evaluate.score([str(DATA / "text8")], format="html", top=3, against="tiny", **flags)
    page = capsys.readouterr().out
    assert page.startswith("<!DOCTYPE html>")
    shown = "".join(re.findall("<span[^>]*>(.*?)</span>", page, re.DOTALL))
    assert shown == (DATA / "text8").read_text(encoding="utf-8")
    assert "Scored by tiny and by tiny" in page


def test_paper_prints_measured_beside_published_and_what_is_missing(tmp_path, tiny, capsys):
    shutil.copytree(tiny.folder, tmp_path / "models" / "124M")
    data = tmp_path / "data" / "deep" / "er"
    data.mkdir(parents=True)
    shutil.copyfile(DATA / "ptb.txt", data / "ptb.test.txt")
    shutil.copyfile(DATA / "text8", data / "text8")
    flags = {"state": str(tmp_path / "state"), "models_dir": str(tmp_path / "models")}
    evaluate.paper(str(tmp_path / "data"), **flags)
    printed = capsys.readouterr().out
    assert re.search("^124M +measured +published$", printed, re.M)
    assert re.search(r"^text8 +bits per character +[\d.]+ +1.17$", printed, re.M)
    assert re.search(r"^ptb +perplexity per word +[\d.]+ +65.85$", printed, re.M)
    assert "lambada       missing: no lambada_test.jsonl or lambada_test_plain_text.txt" in printed
    assert all(f"{size}: no model in" in printed for size in ("345M", "762M", "1542M"))

    # A second run reads what the first one measured.
    content = json.loads((tmp_path / "state").read_text())
    for value in content["done"].values():
        if "bits per character" in value:
            value["bits per character"] = 1234.5
    (tmp_path / "state").write_text(json.dumps(content))
    evaluate.paper(str(tmp_path / "data"), model_name="124M", **flags)
    assert "1234.50" in capsys.readouterr().out


def test_a_run_with_other_flags_is_refused(tmp_path, flags, capsys):
    flags["state"] = str(tmp_path / "state")
    evaluate.perplexity(str(DATA / "text8"), **flags, window=16)
    first = capsys.readouterr().out
    evaluate.perplexity(str(DATA / "text8"), **flags, window=16, batch_size=1)
    assert capsys.readouterr().out == first
    with pytest.raises(UserError, match=r"another window \(16, now 15\)"):
        evaluate.perplexity(str(DATA / "text8"), **flags, window=15)
    with pytest.raises(UserError, match=r"another dtype \(float32, now tf32\)"):
        evaluate.perplexity(str(DATA / "text8"), **flags, window=16, dtype="tf32")
    with pytest.raises(UserError, match="another file"):
        evaluate.perplexity(str(DATA / "enwik8"), **flags, window=16)
    with pytest.raises(UserError, match="another task"):
        evaluate.task("text8", str(DATA / "text8"), **flags, window=16)


def test_every_published_number_is_measured_under_its_name():
    measured = {
        "accuracy, whole word, stop-word filter": ("lambada", 63.24),
        "perplexity, last token": ("lambada", 8.63),
        "accuracy": ("cbt-ne", 89.05),
        "perplexity per word": ("1bw", 42.16),
        "bits per byte": ("enwik8", 0.93),
        "bits per character": ("text8", 0.98),
    }
    for metric, (task, value) in measured.items():
        assert tasks.published("1558M", task, metric) == value
    assert tasks.published("117M", "ptb", "perplexity per word") == 65.85
    assert tasks.published("1M", "ptb", "perplexity per word") is None
    assert tasks.published("117M", "ptb", "lines that differ") is None
    assert list(tasks.PUBLISHED) == tasks.TASKS
