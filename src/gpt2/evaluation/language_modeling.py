"""Language modelling: data sets that are one long text, in the units of the paper.

Source: "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019), section 3.1.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gpt2.evaluation.detokenizers import ONE_BILLION_WORDS, PTB, WIKITEXT, Detokenizer
from gpt2.evaluation.perplexity import OnRead, SavedState, measure
from gpt2.scorer import Scorer
from gpt2.text_stream import Counts, lines, safe_pieces, text_chunks
from user_error import UserError

WIKIPEDIA = 100_000_000  # bytes of the complete enwik8 and text8


@dataclass(frozen=True)
class LongText:
    """A data set that is one long text.

    A sentence is predicted from those before it, even where the data set has them in random
    order (1BW).
    """

    metric: str  # what is measured
    units: Callable[[Counts], int]  # how many of the metric's units a text has
    # What is wrong with a line (with a piece, if there is no detokenizer), or None. The second
    # argument says whether only blank lines came before.
    mistake: Callable[[str, bool], str | None]
    detokenizer: Detokenizer | None = None  # None: the text is natural already
    test_part: int = 0  # bytes at the end of the complete file that are its test part; 0: all

    def measure(
        self, scorer: Scorer, path: str, on_read: OnRead, state: SavedState, key: str
    ) -> dict[str, float]:
        """Score the file, and divide by its own units.

        Args: as in tasks.measure_task.
        Returns: the metric by name.
        Raises: UserError
        """
        counts, changed = Counts(), Counts()
        pieces = self._read(path, counts, changed, on_read)
        totals = measure(pieces, scorer, state, key)
        units = self.units(counts)
        value = totals.bits(units) if self.metric.startswith("bits") else totals.perplexity(units)
        lost: dict[str, float] = {"lines that re-tokenizing does not give back": changed.lines}
        return {self.metric: value} | (lost if self.detokenizer else {})

    def _read(self, path: str, counts: Counts, changed: Counts, on_read: OnRead) -> Iterator[str]:
        """The natural text in pieces to encode separately; counts its units, and what is lost."""
        complete = path != "-" and Path(path).is_file() and Path(path).stat().st_size == WIKIPEDIA
        start = WIKIPEDIA - self.test_part if complete and self.test_part else 0
        chunks = text_chunks(path, start=start, cut=not self.detokenizer, on_read=on_read)
        if not self.detokenizer:
            return self._checked(path, safe_pieces(chunks), counts)
        return safe_pieces(self._natural(self._checked(path, lines(chunks), counts), changed))

    def _checked(self, path: str, parts: Iterator[str], counts: Counts) -> Iterator[str]:
        """Lines or pieces, counted. Raises: UserError for one that is not in the format."""
        first = True
        for number, part in enumerate(parts, 1):
            mistake = self.mistake(part, first)
            if mistake:
                place = f", line {number}" if self.detokenizer else ""
                raise UserError(f"{path}{place}: {mistake}")
            first = first and not part.strip()
            counts.add(part)
            yield part

    def _natural(self, lines: Iterator[str], changed: Counts) -> Iterator[str]:
        assert self.detokenizer
        for line in lines:
            natural = self.detokenizer.detokenize(line)
            if self.detokenizer.tokenize(natural) != line:
                changed.lines += 1
            yield natural


def words_and_line_ends(counts: Counts) -> int:
    """Tokens of a word-level data set, in which the end of a line is one too."""
    return counts.words + counts.lines


def _wikitext_mistake(line: str, first: bool) -> str | None:
    if not line.strip():
        return None
    if first and not re.fullmatch(r" = .+ = \n?", line):
        return "not a WikiText file: the first line must be a title such as ' = Title = '"
    return None if re.fullmatch(r" .* \n?", line) else "a WikiText line begins and ends in a space"


def _ptb_mistake(line: str, _: bool) -> str | None:
    if re.search("[A-MO-Z]", line):
        return "the Penn Treebank of language modelling has no capital letter but N"
    found = re.fullmatch(r" (?:\S+ )+\n?", line)
    return None if found else "a Penn Treebank line is words with a space around each"


def _one_billion_words_mistake(line: str, _: bool) -> str | None:
    if not re.fullmatch(r"\S+(?: \S+)*\n?", line):
        return "a line of 1BW is one sentence, with single spaces between its tokens"
    return "not tokenised: a comma against a word" if re.search(r"[^\W\d],(?:\s|$)", line) else None


def _text8_mistake(piece: str, _: bool) -> str | None:
    wrong = re.search("[^a-z ]", piece.removesuffix("\n"))
    return f"text8 has only a to z and spaces, not {wrong[0]!r}" if wrong else None


def _enwik8_mistake(piece: str, first: bool) -> str | None:
    wiki = not first or "[[" in piece or "<page>" in piece
    return None if wiki else "no Wikipedia markup in it: enwik8 is a dump in XML"


LONG_TEXTS = {
    "wikitext-2": LongText("perplexity per word", words_and_line_ends, _wikitext_mistake, WIKITEXT),
    "ptb": LongText("perplexity per word", words_and_line_ends, _ptb_mistake, PTB),
    "enwik8": LongText(
        "bits per byte", lambda counts: counts.bytes, _enwik8_mistake, test_part=5_000_000
    ),
    "text8": LongText(
        "bits per character", lambda counts: counts.characters, _text8_mistake, test_part=5_000_000
    ),
    "wikitext-103": LongText(
        "perplexity per word", words_and_line_ends, _wikitext_mistake, WIKITEXT
    ),
    "1bw": LongText(
        "perplexity per word", words_and_line_ends, _one_billion_words_mistake, ONE_BILLION_WORDS
    ),
}
