"""The paper's zero-shot numbers, and the files they are measured on.

Source: "Language Models are Unsupervised Multitask Learners" (Radford et al., 2019), table 3.
"""

from pathlib import Path

# The paper's name of a model -> the names it was released under.
SIZES = {
    "117M": ("117M", "124M"),
    "345M": ("345M", "355M"),
    "762M": ("762M", "774M"),
    "1542M": ("1542M", "1558M"),
}

# Task -> metric -> published value for each of SIZES. Perplexity and accuracy in percent; the
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

# The names of the files in the data sets' own archives, the paper's choice first.
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


def find_file(task: str, data_dir: Path) -> Path | None:
    """The file of a task, in a folder or in the folders below it; None if there is none."""
    found = (path for name in DATA_FILES[task] for path in sorted(data_dir.rglob(name)))
    return next((path for path in found if path.is_file()), None)


def published(model_name: str, task: str, metric: str) -> float | None:
    """The paper's value, or None. Only the part of the metric's name before a comma counts."""
    values = PUBLISHED[task].get(metric.split(",")[0])
    for value, names in zip(values or (), SIZES.values(), strict=False):
        if model_name in names:
            return value
    return None
