"""Language modelling: data sets that are one long text, measured in the units of the paper.

Source: "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019), section 3.1.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpt2.evaluation.detokenizers import ONE_BILLION_WORDS, PTB, WIKITEXT, Detokenizer
from gpt2.evaluation.perplexity import OnRead, SavedState, measure
from gpt2.scorer import Scorer
from gpt2.text_stream import Counts, lines, safe_pieces, text_chunks
from user_error import UserError

COMPLETE, TEST_PART = 100_000_000, 5_000_000  # bytes of enwik8 and text8, and of their test parts
CHANGED = "lines that differ after tokenizing again"  # the name of a metric


@dataclass(frozen=True)
class LongText:
    """A data set that is one long text.

    A sentence is predicted from those before it, even if the data set has them in random order
    (1BW).
    """

    unit: str  # of the metric: word, byte or character
    # What the first line with a word must match (the first piece, if there is no detokenizer), and
    # the error otherwise.
    pattern: re.Pattern[str]
    format_error: str
    detokenizer: Detokenizer | None = None  # None: the text is natural already

    def measure(
        self, scorer: Scorer, path: str, on_read: OnRead, state: SavedState, key: str
    ) -> dict[str, float]:
        """Score the file, and divide by its own units. The end of a line counts as a word, too.

        Args: as in tasks.measure_task.
        Returns: the metric by name; if there is a detokenizer, also the number of lines that are
          not restored by it.
        Raises: UserError
        """
        counts, changed = Counts(), Counts()
        if self.detokenizer:
            checked = self._checked(path, lines(text_chunks(path, on_read=on_read)), counts)
            text = _natural(checked, self.detokenizer, changed)
        else:
            complete = path != "-" and Path(path).stat().st_size == COMPLETE
            start = COMPLETE - TEST_PART if complete else 0
            chunks = text_chunks(path, start=start, cut=True, on_read=on_read)
            text = self._checked(path, safe_pieces(chunks), counts)
        totals = measure(text, scorer, state, key)
        if self.detokenizer:
            perplexity = totals.perplexity(counts.words + counts.lines)
            return {"perplexity per word": perplexity, CHANGED: changed.lines}
        units = counts.bytes if self.unit == "byte" else counts.characters
        return {f"bits per {self.unit}": totals.bits(units)}

    def _checked(self, path: str, parts: Iterator[str], counts: Counts) -> Iterator[str]:
        """Lines or pieces, counted. Raises: UserError if the file is in another format."""
        checked = False
        for part in parts:
            if not checked and part.strip():
                if not self.pattern.fullmatch(part):
                    raise UserError(f"{path}: {self.format_error}")
                checked = True
            counts.add(part)
            yield part


def _natural(lines: Iterator[str], detokenizer: Detokenizer, changed: Counts) -> Iterator[str]:
    """The lines as natural text; `changed` counts those that are not restored."""
    for line in lines:
        natural = detokenizer.detokenize(line)
        changed.lines += detokenizer.tokenize(natural) != line
        yield natural


_WIKITEXT = LongText(
    "word",
    re.compile(r" = .+ = \n?"),
    "not a WikiText file: the first line should be a title such as ' = Title = '",
    detokenizer=WIKITEXT,
)
LONG_TEXTS = {
    "wikitext-2": _WIKITEXT,
    "wikitext-103": _WIKITEXT,
    "ptb": LongText(
        "word",
        re.compile(r" (?:[^\sA-MO-Z]+ )+\n?"),
        "the first line should be words with a space around each, and no capital letter but N",
        detokenizer=PTB,
    ),
    "1bw": LongText(
        "word",
        re.compile(r"(?:\S+(?<![^\W\d],) )*\S+(?<![^\W\d],)\n?"),
        "the first line should be one sentence, with a single space before each word and comma",
        detokenizer=ONE_BILLION_WORDS,
    ),
    "enwik8": LongText(
        "byte",
        re.compile(r".*(?:\[\[|<page>).*", re.DOTALL),
        "no Wikipedia markup in it: enwik8 is a dump in XML",
    ),
    "text8": LongText("character", re.compile(r"[a-z ]*\n?"), "text8 has only a to z and spaces"),
}
