"""The log of a training run: `log.csv`, and its losses as a picture in `loss.svg`."""

from pathlib import Path

from gpt2.atomic_file import replacing
from gpt2.training.loss_plot import loss_svg
from user_error import UserError

LOG_COLUMNS = ("step", "training_loss", "learning_rate", "tokens_per_second", "validation_loss")
Row = dict[str, float]  # by the names of LOG_COLUMNS, without what was not measured at this step


def write_log(folder: Path, rows: list[Row]) -> None:
    """Write the log and draw its curves. Raises: OSError, with the name of the file."""
    lines = [[str(row.get(name, "")) for name in LOG_COLUMNS] for row in rows]
    table = "\n".join(map(",".join, [LOG_COLUMNS, *lines])) + "\n"
    curves = (
        [(row["step"], row[name]) for row in rows if name in row]
        for name in ("training_loss", "validation_loss")
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"log.csv": table, "loss.svg": loss_svg(*curves)}.items():
        with replacing(folder / name) as file:
            file.write(content.encode())


def read_log(folder: Path, step: int) -> list[Row]:
    """The rows up to a train step; the later ones are from a run that was killed.

    Raises: UserError if log.csv is not a training log.
    """
    path, rows = folder / "log.csv", list[Row]()
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        for line in text.splitlines()[1:]:
            number, *values = line.split(",")
            named = zip(LOG_COLUMNS[1:], values, strict=True)
            rows.append({"step": int(number)} | {name: float(x) for name, x in named if x})
    except ValueError:
        message = f"{path} is not the log of a training run; move it elsewhere to resume"
        raise UserError(message) from None
    return [row for row in rows if row["step"] <= step]
