"""The page of scores: one HTML file that needs nothing else.

Each token is a span. Its classes are its colours, one for each choice (page.css). Its title has its
numbers: one row in each line, with tabs between the cells. page.js shows them as a table.
"""

import base64
import hashlib
import html
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from string import Template

from gpt2.evaluation.score_report import Report, format_number
from gpt2.evaluation.texts import Text
from gpt2.scorer import TokenScore
from gpt2.terminal import log_once

PARTS = Path(__file__).parent
COMFORTABLE = 50_000  # tokens; a longer page is slow to open
# Control characters are invisible; Unicode has a picture of each.
CONTROL_PICTURES = {c: 0x2400 + c for c in range(32) if chr(c) not in "\t\n"} | {0x7F: 0x2421}
SIGNS = CONTROL_PICTURES | {ord(" "): "␣", ord("\n"): "↵", ord("\t"): "⇥"}
PARAGRAPH = 600  # characters after which a paragraph of the page ends at the next line end,
LONGEST = 2000  # ... before the next word; and after twice as many, anywhere
NEGATIVE_LOGS = [-math.log(p) for p in (0.5, 0.1, 0.01, 0.001)]
# A choice of colours -> the highest value of each colour but the last, and the labels of all.
COLOURS: dict[str, tuple[Sequence[float], str]] = {
    "difference": ([-2, -0.5, 0.5, 2], "-2 or less|to -0.5|to 0.5|to 2|more"),
    "rank": ([10, 100, 1000], "1 to 10|to 100|to 1000|more"),
    "probability": (NEGATIVE_LOGS, "50% or more|to 10%|to 1%|to 0.1%|less"),
    "entropy": ([1, 2, 4, 6], "1 nat or less|to 2|to 4|to 6|more"),
}
RANKS = ["1", "2-5", "6-10", "11-50", "51-100", "101-500", "501-1000", "1001 or more"]
NATS = [*(f"{k} to {k + 1}" for k in range(9)), "9 or more"]
TENTHS = [f"{10 * k} to {10 * k + 10}%" for k in range(10)]
# A field of TokenScore -> the title, the lowest value of each bar but the first, and all labels.
HISTOGRAMS: dict[str, tuple[str, Sequence[float], Sequence[str]]] = {
    "rank": ("Rank", [2, 6, 11, 51, 101, 501, 1001], RANKS),
    "entropy": ("Entropy of the prediction, in nats", range(1, 10), NATS),
    "top_probability": (
        "Probability of the most likely token",
        [k / 10 for k in range(1, 10)],
        TENTHS,
    ),
}
WIDTH, HEIGHT, ABOVE, BELOW = 272, 132, 24, 18  # of a histogram, and of its margins


def page(report: Report) -> Iterator[str]:
    """The page, in pieces. All texts are scored before the first piece. Raises: UserError."""
    sections = [list(_section(text, report)) for text in report.texts]
    tokens = int(sum(text.totals[0]["tokens"] for text in report.texts))
    if tokens > COMFORTABLE:
        log_once(
            f"a page of {tokens} tokens is slow to open; for a text of this length, "
            "--format table or --format jsonl suits better"
        )
    head, tail = _template(report).split("<!-- texts -->")
    yield from [head, *chain.from_iterable(sections), tail]


def _template(report: Report) -> str:
    page_html, style, script = (
        (PARTS / f"page.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")
    )
    colours = list(COLOURS)[0 if len(report.models) == 2 else 1 :]
    name = report.texts[0].name if len(report.texts) == 1 else f"{len(report.texts)} texts"
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
        layout="pair" if len(report.texts) == 2 else "",
    )


