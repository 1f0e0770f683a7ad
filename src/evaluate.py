#!/usr/bin/env python3
"""Score texts with a model: token by token, as a whole, or on the tasks of the paper."""

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import gpt2
from gpt2 import checkpoint
from gpt2.command_line import run
from gpt2.evaluation.paper_results import FILES, SIZES, find_file, published
from gpt2.evaluation.perplexity import SavedState, Totals, encode, measure
from gpt2.evaluation.score_report import FORMATS, show, written
from gpt2.evaluation.scorer import Scorer, TokenScore, check_window, sliding_windows
from gpt2.evaluation.tasks import TASKS, measure_task
from gpt2.text_stream import Counts, fingerprint, read_text, safe_pieces
from hparams import UserError


def score(
    file: str,
    /,
    format: str = "table",
    model_name: str | None = None,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 4,
    models_dir: str = "models",
    device: str = "auto",
) -> None:
    """Show how likely the model finds each token of a text.

    Args:
      file: UTF-8 text; - is stdin.
      format: table, jsonl (JSON Lines), or html: a page that colours tokens by rank.
      window: tokens that the model sees at once; n_ctx of the model unless given.
      stride: tokens from one window to the next; as many as in the window unless given. Fewer
        give tokens more context, and take longer.
      batch_size: windows computed side by side; affects speed and memory only.
    """
    if format not in FORMATS:
        raise UserError(f"format must be one of {', '.join(FORMATS)}, got {format}")
    run_ = _open("score", file, None, model_name, models_dir, window, stride, batch_size, device)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # whatever the terminal's is
    counts, totals = Counts(), Totals()
    rows = _rows(run_, _counted(read_text(file), counts), totals)
    first = next(rows)  # what can go wrong does before anything is written
    output = FORMATS[format](chain([first], rows), lambda: totals.summary(counts))
    sys.stdout.writelines(output)


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
) -> None:
    """Measure how well the model predicts a text of any length, every token once.

    Args:
      file: UTF-8 text; - is stdin.
      window: tokens that the model sees at once; n_ctx of the model unless given.
      stride: tokens from one window to the next; as many as in the window unless given. Fewer
        give tokens more context, and take longer.
      batch_size: windows computed side by side; affects speed and memory only.
      state: file to keep the progress in; the same command continues an interrupted run.
    """
    run_ = _open(
        "perplexity", file, state, model_name, models_dir, window, stride, batch_size, device
    )
    counts = Counts()
    with _progress(file) as on_read:
        text = _counted(read_text(file, on_read=on_read), counts)
        totals = measure(text, *run_)
    sys.stdout.writelines(show(totals.summary(counts)))


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
) -> None:
    """Measure the model on a task of the paper.

    Args:
      name: lambada, cbt-cn, cbt-ne, wikitext-2, ptb, enwik8, text8, wikitext-103 or 1bw.
      file: the task's file, in the format that it is published in; - is stdin.
      window: in long texts, tokens that the model sees at once; n_ctx unless given.
      stride: tokens from one window to the next; as many as in the window unless given.
      batch_size: windows computed side by side; affects speed and memory only.
      state: file to keep the progress through a long text in; the same command continues.
    """
    if name not in TASKS:
        raise UserError(f"no task {name!r}; it is one of {', '.join(TASKS)}")
    run_ = _open(name, file, state, model_name, models_dir, window, stride, batch_size, device)
    with _progress(file) as on_read:
        total = partial(measure, **run_._asdict())
        metrics = measure_task(name, run_.scorer, total, file, on_read)
    sys.stdout.writelines(show(metrics))


def paper(
    data_dir: str,
    model_name: str | None = None,
    window: int | None = None,
    stride: int | None = None,
    batch_size: int = 4,
    state: str | None = None,
    models_dir: str = "models",
    device: str = "auto",
) -> None:
    """Print the zero-shot numbers of the paper beside those measured here.

    Args:
      data_dir: folder with the tasks' files, under their own names, in any folders below it.
      model_name: model to measure; all four sizes of the paper unless given.
      window: in long texts, tokens that the model sees at once; n_ctx unless given.
      stride: tokens from one window to the next; as many as in the window unless given.
      batch_size: windows computed side by side; affects speed and memory only.
      state: file to keep what was measured in; the same command continues an interrupted run.
    """
    if not Path(data_dir).is_dir():
        raise UserError(f"--data_dir: no folder {data_dir}")
    saved = SavedState(state, {"command": "paper"})
    for names in [(model_name,)] if model_name else SIZES.values():
        try:
            folder = _find_first(names, models_dir)
        except UserError as error:
            if model_name:
                raise
            print(f"{names[0]}: {error}\n")
        else:
            with gpt2.load(folder, device=device) as model:
                scorer = Scorer(model, batch_size)
                sizes = check_window(window, stride, scorer.hparams.n_ctx)
                _paper_of_one(_Run(scorer, *sizes, saved), Path(data_dir))


