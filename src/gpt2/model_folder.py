"""A model on disk: finding its folder, and reading and checking its files.

A model is a folder with the released file set: `hparams.json`, `encoder.json`, `vocab.bpe`,
`checkpoint`, and `model.ckpt.*`. Nothing here needs TensorFlow.
"""

import glob
import hashlib
import json
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2.installation import ROOT, download_command
from gpt2.terminal import log_once
from gpt2.user_file import expand, parse_json, read_text
from hparams import KEYS, HParams
from user_error import UserError

if TYPE_CHECKING:
    from encoder import Encoder

SMALL_FILES = ("hparams.json", "encoder.json", "vocab.bpe")  # all that is not the weights
DEFAULT_MODEL = "117M"
EMBEDDED_MODEL = "1M"  # comes with the repository
NEWEST = re.compile(
    r"""^\s*model_checkpoint_path\s*:\s*(?P<quote>["'])(?P<path>.*)(?P=quote)""", re.M
)
NAME = r"\w[\w.-]*"  # of a folder with a model
REPOSITORY = rf"{NAME}/{NAME}"  # on Hugging Face
MOST_PADDING = 1024  # rows without a token: other trainers round n_vocab up


class ModelFolder:
    """A folder with the released file set. Each part is read when it is first asked for.

    Args:
      path: the folder.
    Attributes:
      path, name: the folder, and the last part of its path.
    Raises: UserError, at each of the properties, if a file is missing or wrong.
    """

    def __init__(self, path: Path):
        self.path, self.name = path, path.name

    @cached_property
    def hparams(self) -> HParams:
        """The shape of the model."""
        path = self.path / "hparams.json"
        try:
            values = parse_json(read_text(path))
            if not isinstance(values, dict):
                raise UserError(f"expected an object with {', '.join(KEYS)}")
            missing = [key for key in KEYS if key not in values]
            if missing:
                raise UserError(f"{missing[0]} is missing")
            return HParams().override_from_dict(values)
        except OSError as error:
            advice = remedy(self.name)
            if any(self.path.glob("*.index")):  # as nshepperd's code and gpt-2-simple save weights
                advice = f"copy {', '.join(SMALL_FILES)} from the model that was fine-tuned"
            raise UserError(f"{path}: {error.strerror}; {advice}") from None
        except ValueError as error:  # also a UserError, broken JSON, and broken UTF-8
            raise UserError(f"{path}: {error}; {remedy(self.name)}") from None

    @cached_property
    def encoder(self) -> "Encoder":
        """The vocabulary. The model may have up to MOST_PADDING rows without a token.

        Added tokens, as which no text is encoded, are logged.
        """
        from gpt2.encoder_files import learned_tokens, read_encoder

        encoder = read_encoder(self.path)
        ids, n_vocab = encoder.encoder, self.hparams.n_vocab
        learned = learned_tokens(encoder)
        needed = 1 + max(ids[token] for token in learned & ids.keys())
        if n_vocab < needed or n_vocab - len(ids) > MOST_PADDING:
            raise UserError(
                f"{self.path}: hparams.json has {n_vocab} tokens, encoder.json has {len(ids)}; "
                "they belong to different models"
            )
        if added := sorted(ids.keys() - learned, key=ids.__getitem__):
            what = f"no merge makes {len(added)} of the tokens, for example {added[0]!r}"
            log_once(f"{self.path / 'encoder.json'}: {what}; text is never encoded as these")
        return encoder

    @property
    def end_of_text(self) -> int:
        """The id of `<|endoftext|>`."""
        return self.encoder.end_of_text

    @cached_property
    def weights(self) -> Path:
        """The prefix of the weights' file names, as `tf.train.Saver` takes it.

        The files must be there, and hold at least as much as the model needs. When TensorFlow
        reads them, it compares checksums.
        """
        needed = 4 * self.hparams.n_params()  # float32
        try:
            prefix = newest_weights(self.path)
            size = sum(path.stat().st_size for path in _data_files(prefix))
            if size < needed:
                raise UserError(
                    f"{prefix} has {size} bytes of weights, and hparams.json needs {needed}: it is "
                    "cut short, or one of the two belongs to another model"
                )
        except UserError as error:
            raise UserError(f"{error}; {remedy(self.name)}") from None
        return prefix

    @cached_property
    def fingerprint(self) -> str:
        """A short name for shape, vocabulary and weights together: another model has another."""
        encoder = self.encoder
        ids, merges = sorted(encoder.encoder.items()), list(encoder.bpe_ranks.items())
        content = json.dumps([self.hparams.values(), ids, merges])
        vocabulary = hashlib.sha256(content.encode()).hexdigest()[:16]
        index = _index(self.weights).read_bytes()  # it has a checksum of each tensor
        return hashlib.sha256(index + vocabulary.encode()).hexdigest()[:16]

    def is_complete(self) -> bool:
        """Whether all files are there."""
        try:
            return bool(self.weights) and all((self.path / name).is_file() for name in SMALL_FILES)
        except UserError:
            return False


