"""The zero-shot tasks of the paper: how their files are read, and what is measured.

Source: "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019), section 3.
What it leaves open is settled here, and said where it is.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpt2.evaluation.detokenizers import (
    BOOK,
    ONE_BILLION_WORDS,
    PTB,
    WIKITEXT,
    Detokenizer,
    natural_lambada,
)
from gpt2.evaluation.perplexity import Totals
from gpt2.evaluation.scorer import Scorer, Scores, Window
from gpt2.evaluation.stop_words import STOP_WORDS
from gpt2.text_stream import Counts, lines, read_text, safe_pieces
from hparams import UserError, parse_json

OnRead = Callable[[int], object]
Total = Callable[[Iterable[str]], Totals]
Metrics = dict[str, float]  # by name; accuracies in percent


# Language modelling: one long text. -----------------------------------------------------------


@dataclass(frozen=True)
class LongText:
    """A data set that is one long text. A sentence is predicted from those before it even where
    the data set has them in random order (1BW).

    Args:
      metric: what is measured.
      units: how many of the metric's units a text has.
      mistake: what is wrong with a line (or with a piece, if there is no detokenizer), or None.
        It is told whether only blank lines came before.
      detokenizer: None for what is natural text already.
      test_part: of a file with 100 million bytes, how many at the end are the customary test
        part; 0 for all.
    """

    metric: str
    units: Callable[[Counts], int]
    mistake: Callable[[str, bool], str | None]
    detokenizer: Detokenizer | None = None
    test_part: int = 0

    def measure(self, total: Total, path: str, on_read: OnRead) -> Metrics:
        """Score the whole file, and divide by its own units. Raises: UserError"""
        counts, changed = Counts(), Counts()
        totals = total(self._read(path, counts, changed, on_read))
        units = self.units(counts)
        value = totals.bits(units) if self.metric.startswith("bits") else totals.perplexity(units)
        lost: Metrics = {"lines that re-tokenizing does not give back": changed.lines}
        return {self.metric: value} | (lost if self.detokenizer else {})

    def _read(self, path: str, counts: Counts, changed: Counts, on_read: OnRead) -> Iterator[str]:
        whole = path != "-" and Path(path).is_file() and Path(path).stat().st_size == 100_000_000
        start = 100_000_000 - self.test_part if whole and self.test_part else 0
        chunks = read_text(path, start=start, cut=not self.detokenizer, on_read=on_read)
        parts = lines(chunks) if self.detokenizer else safe_pieces(chunks)
        first = True
        for number, part in enumerate(parts, 1):
            mistake = self.mistake(part, first)
            if mistake:
                place = f", line {number}" if self.detokenizer else ""
                raise UserError(f"{path}{place}: {mistake}")
            first = first and not part.strip()
            counts.add(part)
            if self.detokenizer:
                natural = self.detokenizer.detokenize(part)
                if self.detokenizer.tokenize(natural) != part:
                    changed.lines += 1
                yield natural
            else:
                yield part


def words_and_line_ends(counts: Counts) -> int:
    """Tokens of a word-level data set, which counts the end of a line as one."""
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


# LAMBADA ---------------------------------------------------------------------------------------


def read_lambada(path: str, on_read: OnRead) -> Iterator[tuple[str, str]]:
    """Passages: all but the last word, and the last word with the space before it.

    A file that ends in .jsonl holds objects with `text`, the passage as it was printed (the
    paper's "version without preprocessing"); any other holds a tokenised passage in each line.
    Blank lines are skipped.
    """
    for number, line in enumerate(lines(read_text(path, on_read=on_read)), 1):
        if not line.strip():
            continue
        if path.endswith(".jsonl"):
            try:
                passage = natural_lambada(parse_json(line)["text"])
            except (ValueError, TypeError, KeyError, AttributeError):
                raise UserError(f"{path}, line {number}: no JSON object with a text") from None
        else:
            passage = natural_lambada(BOOK.detokenize(line))
        found = re.fullmatch(r"(\n.*\S)(\s+\S+)", passage, re.DOTALL)
        if not found:
            raise UserError(f"{path}, line {number}: a passage has two words at least")
        yield found[1], found[2]


def measure_lambada(scorer: Scorer, path: str, on_read: OnRead) -> Metrics:
    """Accuracy and perplexity of the last word of passages.

    Two definitions: `last token` looks only at the last token of the word, given those before;
    `whole word` wants each of its tokens right, and multiplies their probabilities.

    With the stop-word filter, predictions leave out the tokens that are a space and a stop word,
    where the last word begins; it approximates that a sentence ends there. A passage that does
    end in a stop word is then always wrong, and not in the perplexity, where it would be
    infinite.
    """
    n_ctx = scorer.hparams.n_ctx
    passages = list(read_lambada(path, on_read))
    if not passages:
        raise UserError(f"{path}: the file is empty")

    def windows() -> Iterator[Window]:
        for context, word in passages:
            ids = scorer.encoder.encode(word)
            yield Window((scorer.encoder.encode(context) + ids)[-n_ctx - 1 :], len(ids))

    scored = scorer(windows(), scorer.all_but(STOP_WORDS))
    rows = [
        (_last_word(scores, False), _last_word(scores, True), word.strip().lower() in STOP_WORDS)
        for (_, scores), (_, word) in zip(scored, passages, strict=True)
    ]
    metrics = {}
    for index, definition in enumerate(["last token", "whole word"]):
        plain = [row[0][index] for row in rows]
        kept = [row[1][index] for row in rows if not row[2]]
        for name, results in [(definition, plain), (f"{definition}, stop-word filter", kept)]:
            metrics[f"accuracy, {name}"] = 100 * sum(right for right, _ in results) / len(rows)
            nats = [-logprob for _, logprob in results]
            metrics[f"perplexity, {name}"] = float(np.exp(np.mean(nats))) if nats else float("nan")
    return metrics


def _last_word(scores: Scores, filtered: bool) -> list[tuple[bool, float]]:
    """Right or not, and log-probability: of the last token, and of the whole word."""
    rank, logprob = scores.rank.copy(), scores.logprob.astype(np.float64)
    if filtered:
        assert scores.kept_rank is not None and scores.kept_logprob is not None
        rank[0], logprob[0] = scores.kept_rank[0], scores.kept_logprob[0]
    return [(bool(rank[-1] == 1), logprob[-1]), (bool((rank == 1).all()), logprob.sum())]


# The Children's Book Test ----------------------------------------------------------------------

GAP = "XXXXX"


def read_cbt(path: str, on_read: OnRead) -> Iterator[tuple[str, str, str, list[str]]]:
    """Questions: 20 sentences as natural text, the 21st as it is, the answer, the candidates.

    The format is that of the release: numbered lines; the 21st goes on with a tab, the answer,
    two tabs, and the candidates with | between them; a blank line ends a question.
    """
    context: list[str] = []
    for number, line in enumerate(lines(read_text(path, on_read=on_read)), 1):
        line = line.rstrip("\n")
        if not line and not context:
            continue
        label, _, sentence = line.partition(" ")
        if label != str(len(context) + 1):
            raise UserError(f"{path}, line {number}: should be sentence {len(context) + 1} of 21")
        if len(context) < 20:
            context.append(BOOK.detokenize(sentence))
            continue
        fields = sentence.split("\t")
        candidates = fields[-1].split("|")
        if len(fields) != 4 or fields[2] or GAP not in fields[0] or len(candidates) < 2:
            raise UserError(
                f"{path}, line {number}: should be a sentence with {GAP}, tab, answer, two tabs, "
                "candidates with | between them"
            )
        if fields[1] not in candidates:
            raise UserError(f"{path}, line {number}: {fields[1]!r} is no candidate")
        yield " ".join(context), fields[0].strip(), fields[1], candidates
        context = []
    if context:
        raise UserError(f"{path}: the last question is cut short; it has 21 sentences")


def measure_cbt(scorer: Scorer, path: str, on_read: OnRead) -> Metrics:
    """How often the answer is the likeliest candidate: choice and rest of the sentence, given all
    before. Where a question is longer than n_ctx, its beginning is left out."""
    questions: list[tuple[str, list[str]]] = []

    def windows() -> Iterator[Window]:
        for context, question, answer, candidates in read_cbt(path, on_read):
            questions.append((answer, candidates))
            yield from choices(scorer, context, question, candidates)

    right: list[bool] = []
    logprobs: list[float] = []
    for _, scores in scorer(windows()):
        logprobs.append(float(scores.logprob.sum(dtype=np.float64)))
        answer, candidates = questions[len(right)]
        if len(logprobs) == len(candidates):
            right.append(candidates[int(np.argmax(logprobs))] == answer)
            logprobs = []
    if not right:
        raise UserError(f"{path}: the file has no questions")
    return {"accuracy": 100 * float(np.mean(right))}


def choices(scorer: Scorer, context: str, question: str, candidates: list[str]) -> list[Window]:
    """A window for each candidate, which scores all that the candidates do not share."""
    texts = [f"{context} {BOOK.detokenize(question.replace(GAP, word))}" for word in candidates]
    ids = [scorer.encoder.encode(text) for text in texts]
    n_shared = min(map(len, ids)) - 1
    while len({tuple(row[:n_shared]) for row in ids}) > 1:
        n_shared -= 1
    excess = max(0, max(map(len, ids)) - (scorer.hparams.n_ctx + 1))
    return [Window(row[excess:], len(row) - max(n_shared, excess + 1)) for row in ids]


# All of them -----------------------------------------------------------------------------------

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
TASKS = ["lambada", "cbt-cn", "cbt-ne", *LONG_TEXTS]


def measure_task(name: str, scorer: Scorer, total: Total, path: str, on_read: OnRead) -> Metrics:
    """The numbers of one of TASKS.

    Args:
      total: sums the scores of a long text that comes in chunks.
      path: the task's file; `-` is stdin.
      on_read: told how many bytes were read, again and again.
    Raises: UserError if the file is not in the task's format.
    """
    if name == "lambada":
        return measure_lambada(scorer, path, on_read)
    if name.startswith("cbt"):
        return measure_cbt(scorer, path, on_read)
    return LONG_TEXTS[name].measure(total, path, on_read)
