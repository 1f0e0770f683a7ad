"""The Children's Book Test: choosing which of ten words belongs in the gap of a sentence.

Source: "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019), section 3.2.
"""

import re
from collections.abc import Iterator
from itertools import count, islice

from gpt2.evaluation.detokenizers import BOOK
from gpt2.evaluation.perplexity import OnRead
from gpt2.scorer import Scorer
from gpt2.text_stream import lines, text_chunks
from gpt2.windows import Window
from user_error import UserError

GAP = "XXXXX"
LABELS = [str(k) for k in range(1, 22)]
LAST_LINE = re.compile(rf"(.*{GAP}.*)\t(.+)\t\t(.+)")  # sentence, answer and candidates


def read_cbt(path: str, on_read: OnRead) -> Iterator[tuple[str, str, str, list[str]]]:
    """Questions: 20 sentences as natural text, the 21st unchanged, the answer, the candidates.

    The file has the published format: numbered lines; after the 21st come a tab, the answer, two
    tabs, and the candidates with | between them; a blank line ends a question.
    """
    numbered = filter(str.strip, lines(text_chunks(path, on_read=on_read)))
    for number in count(1):
        block = [line.rstrip("\n").partition(" ") for line in islice(numbered, 21)]
        if not block:
            return
        labels, _, (*context, last) = zip(*block, strict=True)
        found = LAST_LINE.fullmatch(last)
        if list(labels) != LABELS or not found or found[2] not in found[3].split("|"):
            raise UserError(
                f"{path}, question {number}: should be 21 sentences, numbered from 1 to 21, the "
                f"last one with {GAP}, and after it the answer and the candidates"
            )
        sentences = " ".join(map(BOOK.detokenize, context))
        yield sentences, found[1].strip(), found[2], found[3].split("|")


def measure_cbt(scorer: Scorer, path: str, on_read: OnRead) -> dict[str, float]:
    """How often the answer is the most likely candidate, scored with the rest of the sentence.

    The beginning of a question that is longer than n_ctx is left out.
    """
    import numpy as np

    right = []
    for context, question, answer, candidates in read_cbt(path, on_read):
        scored = scorer(choices(scorer, context, question, candidates))
        logprobs = [scores.logprob.sum(dtype=np.float64) for _, scores in scored]
        right.append(candidates[int(np.argmax(logprobs))] == answer)
    if not right:
        raise UserError(f"{path}: the file has no questions")
    return {"accuracy": 100 * float(np.mean(right))}


def choices(scorer: Scorer, context: str, question: str, candidates: list[str]) -> list[Window]:
    """A window for each candidate. It scores all tokens after those that the candidates share."""
    texts = [f"{context} {BOOK.detokenize(question.replace(GAP, word))}" for word in candidates]
    ids = [scorer.encoder.encode(text) for text in texts]
    n_shared = min(map(len, ids)) - 1
    while len({tuple(row[:n_shared]) for row in ids}) > 1:
        n_shared -= 1
    excess = max(0, max(map(len, ids)) - (scorer.hparams.n_ctx + 1))
    return [Window(row[excess:], len(row) - max(n_shared, excess + 1)) for row in ids]
