"""The Children's Book Test: which of ten words belongs in the gap of a sentence.

Source: "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019), section 3.2.
"""

from collections.abc import Iterator

from gpt2.evaluation.detokenizers import BOOK
from gpt2.evaluation.perplexity import OnRead
from gpt2.scorer import Scorer
from gpt2.text_stream import lines, text_chunks
from gpt2.windows import Window
from user_error import UserError

GAP = "XXXXX"


def read_cbt(path: str, on_read: OnRead) -> Iterator[tuple[str, str, str, list[str]]]:
    """Questions: 20 sentences as natural text, the 21st as it is, the answer, the candidates.

    The format is that of the release: numbered lines; after the 21st come a tab, the answer, two
    tabs, and the candidates with | between them; a blank line ends a question.
    """
    context: list[str] = []
    for number, line in enumerate(lines(text_chunks(path, on_read=on_read)), 1):
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
            raise UserError(f"{path}, line {number}: {fields[1]!r} is not a candidate")
        yield " ".join(context), fields[0].strip(), fields[1], candidates
        context = []
    if context:
        raise UserError(f"{path}: the last question is cut short; it has 21 sentences")


def measure_cbt(scorer: Scorer, path: str, on_read: OnRead) -> dict[str, float]:
    """How often the answer is the most likely candidate, scored with the rest of the sentence.

    If a question is longer than n_ctx, its beginning is left out.
    """
    import numpy as np

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
    """A window for each candidate, which scores everything after what all of them share."""
    texts = [f"{context} {BOOK.detokenize(question.replace(GAP, word))}" for word in candidates]
    ids = [scorer.encoder.encode(text) for text in texts]
    n_shared = min(map(len, ids)) - 1
    while len({tuple(row[:n_shared]) for row in ids}) > 1:
        n_shared -= 1
    excess = max(0, max(map(len, ids)) - (scorer.hparams.n_ctx + 1))
    return [Window(row[excess:], len(row) - max(n_shared, excess + 1)) for row in ids]
