"""Download models: `python3 download_model.py 117M` puts seven files into models/117M.

A file is called `part.<name>` until it is complete and checked. After a dropped connection or a
killed run, the next run resumes it, and nothing mistakes it for a checkpoint.
"""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))
from gpt2.command_line import run
from gpt2.download import check, fetch, folder, hub
from gpt2.download.errors import AGAIN, DownloadError, shown
from gpt2.download.released_files import FILES, MODELS, released_file, remote_names
from gpt2.file_lock import write_lock
from gpt2.installation import ROOT
from gpt2.model_folder import NAME
from gpt2.user_file import expand
from user_error import UserError, require

BASE_URL = "https://openaipublic.blob.core.windows.net/gpt-2/models"


class Options(NamedTuple):
    """Where to look for files, and how."""

    source: str
    base_url: str
    endpoint: str  # of Hugging Face
    revision: str
    timeout: float  # seconds
    retry_wait: float  # seconds
    force: bool


def download_models(
    models: tuple[str, ...] = (),
    /,
    models_dir: str = str(ROOT / "models"),
    source: str | None = None,
    base_url: str | None = None,
    revision: str = "main",
    list: bool = False,
    verify: bool = False,
    force: bool = False,
    timeout: float = 30,
    retry_wait: float = 1,
) -> None:
    """Download GPT-2 models, or check those that are here.

    Args:
      models: such as 117M, or owner/name on Hugging Face; several may be given.
      models_dir: folder to save to; models/ of the repository by default.
      source: openai, huggingface or auto, which is Hugging Face if OpenAI's server fails.
      base_url: another server than OpenAI's, with folders such as 117M; GPT2_BASE_URL by default.
      revision: branch, tag or commit on Hugging Face.
      list: list the models, and which of them are here.
      verify: check the files of all models that are here.
      force: replace a checkpoint of another model.
      timeout: seconds that a server of released files may be silent.
      retry_wait: seconds before the first retry.
    """
    os.environ["NETRC"] = os.devnull  # or requests would send passwords from ~/.netrc
    base_url = base_url or os.environ.get("GPT2_BASE_URL")
    # A server that is named is the only one, unless --source names another.
    source = source or ("openai" if base_url else "auto")
    known = source in ("openai", "huggingface", "auto")
    require("--source", source, known, "openai, huggingface or auto")
    for flag, value in ("--timeout", timeout), ("--retry_wait", retry_wait):
        require(flag, value, value > 0, "above 0")
    path = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or os.devnull
    require("REQUESTS_CA_BUNDLE", path, Path(path).exists(), "a file with certificates, or unset")
    server = _address("--base_url", base_url or BASE_URL)
    endpoint = _address("HF_ENDPOINT", os.environ.get("HF_ENDPOINT", "").strip() or hub.ENDPOINT)
    options = Options(source, server, endpoint, revision, timeout, retry_wait, force)
    place = expand(models_dir)
    names = [Path(model).name for model in models]
    if verify:
        return show_problems(names, place)
    if list:
        return show_list(names, place)
    chosen = [source_of(model, options) for model in models]
    if not chosen:
        raise UserError(f"name a model: {', '.join(MODELS)}, or owner/name on Hugging Face")
    try:
        for model, repository in chosen:
            get_model(model, repository, place / Path(model).name, options)
    except KeyboardInterrupt:
        fetch.log.info("stopped; %s", AGAIN)
        raise


def _address(flag: str, url: str) -> str:
    """The address of a server. Raises: UserError if it cannot be one."""
    usable = re.fullmatch(r"https?://[^\s/\[\]]+(/\S*)?", url)
    require(flag, shown(url), bool(usable), "an address that begins with http:// or https://")
    return url.rstrip("/")


def source_of(model: str, options: Options) -> tuple[str, hub.Repository | None]:
    """The name of a model, and its place on Hugging Face if it has one.

    Raises: UserError if there is no such model.
    """
    if repository := hub.parse_name(model, options.endpoint, options.revision):
        return repository.name, repository
    only_released = options.base_url == BASE_URL or options.source == "huggingface"
    if not (model in MODELS if only_released else re.fullmatch(NAME, model)):
        there = f"there are {', '.join(MODELS)}, and owner/name on Hugging Face"
        raise UserError(f"there is no model {model!r}; {there}")
    name = hub.REPOSITORIES.get(remote_names(model)[0])
    if options.source == "openai" or not name:
        return model, None
    return model, hub.Repository(name, options.endpoint, options.revision)


