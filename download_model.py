"""Download models: `python3 download_model.py 117M` puts seven files into models/117M.

A file arrives as `part.<name>` and gets its own name only when it is complete and checked. So what
a dropped connection or a killed run leaves is where the next run resumes, and never a checkpoint.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "src"))
from gpt2.installation import check_installation  # noqa: E402

check_installation()  # before slow imports, so that Ctrl-C ends them without a traceback
import argparse  # noqa: E402
import dataclasses  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
from typing import IO, NoReturn  # noqa: E402

from tqdm import tqdm  # noqa: E402

from gpt2.command_line import begin_script, versions  # noqa: E402
from gpt2.download import fetch, hub, release  # noqa: E402
from gpt2.download.errors import DownloadError, shown  # noqa: E402
from gpt2.download.folder import only_run  # noqa: E402
from gpt2.download.release import (  # noqa: E402
    FILES,
    MODELS,
    incomplete_on_disk,
    problem_on_disk,
)
from gpt2.download.web import AGAIN  # noqa: E402
from gpt2.user_file import expand  # noqa: E402
from user_error import UserError  # noqa: E402

BASE_URLS = [  # two addresses of the same files
    "https://openaipublic.blob.core.windows.net/gpt-2/models",
    "https://openaipublic.azureedge.net/gpt-2/models",
]
LONGEST = 86400  # seconds of any wait


def get_model(model: str, options: argparse.Namespace) -> None:
    """Bring the files of a model that are not here or damaged.

    Raises: DownloadError; UserError if it is not a GPT-2.
    """
    folder, place = options.models_dir / folder_name(model), repository(model, options)
    lacking = missing_files(folder, place if "/" in model else None)
    for name in FILES:
        if name not in lacking:
            tell(f"{folder.name}/{name}: already complete")
    if not lacking:
        return
    others = release.other_checkpoints(folder, place.address() if place and "/" in model else "")
    if others and not options.force and any((folder / name).exists() for name in lacking):
        raise DownloadError(
            folder,
            f"holds a complete checkpoint that did not come from there ({', '.join(others)})",
            "download to another --models_dir, or replace it with --force",
        )
    where = options.base_urls[0] if "/" not in model else options.endpoint
    try:
        with only_run(folder, tell) as sums:
            get_from_sources(model, folder, sums, options)
    except OSError as error:
        advice = f"make room, or choose another folder with --models_dir, then {AGAIN}"
        what = f"cannot be saved in {folder} ({error})"
        raise DownloadError(f"{where}/{model}", what, advice) from None


def missing_files(folder: Path, place: hub.Repository | None) -> list[str]:
    """The files that are not here or damaged: all of them, if they are not from `place`."""
    if place and not release.recorded(folder)[0].startswith(f"{place.address()}@"):
        return [*FILES]
    return [name for name in FILES if problem_on_disk(folder, name)]


def get_from_sources(model: str, folder: Path, sums: IO[str], options: argparse.Namespace) -> None:
    """Bring a model from the first source that has it."""
    place, origin = repository(model, options), release.recorded(folder)[0]
    try_openai = "/" not in model and options.source != "huggingface"
    if origin and options.source == "openai":
        release.write_sums(sums, {})  # then every file is checked against the release
    elif origin:
        try_openai = False  # files of the two sources do not go together
    if try_openai:
        try:
            return get_released(model, folder, sums, options)
        except DownloadError as error:
            if options.source == "openai" or not place:
                raise
            tell(f"{error.summary()}; trying {place.address()}")
    # While this run waited for another, that may have brought it.
    if place and missing_files(folder, place):
        hub.get_model(place, folder, sums, options.hub_settings)
    for name in FILES:
        tell(f"{folder.name}/{name}: {(folder / name).stat().st_size} bytes, complete")


def get_released(model: str, folder: Path, sums: IO[str], options: argparse.Namespace) -> None:
    """Bring the files of a model from a server that has them under their own names."""
    for name in FILES:
        if problem_on_disk(folder, name):
            urls = [
                f"{base}/{remote}/{name}"
                for base in options.base_urls
                for remote in release.remote_names(model)
            ]
            known = release.wanted(folder, name)
            fetch.download(urls, folder / name, sums, known, options.settings)
            tell(f"{model}/{name}: {(folder / name).stat().st_size} bytes, complete")


def repository(model: str, options: argparse.Namespace) -> hub.Repository | None:
    """Where Hugging Face has a model, if it is known."""
    name = model if "/" in model else hub.REPOSITORIES.get(release.remote_names(model)[0])
    return hub.Repository(name, options.endpoint, options.revision) if name else None


def folder_name(model: str) -> str:
    """The folder of a model: of owner/name, its name."""
    return model.rpartition("/")[2]


def show_list(models: list[str], models_dir: Path) -> None:
    """Print the models, their download sizes, and how much of each is here, judged by size only."""
    print(f"{'model':<10} {'download':>17}  in {models_dir}")
    for model in models:
        known = [release.published(model, name) for name in FILES]
        size = tqdm.format_sizeof(sum(file.size or file.least for file in known), "B")
        size = size if all(file.size for file in known) else f"at least {size}"
        problems = {name: incomplete_on_disk(models_dir / model, name) for name in FILES}
        bad = [f"{name} {what}" for name, what in problems.items() if what]
        found = len(FILES) - len(bad)
        state = f"{found} of {len(FILES)} files; {bad[0]}" if bad else "complete"
        here = state if (models_dir / model).is_dir() else "not here"
        print(f"{shown(model):<10} {size if model in MODELS else '':>17}  {here}")


def verify(models: list[str], models_dir: Path) -> bool:
    """Print the state of each file; True if all are complete and right."""
    right = True
    for model in models:
        for name in FILES:
            found = problem_on_disk(models_dir / model, name)
            print(f"{shown(model)}/{name}: {shown(found) or 'complete'}")
            right = right and not found
    return right


def models_here(models_dir: Path) -> list[str]:
    """The folders with a model, complete or not."""
    return sorted({path.parent.name for name in FILES for path in models_dir.glob(f"*/{name}")})


def tell(line: object) -> None:
    """A line on stderr, for stdout belongs to --list and --verify."""
    text = re.sub(r"(?<=//)[^/@\s]*@", "", shown(line, most=2000))  # no passwords
    token = os.environ.get("HF_TOKEN", "").strip()
    print(text.replace(token, "...") if token else text, file=sys.stderr)


class Parser(argparse.ArgumentParser):
    """Reports wrong usage in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {shown(message, most=2000)}; see --help\n")


