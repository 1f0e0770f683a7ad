"""Scores as a table and as JSON Lines, of one text or of many, by one model or two."""

import json
import math

import pytest
from scoring import MadeUp, report_of

from gpt2.evaluation.page import page
from gpt2.evaluation.score_report import COLUMNS, jsonl, table
from gpt2.evaluation.totals import BAND_NAMES
from user_error import UserError

TEXT = 'Now is <b> & "x"\nthe winter é of 中文.\n'


def lines_of(format, *arguments):
    return "".join(format(report_of(*arguments))).splitlines()


def test_table_has_a_line_for_each_token_and_total():
    lines = lines_of(table, {"a": TEXT}, [MadeUp(top=2)])
    ids = MadeUp().encoder.encode(TEXT)
    assert lines[0].split() == ["id", "logprob", "rank", "entropy", "text"]
    assert [int(line.split()[0]) for line in lines[1 : len(ids) + 1]] == ids
    assert 0 <= float(lines[1].split("  <  ")[1].split()[-1]) <= 0.5  # the second alternative
    assert lines[len(ids) + 1] == ""
    assert lines[len(ids) + 2].split() == ["tokens", str(len(ids))]
    assert any(line.startswith("standard deviation of log-rank  ") for line in lines)


def test_jsonl_is_an_object_a_token_and_the_totals():
    *rows, last = map(json.loads, lines_of(jsonl, {"a": TEXT}, [MadeUp(top=3)]))
    assert "".join(row["text"] for row in rows) == TEXT
    names = ["id", "text", "logprob", "rank", "entropy", "top_probability", "alternatives"]
    assert all(list(row) == names for row in rows)
    assert all(len(row["alternatives"]) == 3 for row in rows)
    assert all(set(x) == {"id", "text", "probability"} for x in rows[0]["alternatives"])
    totals = last["totals"]
    assert (totals["tokens"], totals["bytes"]) == (len(rows), len(TEXT.encode()))
    assert sum(totals[name] for name in BAND_NAMES) == len(rows)
    mean = sum(math.log(row["rank"]) for row in rows) / len(rows)
    assert totals["mean log-rank"] == pytest.approx(mean, rel=1e-6)


def test_jsonl_of_a_list_is_an_object_a_text_also_of_an_empty_one():
    full, empty = map(json.loads, lines_of(jsonl, {"a": TEXT, "b": ""}))
    assert (full["name"], empty["name"]) == ("a", "b")
    assert full["totals"]["characters"] == len(TEXT)
    assert (empty["totals"]["tokens"], empty["totals"]["mean entropy"]) == (0, None)


def test_table_of_a_list_is_a_row_a_text():
    head, *rows = lines_of(table, {"a b": TEXT, "c": ""})
    assert all(name in head for name in COLUMNS)
    assert [row[-3:] for row in rows] == ["a b", "  c"]
    assert rows[1].split()[-2] == "-"
    cells = list(map(float, rows[0].split()[:6]))
    assert sum(cells[2:]) == cells[0]  # the bands of ranks, and the tokens


def test_a_second_model_is_shown_next_to_the_first():
    *rows, last = map(json.loads, lines_of(jsonl, {"a": TEXT}, [MadeUp(1), MadeUp(2, window=8)]))
    assert "".join(row["against"]["text"] for row in rows) == TEXT
    assert rows[0]["logprob"] != rows[0]["against"]["logprob"]
    assert last["against"]["tokens"] == last["totals"]["tokens"]
    first = lines_of(table, {"a": TEXT}, [MadeUp(1), MadeUp(2)])[1].split()
    assert float(first[5]) == pytest.approx(float(first[4]) - float(first[1]), abs=2e-4)


@pytest.mark.parametrize("format", [table, jsonl, page])
def test_an_empty_text_is_an_error_before_anything_is_written(format):
    with pytest.raises(UserError, match="the text is empty"):
        next(format(report_of({"a": ""})))
