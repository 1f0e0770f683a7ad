"""What a user may write for a model: a name, a path, or `owner/name` as on Hugging Face."""

import contextlib
import re
from pathlib import Path

from gpt2.model_folder import check_name, find_model, newest_weights
from gpt2.user_file import expand
from user_error import UserError


def locate(model: object, models_dir: object) -> tuple[str | None, str]:
    """The name of a model's folder, and the folder that holds it.

    Args:
      model: None; the name of a folder in models_dir; the path of a folder, or of a file of its
        weights, such as `models/1M/model.ckpt`; or `owner/name`, which is downloaded as `name`.
      models_dir: str or Path.
    Raises: UserError if it is none of these. A folder that is missing is left to
      model_folder.find_model.
    """
    if not isinstance(models_dir, str | Path):
        raise UserError(f"models_dir must be the path of a folder, got {models_dir!r}")
    if model is None:
        return None, str(models_dir)
    if not isinstance(model, str | Path):
        raise UserError(f"a model must be a name or a path, got {model!r}")
    check_name(str(model))
    path, given = expand(str(model)), str(model)
    is_path = isinstance(model, Path) or bool(set(given) & set("/\\"))
    if is_path and path.is_dir():
        return path.resolve().name, str(path.resolve().parent)
    prefix = path.with_name(re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path.name))
    if prefix.with_name(f"{prefix.name}.index").is_file():
        return _folder_of(prefix.resolve())
    in_models_dir = expand(str(models_dir)) / path
    if len(path.parts) == 1 or in_models_dir.is_dir():
        return str(path), str(models_dir)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", given):
        with contextlib.suppress(UserError):
            find_model(path.name, str(models_dir))
            return path.name, str(models_dir)
        return given, str(models_dir)  # find_model's error names the command that downloads it
    return path.name, str(path.parent)


def _folder_of(prefix: Path) -> tuple[str, str]:
    """As `locate`, for the prefix of the weights' file names."""
    folder = prefix.parent
    if newest_weights(folder).name != prefix.name:
        raise UserError(f"{folder / 'checkpoint'} names other weights than {prefix.name}")
    return folder.name, str(folder.parent)
