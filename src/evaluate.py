#!/usr/bin/env python3
"""Score texts with a model: token by token, in total, or on the tasks of the paper."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpt2.command_line import run
from gpt2.evaluation.page import page
from gpt2.evaluation.perplexity import OnRead, open_state
from gpt2.evaluation.score_report import Report, format_number, jsonl, show, table
from gpt2.evaluation.tasks import DATA_FILES, TASKS, find_file, measure_task, published
from gpt2.evaluation.texts import check_files, is_list, read_texts
from gpt2.model_session import ModelSession
from gpt2.scorer import Scorer
from gpt2.text_stream import fingerprint
from gpt2.windows import EvaluationOptions
from user_error import UserError

REPORT_FORMATS = {"table": table, "jsonl": jsonl, "html": page}


def score(
    files: tuple[str, ...],
    /,
    format: str = "table",
    top: int = 0,
    model_name: str | None = None,
    against: str | None = None,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 4,
    models_dir: str = "models",
    device: str = "auto",
    dtype: str = "float32",
) -> None:
    """Show how likely the model finds each token of a text, or compare texts by their totals.

    Args:
      files: UTF-8 texts; - is stdin. A .jsonl file has a text in each line, such as a dump of
        samples. With several texts, the table and jsonl have one row for each.
      format: table, jsonl (JSON Lines), or html: a page that colours tokens by rank.
      top: how many of the most likely tokens to list for each token of a text.
      against: a second model with the same vocabulary, to compare with.
    """
    if format not in REPORT_FORMATS:
        raise UserError(f"format must be one of {', '.join(REPORT_FORMATS)}, got {format}")
    check_files(files)
    if top and is_list(files) and format != "html":
        raise UserError("--top needs a single text, or --format html")
    options = EvaluationOptions(window, stride, batch_size, top)
    chosen = [model_name, against] if against else [model_name]
    models = [ModelSession(name, models_dir, device=device, dtype=dtype) for name in chosen]
    scorers = [Scorer(model, options) for model in models]
    if scorers[0].encoder.encoder != scorers[-1].encoder.encoder:
        names = " and ".join(model.folder.name for model in models)
        raise UserError(f"{names} have different vocabularies")
    texts = list(read_texts(files))
    if not texts:
        raise UserError(f"{files[0]}: no texts in it")
    sys.stdout.writelines(REPORT_FORMATS[format](Report(texts, scorers, is_list(files))))


def perplexity(
    file: str,
    /,
    model_name: str | None = None,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 4,
    state: str | None = None,
    models_dir: str = "models",
    device: str = "auto",
    dtype: str = "float32",
) -> None:
    """Measure how well the model predicts a text of any length; each token counts once.

    Args:
      file: UTF-8 text; - is stdin.
    """
    options = EvaluationOptions(window, stride, batch_size)
    scorer = Scorer(ModelSession(model_name, models_dir, device=device, dtype=dtype), options)
    _measure_file("perplexity", scorer, file, state)


def task(
    name: str,
    file: str,
    /,
    model_name: str | None = None,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 4,
    state: str | None = None,
    models_dir: str = "models",
    device: str = "auto",
    dtype: str = "float32",
) -> None:
    """Measure the model on a task of the paper.

    Args:
      name: lambada, cbt-cn, cbt-ne, wikitext-2, ptb, enwik8, text8, wikitext-103 or 1bw.
      file: the task's file, in the format that it is published in; - is stdin.
    """
    if name not in TASKS:
        raise UserError(f"no task {name!r}; it is one of {', '.join(TASKS)}")
    options = EvaluationOptions(window, stride, batch_size)
    scorer = Scorer(ModelSession(model_name, models_dir, device=device, dtype=dtype), options)
    _measure_file(name, scorer, file, state)


def paper(
    data_dir: str,
    model_name: str | None = None,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 4,
    state: str | None = None,
    models_dir: str = "models",
    device: str = "auto",
    dtype: str = "float32",
) -> None:
    """Print the zero-shot numbers of the paper next to those measured here.

    Args:
      data_dir: folder with the tasks' files, under their own names, or in folders below it.
    """
    files = {name: find_file(name, Path(data_dir)) for name in TASKS}
    if not any(files.values()):
        example = DATA_FILES["ptb"][0]
        raise UserError(f"--data_dir: no file of a task in {data_dir}, such as {example}")
    options = EvaluationOptions(window, stride, batch_size)
    scorer = Scorer(ModelSession(model_name, models_dir, device=device, dtype=dtype), options)
    model = scorer.model.folder.name
    with open_state(state, scorer, task="paper") as saved:
        print(f"{model:<13} {'':<45} {'measured':>9} {'published':>9}")
        for name, path in files.items():
            if not path:
                print(f"{name:<13} missing: no {' or '.join(DATA_FILES[name])} in {data_dir}")
                continue
            key = f"{name} {fingerprint(path)}"
            if key not in saved.done:
                with _progress(str(path)) as on_read:
                    results = measure_task(name, scorer, str(path), on_read, saved, f"{key} totals")
                saved.put(key, results)
            for metric, value in saved.done[key].items():
                measured, known = format_number(value, 2), published(model, name, metric) or "-"
                print(f"{name:<13} {metric:<45} {measured:>9} {known:>9}", flush=True)


def _measure_file(name: str, scorer: Scorer, file: str, state: str | None) -> None:
    """Print the results of a task."""
    check_files([file])
    if file == "-" and state:
        raise UserError("--state needs a file: standard input cannot be read again")
    run_of = {"task": name, "file": fingerprint(file)} if state else {}
    with open_state(state, scorer, **run_of) as saved, _progress(file) as on_read:
        results = measure_task(name, scorer, file, on_read, saved)
    sys.stdout.writelines(show(results))


@contextmanager
def _progress(file: str) -> Iterator[OnRead]:
    """A progress bar on a terminal; yields a function that takes the number of bytes read."""
    from tqdm import tqdm  # not at the top, so that gpt2 can report what is not installed

    total = None if file == "-" else Path(file).stat().st_size or None
    with tqdm(total=total, unit="B", unit_scale=True, desc=Path(file).name, disable=None) as bar:
        yield bar.update


if __name__ == "__main__":
    run({"score": score, "perplexity": perplexity, "task": task, "paper": paper})
