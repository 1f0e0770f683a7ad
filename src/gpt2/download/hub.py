"""Models in Hugging Face's form: downloaded, and converted into the released file set."""

import contextlib
import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import quote

from gpt2.download import release
from gpt2.download.errors import DownloadError, Missing
from gpt2.download.fetch import Settings, download
from gpt2.download.folder import remove_if_empty
from gpt2.download.part import Part, flush_folder
from gpt2.download.release import FILES, FileHash, Known
from gpt2.download.web import ELSEWHERE

ENDPOINT = "https://huggingface.co"
REPOSITORIES = {  # of the released models
    "124M": "openai-community/gpt2",
    "355M": "openai-community/gpt2-medium",
    "774M": "openai-community/gpt2-large",
    "1558M": "openai-community/gpt2-xl",
}
NAME = re.compile(r"[A-Za-z0-9_-][\w.-]{0,95}/[A-Za-z0-9_-]([\w.-]{0,94}[\w-])?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
CONFIG, WEIGHTS = "config.json", "model.safetensors"
VOCABULARY = (  # no model has all of them
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
)
SHARD = re.compile(r"[\w.-]{1,200}\.safetensors", re.ASCII)
MOST_TEXT = 1 << 28  # bytes of a file other than the weights
BUFFERS = 1 << 28  # bytes in the weights' file beyond the parameters: causal masks, a header
PUBLISHED = {
    ("openai-community/gpt2", "vocab.json"): release.VOCABULARY["encoder.json"],
    ("openai-community/gpt2", "merges.txt"): release.VOCABULARY["vocab.bpe"],
    ("openai-community/gpt2", WEIGHTS): Known(
        sha256="248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"
    ),
}


@dataclasses.dataclass(frozen=True)
class Repository:
    """A model on a server in Hugging Face's form."""

    name: str  # owner/model
    endpoint: str = ENDPOINT
    revision: str = "main"

    def address(self) -> str:
        """Where the model is, in any revision."""
        return f"{self.endpoint}/{self.name}"

    def url(self, file: str) -> str:
        """Where a file is."""
        return f"{self.address()}/resolve/{quote(self.revision, safe='')}/{file}"

    def published(self, file: str) -> Known:
        """What is known of a file before the server is asked."""
        known = PUBLISHED.get((self.name, file)) if self.revision == "main" else None
        return dataclasses.replace(known or Known(), most=MOST_TEXT)


def get_model(repository: Repository, folder: Path, sums: IO[str], settings: Settings) -> None:
    """Download a model and write the released file set to `folder`, whose SUMS is open.

    What has arrived before an interruption is in folders `part.*`, where the next run finds it.
    Raises: DownloadError; UserError if the model is not a GPT-2; OSError if it cannot be saved.
    """
    from gpt2.conversion import from_hf
    from gpt2.conversion.weights import import_safetensors

    import_safetensors()  # says at once if it is not installed
    arrived, converted = folder / "part.huggingface", folder / "part.converted"
    for path in (arrived, converted):
        if path.is_symlink():
            path.unlink()
    arrived.mkdir(exist_ok=True)
    with release.open_sums(arrived, "a+") as file:
        try:
            origin = Collection(repository, arrived, file, settings).complete()
        finally:
            remove_if_empty(arrived, file)
    shutil.rmtree(converted, ignore_errors=True)
    from_hf.convert(arrived, converted)
    _install(converted, folder, sums, origin)
    shutil.rmtree(arrived)


def _install(converted: Path, folder: Path, sums: IO[str], origin: str) -> None:
    hashes = {name: FileHash(converted / name).catch_up().hex() for name in FILES}
    release.write_sums(sums, hashes, origin)
    for name in reversed(FILES):  # the weights first, and last the file that names them
        (converted / name).replace(folder / name)
        Part(folder / name).discard()  # of another source
    converted.rmdir()
    flush_folder(folder)


class Collection:
    """The files of a model that are needed here, in a folder under their own names."""

    def __init__(self, repository: Repository, folder: Path, sums: IO[str], settings: Settings):
        self.repository, self.folder, self.sums = repository, folder, sums
        hint = "check the name of the model; a private one needs HF_TOKEN"
        self.settings = dataclasses.replace(settings, if_missing=hint)

    def complete(self) -> str:
        """Download what is not here; returns where the model came from, with its commit."""
        from gpt2.conversion.config import read_config

        origin = self._pin()
        hparams, _ = read_config(self.folder)  # before the weights: it may not be a GPT-2
        for name in VOCABULARY:
            with self._may_be_missing():
                self._get(name, self.repository.published(name))
        most = 2 * 4 * hparams.n_params() + BUFFERS  # in float32, with a second copy of wte
        try:
            known = dataclasses.replace(self.repository.published(WEIGHTS), most=most)
            self._get(WEIGHTS, known)
        except Missing as error:
            if error.status != 404:
                raise
            for name in self._shards():
                self._get(name, Known(most=most))
        return origin

    def _pin(self) -> str:
        """Get config.json, and stay with its commit, so that all files are of one version."""
        before, hashes = release.recorded(self.folder)
        (self.folder / CONFIG).unlink(missing_ok=True)
        known = self.repository.published(CONFIG)
        url = self.repository.url(CONFIG)
        said = download([url], self.folder / CONFIG, self.sums, known, self.settings)
        commit = said.commit if COMMIT.fullmatch(said.commit or "") else None
        self.pinned = dataclasses.replace(
            self.repository, revision=commit or self.repository.revision
        )
        origin = f"{self.pinned.address()}@{self.pinned.revision}"
        if not commit or origin != before:  # what is here may be of another version
            for name in hashes.keys() - {CONFIG}:
                if release.PLAIN_NAME.fullmatch(name):
                    (self.folder / name).unlink(missing_ok=True)
            hashes = {}
        hashes[CONFIG] = FileHash(self.folder / CONFIG).catch_up().hex()
        release.write_sums(self.sums, hashes, origin)
        return origin

    def _get(self, name: str, known: Known) -> None:
        path = self.folder / name
        _, hashes = release.recorded(self.folder)
        if not path.is_file() or FileHash(path).catch_up().hex() != hashes.get(name):
            download([self.pinned.url(name)], path, self.sums, known, self.settings)
            self.settings.report(f"{self.repository.name}/{name}: {path.stat().st_size} bytes")

    @contextlib.contextmanager
    def _may_be_missing(self) -> Iterator[None]:
        try:
            yield
        except Missing as error:
            if error.status != 404:
                raise

    def _shards(self) -> list[str]:
        """The names of the files that the weights are split into."""
        from gpt2.conversion.folder import read_object

        name = f"{WEIGHTS}.index.json"
        with self._may_be_missing():
            self._get(name, self.repository.published(name))
        if not (self.folder / name).exists():
            raise DownloadError(
                self.pinned.url(WEIGHTS),
                "the model has no weights in this form",
                "pytorch_model.bin is not read: it is a pickle, which can run any code",
            )
        names = read_object(self.folder / name).get("weight_map")
        files = {str(file) for file in names.values()} if isinstance(names, dict) else {""}
        if not files or not all(SHARD.fullmatch(file) for file in files):
            what = f"its {name} does not list files"
            raise DownloadError(self.pinned.url(name), what, ELSEWHERE)
        return sorted(files)
