"""Models on Hugging Face: which files are needed, and what its library's errors mean.

The library resumes downloads, and handles mirrors, tokens, and a cache that programs share.
"""

import dataclasses
import os
import re
import sys
from pathlib import Path

from gpt2.download import check
from gpt2.download.errors import AGAIN, DownloadError, explain, root_cause
from gpt2.download.released_files import RELEASED_VOCABULARY
from gpt2.model_folder import REPOSITORY
from user_error import UserError

ENDPOINT = "https://huggingface.co"
REPOSITORIES = {  # of the released models
    "124M": "openai-community/gpt2",
    "355M": "openai-community/gpt2-medium",
    "774M": "openai-community/gpt2-large",
    "1558M": "openai-community/gpt2-xl",
}
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER_FILES = [  # no model has all of them
    "vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "added_tokens.json"
]  # fmt: skip
HASHES = {  # of openai-community/gpt2
    "vocab.json": RELEASED_VOCABULARY["encoder.json"].sha256,
    "merges.txt": RELEASED_VOCABULARY["vocab.bpe"].sha256,
    WEIGHTS: "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
}
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class Repository:
    """A model on Hugging Face, or on a mirror."""

    name: str  # owner/model
    endpoint: str = ENDPOINT
    revision: str = "main"

    @property
    def address(self) -> str:
        """Where the model is, in any revision."""
        return f"{self.endpoint}/{self.name}"

    def is_origin(self, origin: str) -> bool:
        """Whether `origin`, which is `address@commit revision`, is this in the same revision."""
        place, _, revision = origin.partition(" ")
        return place.rpartition("@")[0] == self.address and revision == self.revision


def parse_name(text: str, endpoint: str, revision: str) -> Repository | None:
    """The model of an `owner/name`, or of its address on the hub, if the text is one."""
    name = text.removeprefix(f"{endpoint}/").removeprefix(f"{ENDPOINT}/")
    return Repository(name, endpoint, revision) if re.fullmatch(REPOSITORY, name) else None


def fetch_snapshot(repository: Repository, patterns: list[str]) -> Path:
    """Download files of a repository that are not in the library's cache; names may contain `*`.

    Returns: a folder with the files of one commit, which is its name.
    Raises: DownloadError; UserError if the library is not installed.
    """
    try:
        from huggingface_hub import snapshot_download, utils
    except ImportError:
        raise UserError("Hugging Face needs a library: pip install huggingface_hub") from None
    if bundle := os.environ.get("REQUESTS_CA_BUNDLE"):
        os.environ.setdefault("SSL_CERT_FILE", bundle)  # the name that this library knows
    if not sys.stderr.isatty():
        utils.disable_progress_bars()
    name, endpoint, revision = dataclasses.astuple(repository)
    try:
        return Path(
            snapshot_download(name, revision=revision, endpoint=endpoint, allow_patterns=patterns)
        )
    except Exception as error:  # of many kinds, and from three libraries
        raise _translated(repository, error) from None


def fetch_model(repository: Repository) -> Path:
    """Download all files that a conversion needs; returns and raises as `fetch_snapshot`."""
    shards = f"{WEIGHTS}.index.json", "model-*-of-*.safetensors"
    folder = fetch_snapshot(repository, [CONFIG, *TOKENIZER_FILES, WEIGHTS, *shards])
    if not any(folder.glob(f"{WEIGHTS}*")):
        what = f"the model has no {WEIGHTS}"
        advice = "pytorch_model.bin is not read: it is a pickle, which can run any code"
        raise DownloadError(repository.address, what, advice)
    for path in sorted(folder.iterdir()):
        _check_hash(repository, path)
    return folder


def _check_hash(repository: Repository, path: Path) -> None:
    """Raise DownloadError if a file does not have its hash, as far as that is known.

    The library compares sizes only. In its cache, large files are named after their hashes.
    """
    known = HASHES if repository == Repository("openai-community/gpt2", repository.endpoint) else {}
    name = path.resolve().name
    expected = known.get(path.name) or (name if SHA256.fullmatch(name) else None)
    if expected and (found := check.file_hash(path)) != expected:
        what = f"has SHA-256 {found} instead of {expected}"
        raise DownloadError(path, what, "delete what the link leads to, then run this again")


def _translated(repository: Repository, error: Exception) -> DownloadError:
    """What an error of the library means, in one line with a remedy."""
    from huggingface_hub import errors

    where, root = repository.address, root_cause(error)
    status = getattr(getattr(root, "response", None), "status_code", None)
    if isinstance(root, errors.OfflineModeIsEnabled):
        what = "it is not in the library's cache, and HF_HUB_OFFLINE is set"
        return DownloadError(where, what, "unset HF_HUB_OFFLINE to download it")
    if not status:
        return explain(where, error)
    what = f"the server answers {status} {getattr(error, 'server_message', None) or ''}"
    advice = f"later, {AGAIN}"
    if status in (401, 403, 404):
        advice = f"check the name and the revision ({repository.revision}); for a private model, "
        advice += "log in (hf auth login, or HF_TOKEN) after accepting its conditions, if any"
    return DownloadError(where, what, advice)