def _data_files(prefix: Path) -> list[Path]:
    """The files with the numbers of a checkpoint. Raises: UserError if one or the index is missing.

    There are as many as the name of the first one gives, such as `model.ckpt.data-00000-of-00002`.
    """
    first = f"{glob.escape(prefix.name)}.data-00000-of-{'[0-9]' * 5}"
    count = min((int(path.name[-5:]) for path in prefix.parent.glob(first)), default=1)
    names = [f"{prefix.name}.data-{i:05d}-of-{count:05d}" for i in range(count)]
    files = [prefix.with_name(name) for name in names]
    for path in [_index(prefix), *files]:
        if not path.is_file():
            raise UserError(f"{path} is missing")
    return files


def newest_weights(folder: Path) -> Path:
    """The prefix of the weights that the file `checkpoint` in a folder calls the newest.

    The file has lines such as `model_checkpoint_path: "model-600"`. Only the last part of the path
    counts, as a folder may have been moved. Raises: UserError if the file names nothing usable.
    """
    path = folder / "checkpoint"
    try:
        found = NEWEST.search(read_text(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        found = None
    name = re.split(r"[/\\]", found["path"])[-1] if found else ""
    if not name.isprintable() or not 0 < len(name) < 200:
        raise UserError(f'{path} has no line of the form model_checkpoint_path: "NAME"')
    return folder / name


def find_model(model: object, models_dir: object = "models") -> ModelFolder:
    """The folder of a model.

    Args:
      model: the name of a folder in models_dir; the path of a folder; or `owner/name`, which
        download_model.py saves as `name`.
      models_dir: str or Path; `~` and `$NAME` are expanded. A relative one is looked up in the
        working directory, then in the repository.
    Raises: UserError if there is no such folder; the message has the command that downloads it.
    """
    if not isinstance(models_dir, str | Path):
        raise UserError(f"models_dir must be the path of a folder, got {models_dir!r}")
    if not isinstance(model, str | Path):
        raise UserError(f"a model must be a name or a path, got {model!r}")
    check_name(str(model))
    path, models = expand(str(model)), expand(str(models_dir))
    is_path = isinstance(model, Path) or bool(set(model) & set("/\\"))
    if is_path and path.is_dir():
        return ModelFolder(path.resolve())
    is_on_hub = re.fullmatch(REPOSITORY, path.as_posix())
    names = [path, Path(path.name)] if is_on_hub else [path]
    for folder in (place / name for name in names for place in (models, ROOT / models)):
        if folder.is_dir():
            return ModelFolder(folder)
    place = models / path if is_on_hub or len(path.parts) == 1 else path
    raise UserError(f"no model in {place}; {remedy(path.as_posix())}")


def check_name(model_name: str) -> None:
    """Raise UserError for a name that means the folder of all models, or one above it."""
    if model_name.strip("./\\") == "":
        raise UserError(f"--model_name must be the name of a folder, got {model_name!r}")


def choose_model(model: object, models_dir: object) -> tuple[ModelFolder, str]:
    """As `find_model`; for None, DEFAULT_MODEL, or else EMBEDDED_MODEL and why it is taken."""
    if model is not None:
        return find_model(model, models_dir), ""
    try:
        default = find_model(DEFAULT_MODEL, models_dir)
        if default.is_complete():
            return default, ""
        again = download_command(DEFAULT_MODEL)
        reason = f"{default.path} is only partly downloaded; run `{again}` again"
    except UserError as error:
        reason = str(error)
    return find_model(EMBEDDED_MODEL), f"using the small model {EMBEDDED_MODEL}: {reason}"


def remedy(model_name: str) -> str:
    """How to get a model whose files are missing or damaged."""
    known = re.fullmatch(rf"(117|124|345|355|774|762|1558|1542)M|{REPOSITORY}", model_name)
    return f"download it with: {download_command(model_name if known else '117M')}"


def _index(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".index")
