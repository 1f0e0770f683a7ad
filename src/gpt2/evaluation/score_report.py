"""The scores of texts as a table or as JSON Lines. page.py writes the page."""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from itertools import chain, islice, tee
from typing import Any

from gpt2.evaluation.texts import Text, counted
from gpt2.evaluation.totals import BAND_NAMES, Totals
from gpt2.scorer import Scorer, TokenScore
from gpt2.text_stream import Counts
from user_error import UserError


class ScoredText:
    """A text that one model scores, or two, while `tokens` is iterated over.

    Args:
      scorers: their models have the same vocabulary.
      may_be_empty: whether an empty text is no error, as in a list.
    """

    def __init__(self, text: Text, scorers: Sequence[Scorer], may_be_empty: bool):
        self.name, self._text, self._scorers = text.name, text, scorers
        self._may_be_empty = may_be_empty
        self._counts, self._totals = Counts(), [Totals() for _ in scorers]

    def tokens(self) -> Iterator[tuple[TokenScore, ...]]:
        """For each token, its scores by each model. Can be used once. Raises: UserError."""
        ids = self._scorers[0].encode(counted(self._text.chunks, self._counts))
        each = zip(self._scorers, tee(ids, len(self._scorers)), self._totals, strict=True)
        context = self._scorers[0].encoder.encode(self._text.context)
        yield from zip(
            *(scorer.tokens(same_ids, context, totals.add) for scorer, same_ids, totals in each),
            strict=True,
        )
        if not self._counts.bytes and not self._may_be_empty:
            raise UserError("the text is empty")

    def numbers(self) -> list[dict[str, float]]:
        """The metrics of each model. Read all tokens first."""
        return [totals.summary(self._counts) for totals in self._totals]


@dataclasses.dataclass(frozen=True)
class Report:
    """The texts to report on, and the models that score them."""

    texts: Sequence[ScoredText]
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
    tokens = text.tokens()
    tokens = chain(list(islice(tokens, 1)), tokens)  # an error must come before the heading
    extra = [f"{'logprob':>9} {'change':>9}"] * (len(report.models) - 1)
    yield " ".join(["    id   logprob   rank  entropy", *extra, " text\n"])
    for row, *others in tokens:
        numbers = [f"{row.id:>6} {row.logprob:>9.4f} {row.rank:>6} {row.entropy:>8.4f}"]
        numbers += [f"{x.logprob:>9.4f} {x.logprob - row.logprob:>9.4f}" for x in others]
        top = "".join(f"  {x.text!r} {x.probability:.3f}" for x in row.alternatives)
        yield f"{' '.join(numbers)}  {row.text!r}{top and f'  <{top}'}\n"
    for model, numbers_ in zip(report.models, text.numbers(), strict=True):
        yield "\n"
        if len(report.models) > 1:
            yield f"{model}\n"
        yield from show(numbers_)


COLUMNS = {  # of a list of texts: heading -> name of the number
    "tokens": "tokens",
    "bits/byte": "bits per byte",
    **dict(zip(["1-10 %", "-100 %", "-1000 %", "more %"], BAND_NAMES, strict=True)),
    **{
        f"{short} {kind}": f"{long} {name}"
        for short, name in [("logp", "log-probability"), ("entr", "entropy"), ("logr", "log-rank")]
        for kind, long in [("mean", "mean"), ("sd", "standard deviation of")]
    },
}


def _table_of_texts(report: Report) -> Iterator[str]:
    yield " ".join([*(f"{heading:>9}" for heading in COLUMNS), " text\n"])
    for text in report.texts:
        for _ in text.tokens():
            pass
        for model, numbers in zip(report.models, text.numbers(), strict=True):
            shares = {name: 100 * numbers[name] / max(1, numbers["tokens"]) for name in BAND_NAMES}
            cells = [format_number((numbers | shares)[name]) for name in COLUMNS.values()]
            name = text.name + (f" ({model})" if len(report.models) > 1 else "")
            yield " ".join([*(f"{cell:>9}" for cell in cells), f" {name}\n"])


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
        for row, *others in text.tokens():
            if not report.is_list:
                against = dict(zip(["against"], map(_token, others), strict=False))
                yield json.dumps(_token(row) | against) + "\n"
        name = {"name": text.name} if report.is_list else {}
        totals = dict(zip(["totals", "against"], map(_finite, text.numbers()), strict=False))
        yield json.dumps(name | totals) + "\n"


def _token(score: TokenScore) -> dict[str, Any]:
    fields = score._asdict()
    alternatives = [x._asdict() for x in fields.pop("alternatives")]
    return fields | ({"alternatives": alternatives} if alternatives else {})


def _finite(numbers: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}
