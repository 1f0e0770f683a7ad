"""LAMBADA: the last word of a passage.

Source: "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019), section 3.3.
"""

import re
from collections.abc import Iterator

from gpt2.evaluation.detokenizers import BOOK, natural_lambada
from gpt2.evaluation.perplexity import OnRead
from gpt2.evaluation.stop_words import STOP_WORDS
from gpt2.scorer import Scorer, Scores
from gpt2.text_stream import lines, text_chunks, text_record
from gpt2.windows import Window
from user_error import UserError


def read_lambada(path: str, on_read: OnRead) -> Iterator[tuple[str, str]]:
    """Passages: the context, and the last word with the white space before it.

    As in lm-evaluation-harness, the word is what follows the last space. If a line ends after that
    space, it is the words on both sides of the line end.

    A file that ends in .jsonl holds objects with `text`, the passage as it was printed (the
    paper's "version without preprocessing"); any other file has a tokenised passage on each line.
    Blank lines are skipped.
    """
    for number, line in enumerate(lines(text_chunks(path, on_read=on_read)), 1):
        if not line.strip():
            continue
        if path.endswith(".jsonl"):
            passage = natural_lambada(text_record(f"{path}, line {number}", line)["text"])
        else:
            passage = natural_lambada(BOOK.detokenize(line))
        found = re.fullmatch(r"(\n.*\S)(\s* [^ ]+)", passage, re.DOTALL)
        if not found:
            raise UserError(f"{path}, line {number}: a passage has at least two words")
        yield found[1], found[2]


def measure_lambada(scorer: Scorer, path: str, on_read: OnRead) -> dict[str, float]:
    """Accuracy and perplexity of the last word of passages.

    There are two definitions. `last token` looks only at the last token of the word, given those
    before it; `whole word` needs each of its tokens right, and multiplies their probabilities.

    The stop-word filter reflects that a sentence ends here: where the last word begins,
    tokens that are a space and a stop word are left out of the prediction. A passage that does end
    in a stop word then counts as wrong, and not in the perplexity, where it would be infinite.
    """
    import numpy as np

    n_ctx = scorer.hparams.n_ctx
    passages = list(read_lambada(path, on_read))
    if not passages:
        raise UserError(f"{path}: the file is empty")

    def windows() -> Iterator[Window]:
        for context, word in passages:
            ids = scorer.encoder.encode(word)
            yield Window((scorer.encoder.encode(context) + ids)[-n_ctx - 1 :], len(ids))

    scored = scorer(windows(), scorer.allowed_tokens(STOP_WORDS))
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
    rank, logprob = scores.rank.copy(), scores.logprob.astype("float64")
    if filtered:
        assert scores.filtered_rank is not None and scores.filtered_logprob is not None
        rank[0], logprob[0] = scores.filtered_rank[0], scores.filtered_logprob[0]
    return [(bool(rank[-1] == 1), logprob[-1]), (bool((rank == 1).all()), logprob.sum())]
