"""The scores of a text as a table, as JSON Lines, or as a page that colours tokens by rank."""

import html
import json
import math
from collections.abc import Callable, Iterable, Iterator

from gpt2.evaluation.scorer import TokenScore

Totals = Callable[[], dict[str, float]]  # known once all rows are through
Format = Callable[[Iterable[TokenScore], Totals], Iterator[str]]


def table(rows: Iterable[TokenScore], totals: Totals) -> Iterator[str]:
    """Columns for people to read."""
    yield f"{'id':>6} {'logprob':>9} {'rank':>6} {'entropy':>8}  text\n"
    for row in rows:
        numbers = f"{row.id:>6} {row.logprob:>9.4f} {row.rank:>6} {row.entropy:>8.4f}"
        yield f"{numbers}  {row.text!r}\n"
    yield "\n"
    yield from show(totals())


def show(numbers: dict[str, float]) -> Iterator[str]:
    """A line for each number, by name."""
    width = max(map(len, numbers))
    for name, value in numbers.items():
        yield f"{name:<{width}}  {written(value)}\n"


def written(value: float, digits: int = 4) -> str:
    """A whole number as it is, another one rounded."""
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"


def jsonl(rows: Iterable[TokenScore], totals: Totals) -> Iterator[str]:
    """An object for each token, and at the end one with `totals`; what overflows is null."""
    for row in rows:
        yield json.dumps(row._asdict()) + "\n"
    finite = {name: value if math.isfinite(value) else None for name, value in totals().items()}
    yield json.dumps({"totals": finite}) + "\n"


BANDS = [("top10", 10), ("top100", 100), ("top1000", 1000), ("beyond", None)]
HEAD = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>How likely each token is</title>
<style>
body { max-width: 50em; margin: 2em auto; padding: 0 1em; font: 16px/1.6 sans-serif; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; }
.top10 { background: #c8e6c9; }
.top100 { background: #fff3b0; }
.top1000 { background: #ffccbc; }
.beyond { background: #d1c4e9; }
td { padding-right: 2em; }
</style>
<p>Rank of each token among the model's predictions:
<span class="top10">1 to 10</span>
<span class="top100">to 100</span>
<span class="top1000">to 1000</span>
<span class="beyond">beyond</span>.
Text that a model wrote has mostly low ranks. Point at a token for its numbers.</p>
<div class="text">"""


def page(rows: Iterable[TokenScore], totals: Totals) -> Iterator[str]:
    """A page of HTML that needs nothing else."""
    yield HEAD
    for row in rows:
        band = next(name for name, limit in BANDS if limit is None or row.rank <= limit)
        numbers = f"rank {row.rank}, log-probability {row.logprob:.4f}, entropy {row.entropy:.4f}"
        title = f"token {row.id}: {numbers}"
        yield f'<span class="{band}" title="{title}">{html.escape(row.text)}</span>'
    yield "</div>\n<table>\n"
    for name, value in totals().items():
        yield f"<tr><td>{name}</td><td>{written(value)}</td></tr>\n"
    yield "</table>\n</html>\n"


FORMATS: dict[str, Format] = {"table": table, "jsonl": jsonl, "html": page}
