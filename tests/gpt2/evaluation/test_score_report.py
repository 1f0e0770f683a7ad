"""Scores as a table, as JSON Lines, and as a page."""

import html.parser
import json
import re

from gpt2.evaluation.score_report import BANDS, jsonl, page, table
from gpt2.evaluation.scorer import TokenScore

ROWS = [
    TokenScore(5, "<b>", -0.5, 10, 1.25),
    TokenScore(6, ' & "x"\n', -2.0, 11, 2.0),
    TokenScore(7, "", -1.0, 1000, 0.0),
    TokenScore(8, "é", -30.0, 1001, 7.5),
]
TOTALS = {"tokens": 4, "bits per byte": 1.23456}


def totals():
    return TOTALS


def test_table_has_a_line_for_each_token_and_total():
    lines = "".join(table(ROWS, totals)).splitlines()
    assert lines[0].split() == ["id", "logprob", "rank", "entropy", "text"]
    assert lines[2].split(maxsplit=4) == ["6", "-2.0000", "11", "2.0000", r"""' & "x"\n'"""]
    assert lines[5:] == ["", "tokens         4", "bits per byte  1.2346"]


def test_jsonl_is_an_object_a_line():
    *rows, last = map(json.loads, "".join(jsonl(ROWS, totals)).splitlines())
    assert [TokenScore(**row) for row in rows] == ROWS
    assert last == {"totals": TOTALS}


def test_jsonl_stays_json_where_a_perplexity_overflows():
    (last,) = jsonl([], lambda: {"perplexity per word": float("inf")})
    assert json.loads(last) == {"totals": {"perplexity per word": None}}


class Text(html.parser.HTMLParser):
    """The text inside the element of class `text`, and the classes of its spans."""

    def __init__(self, source):
        super().__init__()
        self.text, self.bands, self.inside = "", [], False
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        kind = dict(attributes).get("class")
        self.inside = self.inside or (tag == "div" and kind == "text")
        if self.inside and tag == "span":
            self.bands.append(kind)

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "div"

    def handle_data(self, data):
        self.text += data if self.inside else ""


def test_page_shows_the_text_coloured_by_rank():
    source = "".join(page(ROWS, totals))
    shown = Text(source)
    assert shown.text == '<b> & "x"\né'
    assert shown.bands == ["top10", "top100", "top1000", "beyond"]
    assert all(f".{name} {{" in source for name, _ in BANDS)
    assert "<tr><td>bits per byte</td><td>1.2346</td></tr>" in source


def test_page_needs_nothing_else():
    source = "".join(page(ROWS, totals))
    assert not re.search(r"https?:|src=|href=|@import|<script", source)
