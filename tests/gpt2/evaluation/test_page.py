"""The page of scores: what is in it, that it needs nothing else, and how a browser shows it."""

import html.parser
import re

import pytest
from chromium import browser
from scoring import MadeUp, report_of

from gpt2.evaluation import page as page_module
from gpt2.evaluation.page import CONTROL_PICTURES, HISTOGRAMS, histogram, page
from gpt2.terminal import log_once

TEXT = "Now is the winter\nof our <b>discontent</b> & é 中文.\n"
NASTY = (
    "</script><script>hacked=1</script><!-- <img src=x onerror=hacked=1> ]]> --!> "
    "\"'`${hacked=1} \x00 \x1b \r\n \u2028 \u2029 \u202eright to left\u202c \u200f "
    "\N{FAMILY} \N{THUMBS UP SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-5} &lt; &#0; \ufeff e"
    + "\u0301" * 1000
    + " done\n"
)


class Parsed(html.parser.HTMLParser):
    """Of a page: the text of each text, the spans, and all tags with their attributes."""

    def __init__(self, source):
        super().__init__()
        self.texts, self.spans, self.attributes, self.tag = [], [], [], ""
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tag, attributes = tag, dict(attributes)
        self.attributes.append((tag, attributes))
        if attributes.get("class") == "text":
            self.texts.append("")
        if tag == "span":
            self.spans.append(attributes)

    def handle_endtag(self, tag):
        self.tag = ""

    def handle_data(self, data):
        if self.tag == "span":
            self.texts[-1] += data


def page_of(*arguments):
    return "".join(page(report_of(*arguments)))


def test_each_span_has_the_numbers_of_its_tokens():
    report = report_of({"a": TEXT}, [MadeUp(top=2)])
    tokens = [token for (token,) in report.texts[0].score(report.scorers)]
    parsed = Parsed(page_of({"a": TEXT}, [MadeUp(top=2)]))
    assert parsed.texts == [TEXT]
    rows = [row.split("\t") for span in parsed.spans for row in span["title"].split("\n")]
    for name, values in [
        ("Rank", [str(token.rank) for token in tokens]),
        ("Log-probability", [f"{token.logprob:.3f}" for token in tokens]),
        ("Entropy", [f"{token.entropy:.3f}" for token in tokens]),
    ]:
        assert [row[1] for row in rows if row[0] == name] == values
    assert sum(row[0] == "Number 2" for row in rows) == len(tokens)
    whole = [token for token in tokens if token.text]
    assert len(whole) < len(tokens)  # some share a span, as they make up one character
    ranks = [f"r{sum(token.rank > limit for limit in (10, 100, 1000))}" for token in whole]
    assert [span["class"].split()[0] for span in parsed.spans] == ranks


@pytest.mark.parametrize("name", ["text", "name"])
def test_text_cannot_leave_its_place(name):
    source = page_of({"a": NASTY} if name == "text" else {NASTY: TEXT})
    parsed = Parsed(source)
    shown = NASTY.translate(CONTROL_PICTURES)
    assert parsed.texts == [shown if name == "text" else TEXT]
    tags = [tag for tag, _ in parsed.attributes]
    assert (tags.count("script"), tags.count("img"), tags.count("b")) == (1, 0, 0)
    assert not any(name.startswith("on") for _, a in parsed.attributes for name in a)
    assert not re.search("[\x00\r\x1b]", source)


def test_the_page_needs_nothing_else():
    source = page_of({"a": TEXT})
    assert "default-src 'none'; style-src 'sha256-" in source
    assert not any("style" in attributes for _, attributes in Parsed(source).attributes)
    assert not re.search(r"https?:|\b(src|href)=|@import|url\(", source)


