"""The paper's tasks: fixtures in each format, and numbers that were worked out by other means.

The natural text of each fixture and its units are written out by hand here; log-probabilities
are NumPy's.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT
from scoring import log_probabilities, nats, scorer_of

import numpy_gpt2
from gpt2.evaluation import cbt, lambada, language_modeling, tasks
from gpt2.evaluation.lambada import STOP_WORDS
from gpt2.evaluation.language_modeling import CHANGED
from gpt2.evaluation.perplexity import SavedState
from gpt2.scorer import Scorer, Scores
from user_error import UserError

DATA = ROOT / "tests" / "data"


def silent(_):
    """Hears of progress."""


def run_task(name, scorer, path):
    return tasks.measure_task(name, scorer, str(path), silent, SavedState(None, {}))


WIKITEXT = """
= The Tall Ship =

The Tall Ship is a three-masted vessel (built in 1902); it cost $1,200, or 3.5 times its rival's \
price. It didn't sail until 1904.

= = Crew = =

"A fine ship," wrote its captain, J. Brown of the U.S. Navy.
"""
PTB = """the company's shares didn't rise <unk> said mr. smith
analysts' forecasts of $N billion were N N too high
"""
ONE_BILLION_WORDS = """\
"It's early," said Mr. Hall, who didn't vote for the $5.5 million plan (or any other).
The well-known U.S. firm sold 20% of its 1,500 shops -- at last.
"""


@pytest.mark.parametrize(
    ("name", "file", "natural", "metric", "units"),
    [
        # Words and line ends, characters, bytes, as `wc` counts them in the files.
        ("wikitext-2", "wikitext.raw", WIKITEXT, "perplexity per word", 66 + 8),
        ("ptb", "ptb.txt", PTB, "perplexity per word", 23 + 2),
        ("1bw", "1bw.txt", ONE_BILLION_WORDS, "perplexity per word", 41 + 2),
        ("text8", "text8", None, "bits per character", 74),
        ("enwik8", "enwik8", None, "bits per byte", 155),
    ],
)
def test_long_text_by_numpy(tiny, name, file, natural, metric, units):
    scorer = scorer_of(tiny, batch_size=2)
    metrics = run_task(name, scorer, DATA / file)
    natural = natural or (DATA / file).read_text(encoding="utf-8")
    ids = [scorer.end_of_text, *scorer.encoder.encode(natural)]
    assert len(ids) <= 513
    total = nats(tiny, ids, len(ids) - 1).sum()
    expected = total / units / np.log(2) if "bits" in metric else np.exp(total / units)
    assert metrics[metric] == pytest.approx(expected, rel=1e-3)
    assert metrics.get(CHANGED, 0) == 0


def test_lines_that_do_not_come_back_are_counted(tiny, tmp_path):
    path = tmp_path / "wiki"
    path.write_text(" = A = \n it's one \n it 's none \n the end. \n", encoding="utf-8")
    assert run_task("wikitext-103", scorer_of(tiny), path)[CHANGED] == 2


def test_of_a_complete_file_of_100_million_bytes_the_end_is_measured(tiny, tmp_path, monkeypatch):
    path = tmp_path / "text8"
    with path.open("wb") as file:
        file.truncate(95_000_000 - 1)
        file.seek(0, 2)
        file.write(b"!" + b"some words " * 5 + b" " * (5_000_000 - 55))
    read = []

    def measure(pieces, *_):
        read.extend(pieces)
        return SimpleNamespace(bits=lambda units: units)

    monkeypatch.setattr(language_modeling, "measure", measure)
    metrics = run_task("text8", scorer_of(tiny), path)
    assert "".join(read).startswith("some words some words")
    assert metrics == {"bits per character": 5_000_000}


PASSAGES = {
    "lambada.jsonl": [
        '\nHe had carried the lantern up from the harbour. "Leave it by the door," she said, and '
        "so beside the door he left the| lantern",
        "\nThe two of them had looked for Mara all day. At last, near the mill, they found| Mara",
        "\nShe wanted the blue one, and he said that he would give it to| her",
    ],
    "lambada.txt": [
        '\nhe had carried the lantern up from the harbour. "don\'t drop it," she said, and he '
        "didn't drop the| lantern",
        "\nthey looked for mara all day, and near the mill -lrb- it was dusk -rrb- they found"
        "| mara",
    ],
}


@pytest.mark.parametrize("file", PASSAGES)
def test_lambada_perplexity_by_numpy(tiny, file):
    scorer = scorer_of(tiny, batch_size=2)
    stop = np.flatnonzero(scorer.allowed_tokens(STOP_WORDS) == 0)
    whole, filtered = [], []
    for passage in PASSAGES[file]:
        context, word = passage.split("|")
        ids, n = scorer.encoder.encode(context + word), len(scorer.encoder.encode(word))
        whole.append(nats(tiny, ids, n).sum())
        if word != " her":
            # The probability of the stop words goes to the others.
            first = numpy_gpt2.logits(tiny.hparams, tiny.weights, np.array(ids[:-n]))[-1]
            lost = np.exp(log_probabilities(first)[stop]).sum()
            filtered.append(whole[-1] + np.log1p(-lost))
    metrics = run_task("lambada", scorer, DATA / file)
    for suffix, values in [("", whole), (", stop-word filter", filtered)]:
        perplexity = metrics[f"perplexity, whole word{suffix}"]
        assert perplexity == pytest.approx(np.exp(np.mean(values)), rel=1e-3)


@pytest.mark.parametrize(
    "passage",
    ["he found| Mara", "he|  Mara", "he said|\n\n no", "he went| home.\nMara"],
)
def test_lambada_is_split_where_lm_evaluation_harness_splits_it(tmp_path, passage):
    path = tmp_path / "lambada.jsonl"
    path.write_text(json.dumps({"text": passage.replace("|", "")}), encoding="utf-8")
    ((context, word),) = lambada.read_lambada(str(path), silent)
    assert f"{context}|{word}" == f"\n{passage}"


def scores_of(logprob, rank, **filtered):
    """Scores of which only these fields matter."""
    filtered = {name: np.array(value) for name, value in filtered.items()}
    return Scores(np.array(logprob), np.array(rank), None, None, None, None, **filtered)


class Scripted(Scorer):
    """A scorer with given answers."""

    def __init__(self, tiny, answer):
        super().__init__(scorer_of(tiny).model)
        self.answer = answer

    def __call__(self, windows, allowed=None):
        return ((window, self.answer(window)) for window in windows)


def test_lambada_accuracy_by_hand(tiny):
    # Of three passages: all right; the last token right only; right, but a stop word.
    answers = iter(
        [
            scores_of([-1.0, -2], [1, 1], filtered_logprob=[-0.5, -2], filtered_rank=[1, 1]),
            scores_of([-4.0, -1], [3, 1], filtered_logprob=[-3, -1], filtered_rank=[1, 1]),
            scores_of([-0.5], [1], filtered_logprob=[-0.1], filtered_rank=[1]),
        ]
    )
    scorer = Scripted(tiny, lambda _: next(answers))
    assert lambada.measure_lambada(scorer, str(DATA / "lambada.jsonl"), silent) == {
        "accuracy, last token": pytest.approx(100),
        "accuracy, last token, stop-word filter": pytest.approx(200 / 3),
        "accuracy, whole word": pytest.approx(200 / 3),
        # The filter takes what was likelier than the second word.
        "accuracy, whole word, stop-word filter": pytest.approx(200 / 3),
        "perplexity, last token": pytest.approx(np.exp((2 + 1 + 0.5) / 3)),
        "perplexity, last token, stop-word filter": pytest.approx(np.exp((2 + 1) / 2)),
        "perplexity, whole word": pytest.approx(np.exp((3 + 5 + 0.5) / 3)),
        "perplexity, whole word, stop-word filter": pytest.approx(np.exp((2.5 + 4) / 2)),
    }


CONTEXT = (
    'The old man had a goat. "Come here," he said to the goat. The goat didn\'t come. It stood on '
    "the hill and looked at the town. A boy came by with a basket. In the basket was bread (the "
    'good kind). "What have you there?" "Bread," said the boy. The goat heard the word. Down the '
    "hill it ran. The boy ran too. Past the church they ran, and past the well. The old man "
    'laughed. "Give it some," he cried. But the boy wouldn\'t stop. At the well he fell. Out of '
    "the basket rolled the bread. The goat ate it all. The boy sat by the well and cried. The old "
    "man's wife brought him a cake. "
)


def test_cbt_scores_choice_and_rest_of_the_sentence(tiny):
    scorer = scorer_of(tiny, batch_size=4)
    (context, question, answer, candidates), _ = cbt.read_cbt(str(DATA / "cbt.txt"), silent)
    assert (answer, len(candidates)) == ("goat", 10)
    windows = cbt.choices(scorer, context, question, candidates)
    scored = [scores.logprob.sum() for _, scores in scorer(windows)]
    # All of the text, less what the candidates have in common: the same order, another origin.
    whole = []
    for word in candidates:
        text = f'{CONTEXT}"Now," she said, "the {word} has had its supper."'
        ids = scorer.encoder.encode(text)
        whole.append(-nats(tiny, ids, len(ids) - 1).sum())
    np.testing.assert_allclose(np.diff(scored), np.diff(whole), atol=2e-2)
    ids = windows[candidates.index("goat")].ids
    assert scorer.encoder.decode(ids[-windows[5].n_scored :]).endswith('has had its supper."')
    assert len({tuple(window.ids[: -window.n_scored]) for window in windows}) == 1


@pytest.mark.parametrize(("favourite", "accuracy"), [("goat", 50), ("hill", 0)])
def test_cbt_accuracy_by_hand(tiny, favourite, accuracy):
    def answer(window):
        seen = scorer.encoder.decode(window.ids[-window.n_scored - 3 :])
        return scores_of([-1.0 if favourite in seen else -2.0], [0])

    scorer = Scripted(tiny, answer)
    assert run_task("cbt-ne", scorer, DATA / "cbt.txt") == {"accuracy": accuracy}


def test_a_question_longer_than_the_model_looks_loses_its_beginning(tiny):
    scorer = scorer_of(tiny, batch_size=10)
    context, question, _, candidates = next(cbt.read_cbt(str(DATA / "cbt.txt"), silent))
    windows = cbt.choices(scorer, context * 5, question, candidates)
    assert max(len(window.ids) for window in windows) == 513
    assert len({tuple(window.ids[: -window.n_scored]) for window in windows}) == 1
    short = cbt.choices(scorer, context, question, candidates)
    assert [w.n_scored for w in windows] == [w.n_scored for w in short]


QUESTION = "".join(f"{i} A word .\n" for i in range(1, 21)) + "21 XXXXX .\ta\t\ta|b\n\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("lambada.jsonl", '{"text": "a b"}\n[]\n', "line 2: expected a JSON object with a text"),
        ("lambada.txt", "two words\nword\n", "line 2: a passage has at least two words"),
        ("lambada.txt", "", "the file is empty"),
        ("cbt-cn", f"{QUESTION}1 A .\n3 B .\n", "question 2: should be 21 sentences"),
        ("cbt-ne", QUESTION.replace("a|b", "b|c"), "question 1: should be 21 sentences"),
        ("cbt-ne", "\n", "the file has no questions"),
        ("wikitext-2", " \nPlain text.\n", "the first line should be a title"),
        ("ptb", " A Capital \n", "no capital letter but N"),
        ("1bw", "Well, no .\n", "a single space before each word and comma"),
        ("text8", "No capital letters", "only a to z and spaces"),
        ("enwik8", "plain text", "no Wikipedia markup"),
        ("enwik8", "", "the text is empty"),
    ],
)
def test_a_file_in_another_format_is_named(tiny, tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    scorer = Scripted(tiny, lambda _: scores_of([-1.0], [1]))
    with pytest.raises(UserError, match=message):
        run_task(name.partition(".")[0], scorer, path)
