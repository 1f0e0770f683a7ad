"""The texts to score: whole files, or the lines of JSON Lines files."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from pathlib import Path

from gpt2.evaluation.totals import Totals
from gpt2.scorer import Scorer, TokenScore
from gpt2.terminal import log_once
from gpt2.text_stream import Counts, lines, safe_pieces, text_chunks, text_record
from user_error import UserError


@dataclasses.dataclass
class Text:
    """A text to score by one model, or by two that have the same vocabulary."""

    name: str
    chunks: Iterable[str]  # read while the text is scored, and only once
    context: str = ""  # comes before the text, and is not scored
    may_be_empty: bool = False
    totals: list[dict[str, float]] = dataclasses.field(default_factory=list)  # once it is scored

    def score(self, scorers: Sequence[Scorer]) -> Iterator[tuple[TokenScore, ...]]:
        """For each token, its scores by each model; then sets `totals`, the metrics by each.

        Raises: UserError if the text is empty and must not be, or cannot be read.
        """
        counts, sums = Counts(), [Totals() for _ in scorers]
        each = zip(tee(counted(self.chunks, counts), len(scorers)), scorers, sums, strict=True)
        scored = (
            scorer.score_text(chunks, self.context, totals.add, self.may_be_empty)
            for chunks, scorer, totals in each
        )
        yield from zip(*scored, strict=True)
        self.totals = [totals.summary(counts) for totals in sums]


def check_files(files: Sequence[str]) -> None:
    """Raise UserError for a file that does not exist, or if stdin is read twice."""
    for file in files:
        if file != "-" and not Path(file).exists():
            raise UserError(f"{file}: no such file")
    if list(files).count("-") > 1:
        raise UserError("standard input can be read only once")


def is_list(files: Sequence[str]) -> bool:
    """Whether the files hold a list of texts, not a single one."""
    return len(files) != 1 or files[0].endswith(".jsonl")


def read_texts(files: Sequence[str]) -> Iterator[Text]:
    """The texts of the files; `-` is standard input.

    Each line of a .jsonl file is an object with a `text`. If it also has a `prompt`, as a sample
    does, the prompt is the context. A text's name is its `number`, or the number of its line.
    Raises: UserError
    """
    for file in files:
        if file.endswith(".jsonl"):
            yield from _records(file, len(files) > 1)
        else:
            name = "standard input" if file == "-" else Path(file).name
            yield Text(name, text_chunks(file), may_be_empty=is_list(files))


def _records(file: str, several: bool) -> Iterator[Text]:
    for number, line in enumerate(lines(text_chunks(file)), 1):
        if not line.strip():
            continue
        place = f"{file}, line {number}"
        record = text_record(place, line)
        name, prompt = str(record.get("number", number)), record.get("prompt") or ""
        if not isinstance(prompt, str):
            raise UserError(f"{place}: the prompt is not text")
        name = f"{Path(file).name} {name}" if several else name
        yield Text(name, [record["text"]], prompt, may_be_empty=True)


def counted(chunks: Iterable[str], counts: Counts) -> Iterator[str]:
    """A text in pieces that can be encoded separately; `counts` is updated.

    `<|endoftext|>` in the text is ordinary text, as in a prompt. A line in the log explains this.
    """
    from encoder import END_OF_TEXT  # not at the top: it imports NumPy

    for piece in safe_pieces(chunks):
        if END_OF_TEXT in piece:
            log_once(
                f"the text contains {END_OF_TEXT}, which is scored as ordinary characters and does "
                "not end a text; to score texts separately, use a .jsonl file"
            )
        counts.add(piece)
        yield piece