def test_texts_have_totals_and_pictures_and_two_stand_side_by_side():
    one = page_of({"notes.txt": TEXT})
    assert "<title>How likely each token is: notes.txt</title>" in one
    pictures = re.findall(r'<svg [^>]*role="img" aria-label="(\w+)', one)
    assert pictures == ["Rank", "Entropy", "Probability"]
    assert '<main class="pair">' in page_of({"human": TEXT, "model": TEXT})
    many = page_of({"a": TEXT, "b": "", "c": TEXT})
    assert len(Parsed(many).texts) == many.count("<dt>bits per byte</dt>") == 3


def test_a_second_model_brings_the_colours_of_the_difference():
    source = page_of({"a": TEXT}, [MadeUp(1), MadeUp(2)])
    assert 'value="difference" checked' in source
    assert "1M\t1M" in Parsed(source).spans[0]["title"]
    assert 'name="colour" value="difference"' not in page_of({"a": TEXT})


def test_a_long_text_is_reported_and_cut_into_paragraphs(monkeypatch, caplog):
    monkeypatch.setattr(page_module, "COMFORTABLE", 50)
    log_once.cache_clear()
    source = page_of({"a": "word " * 900 + "\n" + "A line.\n" * 100 + "x" * 5000})
    assert "--format table or --format jsonl suits better" in caplog.text
    found = re.findall("<p>(<span.*?)</p>", source, re.DOTALL)
    lengths = [len("".join(re.findall('">(.*?)</span>', part, re.DOTALL))) for part in found]
    assert sum(lengths) == 4501 + 800 + 5000
    assert max(lengths) < 4200


def test_histograms_put_numbers_where_they_belong():
    ranks, entropies, probabilities = HISTOGRAMS.values()
    picture = histogram(*ranks, [1, 2, 5, 6, 1000, 1001, 50000, 1])
    assert "1: 25.0%. 2-5: 25.0%. 6-10: 12.5%" in picture
    assert "501-1000: 12.5%. 1001 or more: 25.0%" in picture
    assert "1 to 2: 50.0%" in histogram(*entropies, [0.5, 1.99])
    assert "90 to 100%: 100.0%" in histogram(*probabilities, [1.0000001, 0.95])
    assert "0 to 1: 0.0%" in histogram(*entropies, [])


def test_a_browser_shows_numbers_by_pointer_and_keys_and_runs_nothing_of_the_text(tmp_path):
    path = tmp_path / "page.html"
    source = page_of({"a": TEXT + NASTY}, [MadeUp(top=2)])
    planted = "<script>hacked=1</script><img src=x onerror=hacked=1><p style='color:red'>"
    path.write_text(source, encoding="utf-8", newline="")
    complaints, requests = [], []
    with browser() as chromium:
        tab = chromium.new_page(viewport={"width": 360, "height": 640})
        tab.set_default_timeout(100_000)
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(path.as_uri())
        shown = (TEXT + NASTY).translate(CONTROL_PICTURES)
        assert "".join(tab.locator(".text p").all_text_contents()) == shown
        assert tab.evaluate("typeof hacked") == "undefined"
        assert tab.evaluate("document.documentElement.scrollWidth") == 360

        tab.hover(".text span >> nth=2")
        assert "token 3, id" in tab.inner_text("aside")
        tab.focus(".text")
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowRight"):
            tab.keyboard.press(key)
        assert "token 2, id" in tab.inner_text("aside")
        assert tab.locator(".text .chosen").count() == 1

        colour = "getComputedStyle(document.querySelector('.p2:not(.r2)')).backgroundColor"
        by_rank = tab.evaluate(colour)
        tab.check("input[value=probability]")
        assert tab.evaluate(colour) != by_rank
        assert tab.is_visible(".key.probability") and not tab.is_visible(".key.rank")
        assert complaints == []
        assert requests == [path.as_uri()]

        path.write_text(source.replace("</main>", planted + "</main>"), encoding="utf-8")
        tab.goto(path.as_uri())
        assert tab.evaluate("typeof hacked") == "undefined"
        assert tab.evaluate("document.querySelector('main > p').style.color") == ""
