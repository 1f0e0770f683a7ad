"""A page that shows what the model made of each token: one file, which needs nothing else.

The text is in it as plain text. Next to it are packed columns of numbers, one entry a token, that
page.js unpacks: little-endian integers of 1, 2 or 4 bytes, compressed with zlib, in base64.
"""

import base64
import hashlib
import html
import json
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from string import Template
from typing import Any

from gpt2.evaluation.score_report import Report, ScoredText, written
from gpt2.scorer import TokenScore

PARTS = Path(__file__).parent
# Control characters have no look of their own: these are their pictures. Each is one UTF-16 unit.
VISIBLE = {c: 0x2400 + c for c in range(32) if chr(c) not in "\t\n"} | {0x7F: 0x2421}
PARAGRAPH = 600  # characters that a paragraph of the page has before it ends with the next line
LONGEST = 4000  # ... or with the next word
BLOCK = 50  # paragraphs that the browser skips together while they are far from the window
CHOICES = {
    "difference": ("-2 or less", "to -0.5", "to 0.5", "to 2", "more"),
    "rank": ("1 to 10", "to 100", "to 1000", "beyond"),
    "probability": ("50% or more", "to 10%", "to 1%", "to 0.1%", "less"),
    "entropy": ("to 1 nat", "to 2", "to 4", "to 6", "more"),
}


def page(report: Report) -> Iterator[str]:
    """The page, in pieces. Nothing comes before all texts are scored.

    Raises: UserError
    """
    sections = [_Section(report, text) for text in report.texts]
    head, tail = _template(report, sections).split("<!-- texts -->")
    yield head
    for section in sections:
        yield from section.html()
    yield tail


def _template(report: Report, sections: list["_Section"]) -> str:
    style, script = (_part(name) for name in ("page.css", "page.js"))
    choices = [name for name in CHOICES if name != "difference" or len(report.models) == 2]
    many = len(sections) != 1
    title = f"How likely each token is: {f'{len(sections)} texts' if many else sections[0].name}"
    models = " compared with ".join(f"the model {name}" for name in report.models)
    return Template(_part("page.html")).substitute(
        title=_escape(title),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        colour=choices[0],
        models=_escape(f"Scored by {models}"),
        windows=_windows(report),
        overview=_overview(report, sections),
        choices="\n".join(_choice(name, name == choices[0]) for name in choices),
        legends="\n".join(_legend(name, report) for name in choices),
        layout="pair" if len(sections) == 2 else "",
    )


def _windows(report: Report) -> str:
    sizes = sorted({(scorer.window, scorer.stride) for scorer in report.scorers})
    return "Windows of " + " and ".join(f"{size} tokens, {stride} apart" for size, stride in sizes)


def _part(name: str) -> str:
    return (PARTS / name).read_text(encoding="utf-8")