def get_model(model: str, repository: hub.Repository | None, place: Path, options: Options) -> None:
    """Download the files of a model that are missing or damaged. Raises: UserError."""
    on_hub = repository if "/" in model else None
    from_elsewhere = on_hub and not on_hub.is_origin(folder.recorded(place)[0])
    missing = [name for name in FILES if from_elsewhere or folder.problem_on_disk(place, name)]
    for name in sorted({*FILES} - {*missing}):
        fetch.log.info("%s/%s: already complete", place.name, name)
    if not missing:
        return
    others = folder.other_checkpoints(place, on_hub.address if on_hub else "")
    if others and not options.force and any((place / name).exists() for name in missing):
        what = f"holds a checkpoint that did not come from there ({', '.join(others)})"
        advice = "download to another --models_dir, or replace it with --force"
        raise DownloadError(place, what, advice)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with write_lock(place):
            get_from_sources(model, repository, place, options)
    except OSError as error:
        advice = f"make room, or choose another folder with --models_dir, then {AGAIN}"
        raise DownloadError(model, f"cannot be saved in {place} ({error})", advice) from None


def get_from_sources(
    model: str, repository: hub.Repository | None, place: Path, options: Options
) -> None:
    """Download a model from the first source that has it."""
    converted = bool(folder.recorded(place)[0])
    if converted and options.source == "openai":
        folder.record(place, {})  # then every file is checked against the release
    elif repository and (converted or "/" in model or options.source == "huggingface"):
        return get_converted(repository, place)  # never mixes two sources
    try:
        for name in FILES:
            if folder.problem_on_disk(place, name):
                urls = [f"{options.base_url}/{there}/{name}" for there in remote_names(model)]
                fetch.download(urls, place / name, options.timeout, options.retry_wait)
    except DownloadError as error:
        if not repository:
            raise
        fetch.log.info("%s; trying %s", error.summary, repository.address)
        get_converted(repository, place)


def get_converted(repository: hub.Repository, place: Path) -> None:
    """Download a model from Hugging Face and convert it. Raises: UserError if it is no GPT-2."""
    from gpt2.conversion import from_hf
    from gpt2.conversion.config import read_config
    from gpt2.conversion.weights import import_safetensors

    import_safetensors()
    read_config(hub.fetch_snapshot(repository, [hub.CONFIG]))  # it may not be a GPT-2
    source, work = hub.fetch_model(repository), place / "part.huggingface"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    from_hf.convert(source, work / "model")
    hashes = {name: check.file_hash(work / "model" / name) for name in FILES}
    folder.record(place, hashes, f"{repository.address}@{source.name} {repository.revision}")
    for name in reversed(FILES):  # the weights first, and last the file that names them
        (work / "model" / name).replace(place / name)
        (place / f"part.{name}").unlink(missing_ok=True)  # of the other source
    shutil.rmtree(work)
    fetch.log.info("%s: complete, converted from %s", place.name, repository.address)


def show_problems(names: list[str], models_dir: Path) -> None:
    """Check the files of the models that are named, or all; status 1 if one is wrong."""
    names = names or models_in(models_dir)
    if not names:
        raise UserError(f"there is no model in {models_dir}")
    paths = [models_dir / model / name for model in names for name in FILES]
    problems = [folder.problem_on_disk(path.parent, path.name) for path in paths]
    for path, wrong in zip(paths, problems, strict=True):
        print(f"{shown(path.parent.name)}/{path.name}: {shown(wrong) or 'complete'}")
    if any(problems):
        sys.exit(1)


def show_list(names: list[str], models_dir: Path) -> None:
    """Print the models that are named, or all: their download sizes, and what is here."""
    from tqdm import tqdm  # not at the top, so that gpt2 can report what is not installed

    print(f"{'model':<10} {'download':>17}  in {models_dir}")
    for model in names or dict.fromkeys([*MODELS, *models_in(models_dir)]):
        expected = [released_file(model, name) for name in FILES]
        size = tqdm.format_sizeof(sum(file.size or file.least for file in expected), "B")
        size = size if all(file.size for file in expected) else f"at least {size}"
        count = sum((models_dir / model / name).is_file() for name in FILES)
        state = "complete" if count == len(FILES) else f"{count} of {len(FILES)} files"
        print(f"{shown(model):<10} {size if model in MODELS else '':>17}  {state}")


def models_in(models_dir: Path) -> list[str]:
    """The names of the folders that have a file of a model."""
    return sorted({path.parent.name for name in FILES for path in models_dir.glob(f"*/{name}")})


if __name__ == "__main__":
    run(download_models)
