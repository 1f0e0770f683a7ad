"""The scores of texts as a table or as JSON Lines; page.py has the page."""

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
    """A text that is scored by one model, or by two, while `tokens` is iterated over.

    Args:
      scorers: their models have the same vocabulary.
      may_be_empty: as a text in a list may be.
    """

    def __init__(self, text: Text, scorers: Sequence[Scorer], may_be_empty: bool):
        self.name, self._text, self._scorers = text.name, text, scorers
        self._may_be_empty = may_be_empty
        self._counts, self._totals = Counts(), [Totals() for _ in scorers]

    def tokens(self) -> Iterator[tuple[TokenScore, ...]]:
        """For each token, its scores by each model. Can be used once. Raises: UserError."""
        ids = self._scorers[0].encode(counted(self._text.chunks, self._counts))
        each = zip(self._scorers, self._totals, tee(ids, len(self._scorers)), strict=True)
        yield from zip(*(self._tokens(*one) for one in each), strict=True)
        if not self._counts.bytes and not self._may_be_empty:
            raise UserError("the text is empty")

    def _tokens(self, scorer: Scorer, totals: Totals, ids: Iterator[int]) -> Iterator[TokenScore]:
        context, decode = scorer.encoder.encode(self._text.context), scorer.encoder.stream()
        for window, scores in scorer.scan(ids, context):
            totals.add(scores)
            yield from scorer.tokens(window, scores, decode)

    def numbers(self) -> list[dict[str, float]]:
        """The numbers of each model, once all tokens were read."""
        return [totals.summary(self._counts) for totals in self._totals]


@dataclasses.dataclass(frozen=True)
class Report:
    """The texts to write, and by which models they are scored."""

    texts: Sequence[ScoredText]
    scorers: Sequence[Scorer]  # of one model, or of two to compare
    is_list: bool  # whether each text is one row; otherwise there is one text

    @property
    def models(self) -> list[str]:
        """Their names."""
        return [scorer.model.folder.name for scorer in self.scorers]


def table(report: Report) -> Iterator[str]:
    """Columns for people to read: a line per token, or per text in a list."""
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
    """An integer as it is, another number rounded, and a dash for an undefined one."""
    if isinstance(value, float) and math.isnan(value):
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"


def jsonl(report: Report) -> Iterator[str]:
    """An object for each token and at the end one with `totals`; or one for each text of a list.

    With a second model, `against` has its scores. Numbers that overflow are null.
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
