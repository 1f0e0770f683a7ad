"""The page of scores: one HTML file that needs nothing else.

Each token is a span. Its classes are its colours, one for each choice (page.css), and its title has
its numbers: a row in each line, with tabs between the cells, which page.js shows as a table.
"""

import base64
import hashlib
import html
import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from string import Template

from gpt2.evaluation.pictures import HISTOGRAMS, histogram
from gpt2.evaluation.score_report import Report, ScoredText, format_number
from gpt2.scorer import TokenScore
from gpt2.terminal import log_once

PARTS = Path(__file__).parent
COMFORTABLE = 50_000  # tokens: a page of more is slow to open
# Control characters cannot be seen; Unicode has a picture of each.
CONTROL_PICTURES = {c: 0x2400 + c for c in range(32) if chr(c) not in "\t\n"} | {0x7F: 0x2421}
SIGNS = CONTROL_PICTURES | {ord(" "): "␣", ord("\n"): "↵", ord("\t"): "⇥"}
PARAGRAPH = 600  # characters after which a paragraph of the page ends at the next line end,
LONGEST = 2000  # ... before the next word; and after twice as many, anywhere
NEGATIVE_LOGS = [-math.log(p) for p in (0.5, 0.1, 0.01, 0.001)]
# How tokens are coloured -> the highest value of each colour but the last, and all their labels.
COLOURS: dict[str, tuple[Sequence[float], str]] = {
    "difference": ([-2, -0.5, 0.5, 2], "-2 or less|to -0.5|to 0.5|to 2|more"),
    "rank": ([10, 100, 1000], "1 to 10|to 100|to 1000|more"),
    "probability": (NEGATIVE_LOGS, "50% or more|to 10%|to 1%|to 0.1%|less"),
    "entropy": ([1, 2, 4, 6], "1 nat or less|to 2|to 4|to 6|more"),
}


def page(report: Report) -> Iterator[str]:
    """The page, in pieces. The first comes when all texts are scored. Raises: UserError."""
    sections = [_Section(report.models, text) for text in report.texts]
    tokens = sum(section.n_tokens for section in sections)
    if tokens > COMFORTABLE:
        log_once(
            f"a page of {tokens} tokens is slow to open; for a text of this length, "
            "--format table or --format jsonl suits better"
        )
    head, tail = _template(report, sections).split("<!-- texts -->")
    yield head
    for section in sections:
        yield from section.html("open" if len(sections) <= 2 else "")
    yield tail


def _template(report: Report, sections: list["_Section"]) -> str:
    page_html, style, script = (
        (PARTS / f"page.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")
    )
    colours = list(COLOURS)[0 if len(report.models) == 2 else 1 :]
    name = sections[0].name if len(sections) == 1 else f"{len(sections)} texts"
    choices = "\n".join(
        f'<label><input type="radio" name="colour" value="{name}"> {name}</label>'
        for name in colours
    )
    return Template(page_html).substitute(
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        title=_escape(f"How likely each token is: {name}"),
        models=_escape(" and by ".join(report.models)),
        window=report.scorers[0].window,
        stride=report.scorers[0].stride,
        choices=choices.replace('">', '" checked>', 1),
        keys="\n".join(_key(name, report.models) for name in colours),
        layout="pair" if len(sections) == 2 else "",
    )


