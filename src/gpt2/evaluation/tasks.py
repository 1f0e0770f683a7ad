"""The zero-shot tasks of the paper: their files, their published results, and measuring them.

Source: "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019), section 3 and
table 3. Where the paper leaves a choice open, the file of the task explains what is done here.
"""

from pathlib import Path

from gpt2.evaluation.cbt import measure_cbt
from gpt2.evaluation.lambada import measure_lambada
from gpt2.evaluation.language_modeling import LONG_TEXTS
from gpt2.evaluation.perplexity import OnRead, SavedState, measure_perplexity
from gpt2.scorer import Scorer

# Model -> its place in the lists of published values. Each size was released under two names.
SIZES = {"117M": 0, "124M": 0, "345M": 1, "355M": 1, "762M": 2, "774M": 2, "1542M": 3, "1558M": 3}

# Task -> metric -> published values of the four sizes. Perplexity and accuracy in percent; the
# other two are bits.
PUBLISHED = {
    "lambada": {
        "perplexity": (35.13, 15.60, 10.87, 8.63),
        "accuracy": (45.99, 55.48, 60.12, 63.24),
    },
    "cbt-cn": {"accuracy": (87.65, 92.35, 93.45, 93.30)},
    "cbt-ne": {"accuracy": (83.4, 87.1, 88.0, 89.05)},
    "wikitext-2": {"perplexity per word": (29.41, 22.76, 19.93, 18.34)},
    "ptb": {"perplexity per word": (65.85, 47.33, 40.31, 35.76)},
    "enwik8": {"bits per byte": (1.16, 1.01, 0.97, 0.93)},
    "text8": {"bits per character": (1.17, 1.06, 1.02, 0.98)},
    "wikitext-103": {"perplexity per word": (37.50, 26.37, 22.05, 17.48)},
    "1bw": {"perplexity per word": (75.20, 55.72, 44.575, 42.16)},
}

# Task -> the names of its file in the data set's own archive, the paper's choice first.
DATA_FILES = {
    "lambada": ["lambada_test.jsonl", "lambada_test_plain_text.txt"],
    "cbt-cn": ["cbtest_CN_valid_2000ex.txt"],
    "cbt-ne": ["cbtest_NE_valid_2000ex.txt"],
    "wikitext-2": ["wikitext-2-raw/wiki.test.raw", "wikitext-2/wiki.test.tokens"],
    "ptb": ["ptb.test.txt"],
    "enwik8": ["enwik8"],
    "text8": ["text8"],
    "wikitext-103": ["wikitext-103-raw/wiki.test.raw", "wikitext-103/wiki.test.tokens"],
    "1bw": ["news.en.heldout-00000-of-00050"],
}
TASKS = list(DATA_FILES)


def measure_task(
    name: str, scorer: Scorer, path: str, on_read: OnRead, state: SavedState, key: str = "totals"
) -> dict[str, float]:
    """The results of a task, by the name of the metric; accuracies are in percent.

    Args:
      name: one of TASKS, or perplexity, which takes any text.
      path: the task's file; `-` is stdin.
      on_read: called repeatedly, with the number of bytes read since the last call.
      state, key: where the sums over a long text are kept.
    Raises: UserError if the file is not in the task's format.
    """
    if name == "perplexity":
        return measure_perplexity(scorer, path, on_read, state)
    if name == "lambada":
        return measure_lambada(scorer, path, on_read)
    if name.startswith("cbt"):
        return measure_cbt(scorer, path, on_read)
    return LONG_TEXTS[name].measure(scorer, path, on_read, state, key)


def find_file(task: str, data_dir: Path) -> Path | None:
    """The file of a task, in a folder or in the folders below it, or None."""
    found = (path for name in DATA_FILES[task] for path in sorted(data_dir.rglob(name)))
    return next((path for path in found if path.is_file()), None)


def published(model_name: str, task: str, metric: str) -> float | None:
    """The paper's value, or None. Variants of a metric, named after a comma, share a value."""
    values = PUBLISHED[task].get(metric.split(",")[0])
    return values[SIZES[model_name]] if values and model_name in SIZES else None