def _hash(code: str) -> str:
    """What a Content-Security-Policy calls the code that may run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}"


def _escape(text: str) -> str:
    return html.escape(text.translate(VISIBLE))


def _choice(name: str, checked: bool) -> str:
    mark = " checked" if checked else ""
    return f'<label><input type="radio" name="colour" value="{name}"{mark}> {name}</label>'


def _legend(name: str, report: Report) -> str:
    prefix, what = "k", ""
    if name == "difference":
        prefix, what = (
            "d",
            f"<li>Log-probability, {_escape(' minus '.join(report.models[::-1]))}:</li>",
        )
    classes = [f'<li class="{prefix}{k}">{label}</li>' for k, label in enumerate(CHOICES[name])]
    return f'<ul class="key {name}" aria-label="Colours by {name}">{what}{"".join(classes)}</ul>'


def _overview(report: Report, sections: list["_Section"]) -> str:
    """The numbers of all texts: a list for one, two columns for two, a row each for more."""
    heads, columns = [], []
    for section in sections:
        for model, numbers in zip(report.models, section.numbers, strict=True):
            heads.append(f"{section.name} · {model}" if len(report.models) > 1 else section.name)
            columns.append([_number(metric, numbers) for metric in numbers])
    metrics = list(sections[0].numbers[0])
    if len(columns) == 1:
        pairs = zip(metrics, columns[0], strict=True)
        return f"<dl>{''.join(f'<div><dt>{a}</dt><dd>{b}</dd></div>' for a, b in pairs)}</dl>"
    rows = [["", *metrics], *([head, *each] for head, each in zip(heads, columns, strict=True))]
    return _table([list(row) for row in zip(*rows, strict=True)] if len(columns) == 2 else rows)


def _table(rows: list[list[str]]) -> str:
    """The first row and the first column are headings."""
    heads, *rows = rows
    lines = ["<tr>" + "".join(f'<th scope="col">{_escape(cell)}</th>' for cell in heads) + "</tr>"]
    for first, *rest in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{_escape(first)}</th>{cells}</tr>')
    table = "<table>\n" + "\n".join(lines) + "\n</table>"
    return f'<div class="wide" tabindex="0" role="group" aria-label="Totals">{table}</div>'


def _number(metric: str, numbers: dict[str, float]) -> str:
    share = f" ({numbers[metric] / max(1, numbers['tokens']):.1%})"
    return written(numbers[metric]) + (share if metric.startswith("rank") else "")


class _Section:
    """A text of the page: its pictures, its paragraphs, its columns."""

    def __init__(self, report: Report, text: ScoredText):
        self.name, self._report, self._heading = text.name, report, len(report.texts) > 1
        self._models = [_Columns() for _ in report.scorers]
        self._lengths, self._ids = array("I"), array("I")
        self._paragraphs: list[str] = []
        self._sizes: list[int] = []
        for paragraph in _paragraphs(self._add(text.tokens())):
            self._paragraphs.append("".join(score.text for score in paragraph))
            self._sizes.append(len(paragraph))
        self.numbers = text.numbers()

    def _add(self, tokens: Iterable[tuple[TokenScore, ...]]) -> Iterator[TokenScore]:
        for scores in tokens:
            self._ids.append(scores[0].id)
            self._lengths.append(len(scores[0].text.encode("utf-16-le")) // 2)
            for columns, score in zip(self._models, scores, strict=True):
                columns.add(score)
            yield scores[0]

    def html(self) -> Iterator[str]:
        """The section, in pieces."""
        name = _escape(self.name)
        yield "<section>\n"
        if self._heading:
            yield f"<h2>{name}</h2>\n"
        for model, columns in zip(self._report.models, self._models, strict=True):
            label = f"<p>{_escape(model)}:</p>" if len(self._models) > 1 else ""
            yield f'{label}<div class="pictures">{columns.pictures()}</div>\n'
        yield (
            f'<div class="text" tabindex="0" role="group" lang="" aria-label="{name}. '
            'The arrow keys go from token to token.">\n'
        )
        for start in range(0, len(self._paragraphs), BLOCK):
            paragraphs = map(_escape, self._paragraphs[start : start + BLOCK])
            yield f"<div>{''.join(f'<p>{paragraph}</p>' for paragraph in paragraphs)}</div>"
        data = json.dumps(self._data()).replace("<", "\\u003c")
        yield f'\n</div>\n<script type="application/json">{data}</script>\n</section>\n'

    def _data(self) -> dict[str, Any]:
        used = sorted({i for columns in self._models for i in columns.alternatives})
        scorer = self._report.scorers[0]
        return {
            "paragraphs": self._sizes,
            "shared": {"length": pack(self._lengths), "id": pack(self._ids)},
            "models": [
                {"name": name, "columns": columns.packed()}
                for name, columns in zip(self._report.models, self._models, strict=True)
            ],
            "top": scorer.options.top,
            "vocabulary": {i: scorer.spell(i).translate(VISIBLE) for i in used},
        }


class _Columns:
    """What a model made of the tokens of a text."""

    def __init__(self) -> None:
        self._surprise, self._entropy, self._likeliest = array("d"), array("d"), array("d")
        self._rank = array("I")
        self.alternatives, self._shares = array("I"), array("d")

    def add(self, score: TokenScore) -> None:
        """Append a token."""
        self._surprise.append(-score.logprob)
        self._rank.append(score.rank)
        self._entropy.append(score.entropy)
        self._likeliest.append(score.top_probability)
        for other in score.alternatives:
            self.alternatives.append(other.id)
            self._shares.append(other.probability)

    def pictures(self) -> str:
        """Three histograms."""
        import numpy as np

        from gpt2.evaluation import pictures  # with NumPy

        return (
            pictures.of_ranks(np.array(self._rank))
            + pictures.of_entropies(np.array(self._entropy))
            + pictures.of_probabilities(np.array(self._likeliest))
        )

    def packed(self) -> dict[str, Any]:
        """The columns as page.js unpacks them."""
        return {
            "surprise": pack(self._surprise, 1000),
            "rank": pack(self._rank),
            "entropy": pack(self._entropy, 1000),
            "top": pack(self._likeliest, 1000),
            "alternative": pack(self.alternatives),
            "share": pack(self._shares, 10000),
        }


def pack(values: Sequence[float], scale: int = 1) -> dict[str, Any]:
    """Numbers times `scale`, as integers from 0 up, in as few bytes as the largest needs."""
    import numpy as np

    whole = np.maximum(np.rint(scale * np.asarray(values, np.float64)), 0)
    bytes_ = next(n for n in (1, 2, 4) if whole.max(initial=0) < 256**n)
    packed = zlib.compress(whole.astype(f"<u{bytes_}").tobytes())
    return {"bytes": bytes_, "data": base64.b64encode(packed).decode()}


def _paragraphs(scores: Iterable[TokenScore]) -> Iterator[list[TokenScore]]:
    """Tokens that the page shows together. A paragraph ends at the end of a line, if it can."""
    paragraph: list[TokenScore] = []
    length = 0
    for score in scores:
        if length > LONGEST and score.text.startswith(" "):
            yield paragraph
            paragraph, length = [], 0
        paragraph.append(score)
        length += len(score.text)
        if length > PARAGRAPH and score.text.endswith("\n"):
            yield paragraph
            paragraph, length = [], 0
    if paragraph:
        yield paragraph