def _hash(code: str) -> str:
    """What a Content-Security-Policy calls the code that may run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}"


def _escape(text: str) -> str:
    return html.escape(text.translate(CONTROL_PICTURES))


def _key(name: str, models: Sequence[str]) -> str:
    """What the colours of a choice stand for."""
    what = f"log-probability by {models[1]} minus by {models[0]}" if name == "difference" else ""
    labels = enumerate(COLOURS[name][1].split("|"))
    items = "".join(f'<li class="{name[0]}{k}">{label}</li>' for k, label in labels)
    return f'<ul class="key {name}" aria-label="Colours by {name}">{items} {_escape(what)}</ul>'


class _Section:
    """A text of the page, once it is scored."""

    def __init__(self, models: Sequence[str], text: ScoredText):
        self.name, self.n_tokens, self._models = text.name, 0, models
        # Of each model: the rank, entropy and highest probability of each prediction.
        self._predictions: list[list[tuple[float, ...]]] = [[] for _ in models]
        self._paragraphs = list(_paragraphs(self._spans(text.tokens())))
        self._numbers = text.numbers()

    def _spans(self, tokens: Iterable[tuple[TokenScore, ...]]) -> Iterator[tuple[str, str]]:
        """Texts and their spans. Tokens that are parts of one character share a span."""
        titles: list[str] = []
        for scores in tokens:
            self.n_tokens += 1
            for predictions, score in zip(self._predictions, scores, strict=True):
                predictions.append((score.rank, score.entropy, score.top_probability))
            titles.append(_title(self.n_tokens, scores, self._models))
            if text := scores[0].text:
                title = html.escape("\n".join(titles))
                yield (
                    text,
                    f'<span class="{_classes(scores)}" title="{title}">{_escape(text)}</span>',
                )
                titles = []

    def html(self, is_open: str) -> Iterator[str]:
        """The section, in pieces; `is_open` is the attribute of what can be folded."""
        name = _escape(self.name)
        yield f"<section>\n<h2>{name}</h2>\n<details {is_open}><summary>Totals</summary>\n"
        for model, numbers, predictions in zip(
            self._models, self._numbers, self._predictions, strict=True
        ):
            if len(self._models) > 1:
                yield f"<p>By {_escape(model)}:</p>\n"
            rows = (f"<div><dt>{x}</dt><dd>{_formatted(x, numbers)}</dd></div>" for x in numbers)
            columns = zip(*predictions, strict=True) if predictions else [()] * len(HISTOGRAMS)
            drawn = map(histogram, *zip(*HISTOGRAMS, strict=True), columns)
            yield f'<dl>{"".join(rows)}</dl>\n<div class="pictures">{"".join(drawn)}</div>\n'
        yield f'</details>\n<div class="text" tabindex="0" role="group" aria-label="{name}">'
        yield from [*self._paragraphs, "</div>\n</section>\n"]


def _formatted(metric: str, numbers: dict[str, float]) -> str:
    share = f" ({numbers[metric] / max(1, numbers['tokens']):.1%})"
    return format_number(numbers[metric]) + (share if metric.startswith("rank") else "")


def _paragraphs(spans: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Paragraphs, cut at the end of a line if possible. Browsers skip those far from the window."""
    paragraph, length, last = "", 0, ""
    for text, span in spans:
        word = text.startswith(" ") or length > 2 * LONGEST
        if (length > PARAGRAPH and last.endswith("\n")) or (length > LONGEST and word):
            yield f"<p>{paragraph}</p>"
            paragraph, length = "", 0
        paragraph, length, last = paragraph + span, length + len(text), text
    yield f"<p>{paragraph}</p>"


def _classes(scores: Sequence[TokenScore]) -> str:
    """The colours of a token: for each choice its first letter and the number of the colour."""
    first, last = scores[0], scores[-1]
    values = {
        "rank": first.rank,
        "probability": -first.logprob,
        "entropy": first.entropy,
        "difference": last.logprob - first.logprob,
    }
    names = list(values)[: 2 + len(scores)]
    return " ".join(f"{name[0]}{bisect_left(COLOURS[name][0], values[name])}" for name in names)


def _title(number: int, scores: Sequence[TokenScore], models: Sequence[str]) -> str:
    rows = [
        [scores[0].text.translate(SIGNS), f"token {number}, id {scores[0].id}"],
        ["", *(model.translate(SIGNS) for model in models)],
        ["Probability", *(_percent(math.exp(score.logprob)) for score in scores)],
        ["Log-probability", *(f"{score.logprob:.3f}" for score in scores)],
        ["Rank", *(str(score.rank) for score in scores)],
        ["Entropy", *(f"{score.entropy:.3f}" for score in scores)],
        ["Most likely token", *(_percent(score.top_probability) for score in scores)],
    ]
    for k, others in enumerate(zip(*(score.alternatives for score in scores), strict=True), 1):
        shown = (f"{_percent(other.probability)} {other.text.translate(SIGNS)}" for other in others)
        rows.append([f"Number {k}", *shown])
    if len(models) == 1:
        del rows[1]
    return "\n".join(map("\t".join, rows))


def _percent(probability: float) -> str:
    return f"{100 * probability:.0f}%" if probability >= 0.0995 else f"{100 * probability:.2g}%"