def seconds(text: str) -> float:
    """A time that can be waited for."""
    if not 0 < (value := float(text)) <= LONGEST:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most {LONGEST}, got {text}")
    return value


def make_parser() -> Parser:
    """The flags."""
    parser = Parser(description="Download GPT-2 models.", epilog=f"Models: {' '.join(MODELS)}")
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="such as 117M, or owner/name on Hugging Face; several may be given",
    )
    parser.add_argument(
        "--models_dir", type=Path, default=ROOT / "models", help="folder to save to; models/ here"
    )
    parser.add_argument(
        "--source",
        choices=("openai", "huggingface", "auto"),
        help="where from; auto, the default, is Hugging Face where OpenAI's server fails",
    )
    parser.add_argument(
        "--base_url",
        default=os.environ.get("GPT2_BASE_URL"),
        help="another server than OpenAI's, with folders such as 117M; GPT2_BASE_URL",
    )
    parser.add_argument(
        "--revision", default="main", help="branch, tag or commit on Hugging Face; %(default)s"
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--list", action="store_true", help="list the models, and which are here")
    action.add_argument("--verify", action="store_true", help="check the files of all models")
    action.add_argument("--version", action="version", version=versions())
    parser.add_argument(
        "--force", action="store_true", help="replace a complete checkpoint that is another model"
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=30,
        help="seconds that a server may be silent; %(default)s",
    )
    parser.add_argument(
        "--retry_wait", type=seconds, default=1, help="seconds before a retry; %(default)s"
    )
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options; exits with status 2 if they are wrong."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[-2:] == ["--", "--help"]:  # as the other scripts are asked
        arguments = ["--help"]
    parser = make_parser()
    options = parser.parse_args(arguments)
    options.models_dir = expand(options.models_dir)
    choose_models(parser, options)
    # A server that was named is the only one, unless --source says otherwise.
    options.source = options.source or ("openai" if options.base_url else "auto")
    options.base_urls = [options.base_url] if options.base_url else BASE_URLS
    options.endpoint = os.environ.get("HF_ENDPOINT", "").strip() or hub.ENDPOINT
    for flag, url in ("--base_url", options.base_urls[0]), ("HF_ENDPOINT", options.endpoint):
        if not url.startswith(("http://", "https://")):
            parser.error(f"{flag} must begin with http:// or https://, got {url}")
    options.base_urls = [url.rstrip("/") for url in options.base_urls]
    options.endpoint = options.endpoint.rstrip("/")
    token = os.environ.get("HF_TOKEN", "").strip()
    if not re.fullmatch(r"[\x21-\x7e]*", token):
        parser.error("HF_TOKEN is not a token: it holds a space or a control character")
    options.settings = fetch.Settings(tell, options.timeout, options.retry_wait)
    options.hub_settings = dataclasses.replace(options.settings, token=token)
    return options


def choose_models(parser: Parser, options: argparse.Namespace) -> None:
    """Check the names, or fill them in."""
    local = options.list or options.verify
    here = models_here(options.models_dir) if local else []
    there = ", ".join(MODELS)
    for model in options.models:
        on_hub = hub.NAME.fullmatch(model)
        if not on_hub and not release.PLAIN_NAME.fullmatch(model):
            parser.error(f"{model!r} is not the name of a model; there are {there}")
        if on_hub or model in [*MODELS, *here]:
            continue
        if options.source == "huggingface":
            parser.error(f"give {model!r} as owner/name, as Hugging Face calls it")
        if not options.base_url:
            parser.error(
                f"unknown model {model!r}; there are {there}, and owner/name on Hugging Face"
            )
    if local:
        options.models = [folder_name(model) for model in options.models]
    options.models = options.models or [*dict.fromkeys([*(MODELS if options.list else ()), *here])]
    if not options.models:
        where = f"; none is in {options.models_dir}" if options.verify else ""
        parser.error(f"name a model: {there}{where}")


def main(argv: list[str] | None = None) -> int:
    """Do what the command line asks; its exit status."""
    options = parse(argv)
    try:
        if options.list:
            show_list(options.models, options.models_dir)
        elif options.verify:
            return 0 if verify(options.models, options.models_dir) else 1
        else:
            for model in options.models:
                get_model(model, options)
    except (DownloadError, release.UncheckableError, OSError) as error:
        tell(f"download_model.py: {error}")
        return 1
    except UserError as error:
        tell(f"download_model.py: {error}")
        return error.exit_status
    except KeyboardInterrupt:
        tell(f"download_model.py: stopped; {AGAIN}")
        return 130
    return 0


if __name__ == "__main__":
    begin_script()
    sys.exit(main())