class _Run(NamedTuple):
    scorer: Scorer
    window: int
    stride: int
    state: SavedState


def _paper_of_one(run_: _Run, data_dir: Path) -> None:
    scorer, window, stride, saved = run_
    model_name = scorer.model.folder.name
    print(f"{model_name:<13} {'':<45} {'measured':>9} {'published':>9}")
    for name in TASKS:
        path = find_file(name, data_dir)
        if not path:
            print(f"{name:<13} missing: no {' or '.join(FILES[name])} in {data_dir}", flush=True)
            continue
        key = f"{scorer.model.fingerprint()} {name} {fingerprint(path)} {window} {stride}"
        if not saved.get(key):
            with _progress(str(path)) as on_read:
                total = partial(measure, **run_._asdict(), key=f"{key} totals")
                saved.put(key, measure_task(name, scorer, total, str(path), on_read))
        for metric, value in saved.get(key).items():
            said = published(model_name, name, metric)
            print(f"{name:<13} {metric:<45} {written(value, 2):>9} {said or '-':>9}", flush=True)
    print()


def _open(
    task: str,
    file: str,
    state: str | None,
    model_name: str | None,
    models_dir: str,
    window: int | None,
    stride: int | None,
    batch_size: int,
    device: str,
) -> _Run:
    """All that a run over one file needs, checked. The model is loaded when it is used."""
    if file != "-" and (not Path(file).exists() or Path(file).is_dir()):
        raise UserError(f"{file}: no such file")
    if file == "-" and state:
        raise UserError("--state needs a file: stdin cannot be read once more")
    model = gpt2.LanguageModel(model_name=model_name, models_dir=models_dir, device=device)
    scorer = Scorer(model, batch_size)
    window, stride = check_window(window, stride, scorer.hparams.n_ctx)
    run_of = {"task": task, "window": window, "stride": stride}
    if state:
        run_of |= {"file": fingerprint(file), "model": scorer.model.fingerprint()}
    return _Run(scorer, window, stride, SavedState(state, run_of))


def _find_first(names: tuple[str, ...], models_dir: str) -> Path:
    for name in names[1:]:
        with suppress(UserError):
            return checkpoint.find_model(name, models_dir)
    return checkpoint.find_model(names[0], models_dir)


@contextmanager
def _progress(file: str) -> Iterator[Callable[[int], object]]:
    """A bar of the bytes read, if stderr is a terminal; gives what to call with their number."""
    total = None if file == "-" else Path(file).stat().st_size or None
    from tqdm import tqdm  # not at the top: gpt2 says what is not installed

    with tqdm(total=total, unit="B", unit_scale=True, desc=Path(file).name, disable=None) as bar:
        yield bar.update


def _counted(chunks: Iterable[str], counts: Counts) -> Iterator[str]:
    for piece in safe_pieces(chunks):
        counts.add(piece)
        yield piece


def _rows(run_: _Run, text: Iterable[str], totals: Totals) -> Iterator[TokenScore]:
    """The scored tokens of a text, whose sums are added to `totals`."""
    scorer, window, stride, _ = run_
    decode = scorer.encoder.stream()
    windows = sliding_windows(encode(scorer, text), scorer.end_of_text, window, stride)
    for seen, scores in scorer(windows):
        totals.add(scores)
        values = zip(scores.logprob, scores.rank, scores.entropy, strict=True)
        for i, (logprob, rank, entropy) in zip(seen.ids[-seen.n_scored :], values, strict=True):
            yield TokenScore(i, decode([i]), float(logprob), int(rank), float(entropy))
    if not totals.tokens:
        raise UserError("the text is empty")


if __name__ == "__main__":
    run({"score": score, "perplexity": perplexity, "task": task, "paper": paper})
