"""LAMBADA: the last word of a passage.

Source: "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019), section 3.3.
"""

import re
from collections.abc import Iterator

from gpt2.evaluation.detokenizers import BOOK, natural_lambada
from gpt2.evaluation.perplexity import OnRead
from gpt2.scorer import Scorer, Scores
from gpt2.text_stream import lines, text_chunks, text_record
from gpt2.windows import Window
from user_error import UserError

# Words that a sentence rarely ends with: the articles, pronouns, prepositions, conjunctions,
# auxiliaries and related adverbs that English grammars list, put together for this repository. The
# paper does not publish its list.
_STOP_WORDS = """
a an the this that these those some any no every each either neither both all such
i me my mine myself you your yours yourself yourselves he him his himself she her hers herself
it its itself we us our ours ourselves they them their theirs themselves one ones
who whom whose which what whoever whatever whichever
someone somebody something anyone anybody anything everyone everybody everything nobody nothing
of in to for with on at by from about into over after before under between against through
during without within along across behind beyond below above near among around upon toward
towards until till since off out up down onto beside besides despite except per via like unlike
and or but nor so yet if because although though unless while whereas whether than as when
where why how once
be am is are was were been being have has had having do does did doing done
can could may might must shall should will would ought need cannot
don't doesn't didn't isn't aren't wasn't weren't haven't hasn't hadn't won't wouldn't can't
couldn't shouldn't
not only just very too also then there here now again ever never always often even still
already almost quite rather really more most less least much many few own other another same
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


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
        place = f"{path}, line {number}"
        is_json = path.endswith(".jsonl")
        text = text_record(place, line)["text"] if is_json else BOOK.detokenize(line)
        found = re.fullmatch(r"(\n.*\S)(\s* [^ ]+)", natural_lambada(text), re.DOTALL)
        if not found:
            raise UserError(f"{place}: a passage has at least two words")
        yield found[1], found[2]


def measure_lambada(scorer: Scorer, path: str, on_read: OnRead) -> dict[str, float]:
    """Accuracy and perplexity of the last word of passages.

    There are two definitions. `last token` looks only at the last token of the word, given those
    before it; `whole word` needs each of its tokens right, and multiplies their probabilities.

    The stop-word filter reflects that a sentence ends here: where the last word begins, tokens
    that are a space and a stop word are removed from the prediction. A passage that does end in a
    stop word then counts as wrong, and is not part of the perplexity, where it would be infinite.
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

    scored = [scores for _, scores in scorer(windows(), scorer.allowed_tokens(STOP_WORDS))]
    is_stop_word = [word.strip().lower() in STOP_WORDS for _, word in passages]
    metrics = {}
    for definition in ("last token", "whole word"):
        for name, filtered in [(definition, False), (f"{definition}, stop-word filter", True)]:
            results = [
                _last_word(scores, definition == "whole word", filtered)
                for scores, stop in zip(scored, is_stop_word, strict=True)
                if not (filtered and stop)
            ]
            right = sum(right for right, _ in results)
            nats = [-logprob for _, logprob in results]
            metrics[f"accuracy, {name}"] = 100 * right / len(passages)
            metrics[f"perplexity, {name}"] = float(np.exp(np.mean(nats))) if nats else float("nan")
    return metrics


def _last_word(scores: Scores, whole: bool, filtered: bool) -> tuple[bool, float]:
    """Whether the word, or its last token, is right, and its log-probability."""
    rank, logprob = scores.rank.copy(), scores.logprob.astype("float64")
    if filtered:
        assert scores.filtered_rank is not None and scores.filtered_logprob is not None
        rank[0], logprob[0] = scores.filtered_rank[0], scores.filtered_logprob[0]
    start = 0 if whole else -1
    return bool((rank[start:] == 1).all()), float(logprob[start:].sum())
