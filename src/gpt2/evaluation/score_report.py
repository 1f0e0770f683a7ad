"""The scores of texts as a table or as JSON Lines. page.py writes the page."""

import json
import math
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from gpt2.evaluation.texts import Text
from gpt2.evaluation.totals import BAND_NAMES
from gpt2.scorer import Scorer, TokenScore


class Report(NamedTuple):
    """The texts to report on, and the models that score them."""

    texts: Sequence[Text]
    scorers: Sequence[Scorer]  # one for each model; two models are compared
    is_list: bool  # whether each text is a row; otherwise there is one text

    @property
    def models(self) -> list[str]:
        """The models' names."""
        return [scorer.model.folder.name for scorer in self.scorers]


def table(report: Report) -> Iterator[str]:
    """Columns to read: a line for each token, or for each text of a list."""
    if report.is_list:
        yield from _table_of_texts(report)
        return
    (text,) = report.texts
    tokens = text.score(report.scorers)
    tokens = chain(list(islice(tokens, 1)), tokens)  # an error must come before the heading
    extra = [f"{'logprob':>9} {'change':>9}"] * (len(report.models) - 1)
    yield " ".join(["    id   logprob   rank  entropy", *extra, " text\n"])
    for row, *others in tokens:
        numbers = [f"{row.id:>6} {row.logprob:>9.4f} {row.rank:>6} {row.entropy:>8.4f}"]
        numbers += [f"{x.logprob:>9.4f} {x.logprob - row.logprob:>9.4f}" for x in others]
        top = "".join(f"  {x.text!r} {x.probability:.3f}" for x in row.alternatives)
        yield f"{' '.join(numbers)}  {row.text!r}{top and f'  <{top}'}\n"
    for model, totals in zip(report.models, text.totals, strict=True):
        yield "\n"
        if len(report.models) > 1:
            yield f"{model}\n"
        yield from show(totals)


COLUMNS = {  # of a list of texts: heading -> name of the number
    "tokens": "tokens",
    "bits/byte": "bits per byte",
    **dict(zip(["rank 1-10", "-100", "-1000", "more"], BAND_NAMES, strict=True)),
    "log-prob.": "mean log-probability",
    "entropy": "mean entropy",
    "log-rank": "mean log-rank",
}


def _table_of_texts(report: Report) -> Iterator[str]:
    yield " ".join([*(f"{heading:>9}" for heading in COLUMNS), " text\n"])
    for text in report.texts:
        for _ in text.score(report.scorers):
            pass
        for model, totals in zip(report.models, text.totals, strict=True):
            cells = [f"{format_number(totals[name]):>9}" for name in COLUMNS.values()]
            name = text.name + (f" ({model})" if len(report.models) > 1 else "")
            yield " ".join([*cells, f" {name}\n"])


def show(numbers: dict[str, float]) -> Iterator[str]:
    """A line for each number, by name."""
    width = max(map(len, numbers))
    for name, value in numbers.items():
        yield f"{name:<{width}}  {format_number(value)}\n"


def format_number(value: float, digits: int = 4) -> str:
    """A number as text: an integer in full, others rounded, and a dash for nan."""
    if isinstance(value, float) and math.isnan(value):
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"


def jsonl(report: Report) -> Iterator[str]:
    """An object for each token and a last one with `totals`; or an object for each text of a list.

    `against` has the scores of the second model. Numbers that overflow are null.
    """
    for text in report.texts:
        for row, *others in text.score(report.scorers):
            if not report.is_list:
                against = dict(zip(["against"], map(_token, others), strict=False))
                yield json.dumps(_token(row) | against) + "\n"
        name = {"name": text.name} if report.is_list else {}
        totals = dict(zip(["totals", "against"], map(_finite, text.totals), strict=False))
        yield json.dumps(name | totals) + "\n"


def _token(score: TokenScore) -> dict[str, Any]:
    fields = score._asdict()
    alternatives = [x._asdict() for x in fields.pop("alternatives")]
    return fields | ({"alternatives": alternatives} if alternatives else {})


def _finite(numbers: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}