def _hash(code: str) -> str:
    """The hash by which a Content-Security-Policy allows a script or a style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}"


def _escape(text: str) -> str:
    return html.escape(text.translate(CONTROL_PICTURES))


def _key(name: str, models: Sequence[str]) -> str:
    """The list of what the colours mean."""
    what = f"log-probability by {models[1]} minus by {models[0]}" if name == "difference" else ""
    labels = enumerate(COLOURS[name][1].split("|"))
    items = "".join(f'<li class="{name[0]}{k}">{label}</li>' for k, label in labels)
    return f'<ul class="key {name}" aria-label="Colours by {name}">{items} {_escape(what)}</ul>'


def _section(text: Text, report: Report) -> Iterator[str]:
    """A text with its totals, in pieces. Of a few texts, the totals are unfolded."""
    name, is_open = _escape(text.name), "open" if len(report.texts) <= 2 else ""
    tokens = list(text.score(report.scorers))
    yield f"<section>\n<h2>{name}</h2>\n<details {is_open}><summary>Totals</summary>\n"
    for k, (model, numbers) in enumerate(zip(report.models, text.totals, strict=True)):
        if len(report.models) > 1:
            yield f"<p>By {_escape(model)}:</p>\n"
        items = (f"<div><dt>{x}</dt><dd>{_formatted(x, numbers)}</dd></div>" for x in numbers)
        yield f'<dl>{"".join(items)}</dl>\n<div class="pictures">'
        for field, about in HISTOGRAMS.items():
            yield histogram(*about, [getattr(scores[k], field) for scores in tokens])
        yield "</div>\n"
    yield f'</details>\n<div class="text" tabindex="0" role="group" aria-label="{name}">'
    yield from _paragraphs(_spans(tokens, report.models))
    yield "</div>\n</section>\n"


def _spans(
    tokens: Iterable[tuple[TokenScore, ...]], models: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Texts and their spans. The tokens of one character share a span."""
    titles: list[str] = []
    for number, scores in enumerate(tokens, 1):
        titles.append(_title(number, scores, models))
        if text := scores[0].text:
            title, colours = html.escape("\n".join(titles)), _classes(scores)
            yield text, f'<span class="{colours}" title="{title}">{_escape(text)}</span>'
            titles = []


def _formatted(metric: str, numbers: dict[str, float]) -> str:
    share = f" ({numbers[metric] / max(1, numbers['tokens']):.1%})"
    return format_number(numbers[metric]) + (share if metric.startswith("rank") else "")


def _paragraphs(spans: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Paragraphs, which end at a line end if possible. Browsers skip those that are off-screen."""
    paragraph, length, last = "", 0, ""
    for text, span in spans:
        word = text.startswith(" ") or length > 2 * LONGEST
        if (length > PARAGRAPH and last.endswith("\n")) or (length > LONGEST and word):
            yield f"<p>{paragraph}</p>"
            paragraph, length = "", 0
        paragraph, length, last = paragraph + span, length + len(text), text
    yield f"<p>{paragraph}</p>"


def _classes(scores: Sequence[TokenScore]) -> str:
    """The colours of a token: the first letter of each choice, and the number of the colour."""
    first, last = scores[0], scores[-1]
    values = {"rank": first.rank, "probability": -first.logprob, "entropy": first.entropy}
    if len(scores) > 1:
        values["difference"] = last.logprob - first.logprob
    return " ".join(f"{name[0]}{bisect_left(COLOURS[name][0], x)}" for name, x in values.items())


def _title(number: int, scores: Sequence[TokenScore], models: Sequence[str]) -> str:
    rows = [[scores[0].text.translate(SIGNS), f"token {number}, id {scores[0].id}"]]
    if len(models) > 1:
        rows.append(["", *(model.translate(SIGNS) for model in models)])
    rows += [
        ["Probability", *(_percent(math.exp(score.logprob)) for score in scores)],
        ["Log-probability", *(f"{score.logprob:.3f}" for score in scores)],
        ["Rank", *(str(score.rank) for score in scores)],
        ["Entropy", *(f"{score.entropy:.3f}" for score in scores)],
        ["Most likely token", *(_percent(score.top_probability) for score in scores)],
    ]
    for k, others in enumerate(zip(*(score.alternatives for score in scores), strict=True), 1):
        shown = (f"{_percent(other.probability)} {other.text.translate(SIGNS)}" for other in others)
        rows.append([f"Number {k}", *shown])
    return "\n".join(map("\t".join, rows))


def _percent(probability: float) -> str:
    return f"{100 * probability:.0f}%" if probability >= 0.0995 else f"{100 * probability:.2g}%"


def histogram(
    name: str, starts: Sequence[float], labels: Sequence[str], values: Sequence[float]
) -> str:
    """The shares of the values as bars, an SVG. A screen reader reads the shares as a list."""
    counts = [0] * len(labels)
    for value in values:
        counts[bisect_right(starts, value)] += 1
    texts = [f"{a}: {n / max(1, len(values)):.1%}" for a, n in zip(labels, counts, strict=True)]
    width, base = WIDTH / len(labels), HEIGHT - BELOW
    bars = ""
    for k, (text, count) in enumerate(zip(texts, counts, strict=True)):
        height = (base - ABOVE) * count / max(1, *counts)
        bars += (
            f'<rect x="{k * width + 1:.1f}" y="{base - height:.1f}" width="{width - 2:.1f}" '
            f'height="{height:.1f}"><title>{text}</title></rect>'
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{". ".join([name, *texts])}">'
        f'<text x="0" y="12">{name}</text>{bars}'
        f'<line stroke="gray" x1="0" x2="{WIDTH}" y1="{base}" y2="{base}"/>'
        f'<text x="0" y="{HEIGHT - 4}">{labels[0]}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 4}" text-anchor="end">{labels[-1]}</text></svg>\n'
    )
