"""Download models: `python3 download_model.py 117M` fetches seven files into models/117M.

A file arrives as `part.<name>` and gets its own name only when it is whole. So what a dropped
connection or a killed run leaves is where the next one goes on, and never a checkpoint.
"""

import argparse
import base64
import contextlib
import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import IO, Any, NoReturn

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "src"))
from gpt2.installation import check_installation  # noqa: E402

check_installation()
import requests  # noqa: E402
import urllib3  # noqa: E402
from tqdm import tqdm  # noqa: E402

from gpt2.command_line import versions  # noqa: E402
from gpt2.download import release  # noqa: E402
from gpt2.download.release import (  # noqa: E402
    CHUNK,
    FILES,
    MODELS,
    FileHash,
    Known,
    incomplete_on_disk,
    problem_on_disk,
    progress,
)

BASE_URL = "https://openaipublic.blob.core.windows.net/gpt-2/models"
RETRIES = 5  # in a row that bring less than a chunk each
MAX_WAIT = 120  # seconds
AGAIN = "run the same command again to go on from here"
NETWORK = (requests.RequestException, urllib3.exceptions.HTTPError)


class DownloadError(Exception):
    """What ends a download, in one line: where, what happened, and what to try."""

    def __init__(self, where: object, what: str, advice: str, after: float = 0):
        super().__init__(" ".join(f"{where}: {what}; {advice}".split()))
        self.after = after  # seconds that the server asks to wait


class Interrupted(DownloadError):
    """A failure that another try may not meet."""


class Missing(DownloadError):
    """The server has no such file, or shows it to nobody."""


class Part:
    """What came of a file so far, and what the server said of the whole.

    Both lie beside the file's final place, where the next run finds them.
    """

    def __init__(self, path: Path):
        self.final, self.path = path, path.with_name(f"part.{path.name}")
        self.note = path.with_name(f"part.{path.name}.json")
        self.hash, self.said = FileHash(self.path), dict[str, Any]()
        self.resumed = False  # by this run
        with contextlib.suppress(OSError, ValueError):
            self.said = json.loads(self.note.read_text(encoding="utf-8"))
        if not self.said:
            self.discard()

    def size(self) -> int:
        """Bytes that came so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def discard(self) -> None:
        """Forget what came."""
        self.hash, self.said = FileHash(self.path), {}
        for path in (self.path, self.note):
            path.unlink(missing_ok=True)

    def restart(self, said: dict[str, Any]) -> None:
        """Begin anew with a file of which the server said `said`."""
        self.discard()
        self.note.write_text(json.dumps(said), encoding="utf-8")
        self.said = said

    def flush(self) -> None:
        """Bring what came to the disk."""
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())

    def problem(self, known: Known) -> str:
        """What is wrong with what came, or ""."""
        known = dataclasses.replace(known, size=known.size or self.said["size"])
        found, md5 = release.problem(self.path, known, self.hash), self.said["md5"]
        if not found and md5:
            came = base64.b64encode(FileHash(self.path, "md5").catch_up()).decode()
            found = "" if came == md5 else f"has MD5 {came} instead of the server's {md5}"
        return found

    def finish(self, sums: IO[str]) -> None:
        """Give the file its name, and write down its hash."""
        came = {self.final.name: self.hash.catch_up().hex()}
        self.path.replace(self.final)
        self.note.unlink()
        sums.seek(0)
        came = release.read_sums(sums) | came
        sums.truncate(0)
        sums.writelines(f"{sha256}  {name}\n" for name, sha256 in came.items())
        sums.flush()
        if os.name == "posix":  # elsewhere a folder cannot be flushed
            folder = os.open(self.final.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)


def server_says(response: requests.Response) -> dict[str, Any]:
    """What the head of a reply tells of the whole file."""
    headers = response.headers
    size, md5 = response.raw.length_remaining, headers.get("Content-MD5")
    if response.status_code == 206:  # then these two are of the rest only
        total = headers.get("Content-Range", "").rpartition("/")[2]
        size, md5 = int(total) if total.isdigit() else None, None
    return {"size": size, "md5": md5, "version": headers.get("ETag", headers.get("Last-Modified"))}


def check_status(url: str, response: requests.Response) -> None:
    """Raise what fits a reply other than 200 or 206."""
    status = response.status_code
    what = f"the server answers {status} {response.reason}"
    if status in (403, 404, 410):
        raise Missing(url, what, "see --list for the names, or try another --base_url")
    if status in (408, 416, 429) or status >= 500:
        after = urllib3.Retry().get_retry_after(response.raw) or 0
        what += f" and asks to wait {after:.0f} s" if after else ""
        raise Interrupted(url, what, f"later, {AGAIN}", after)
    if status not in (200, 206):
        raise DownloadError(url, what, "try another --base_url")


def network_failure(url: str, came: int, error: BaseException) -> NoReturn:
    """Raise what fits an error of the libraries, in the words of its first cause."""
    root = error
    while cause := root.__cause__ or root.__context__:
        root = cause
    if "CERTIFICATE_VERIFY_FAILED" in str(root):
        advice = "check the clock, or set REQUESTS_CA_BUNDLE to your network's certificates"
        raise DownloadError(url, f"its TLS certificate is not trusted ({root})", advice)
    if isinstance(error, (ValueError, requests.TooManyRedirects)):
        raise DownloadError(url, f"it cannot be fetched ({root})", "try another --base_url")
    advice = f"check the network and its proxy (HTTPS_PROXY), then {AGAIN}"
    raise Interrupted(url, f"the connection failed after {came} bytes ({root})", advice)


def receive(url: str, response: requests.Response, part: Part, known: Known, bar: tqdm) -> None:
    """Append a body to the part; or begin the part anew, where the server sends all of it."""
    said = server_says(response)
    chunk = response.raw.read1(CHUNK)  # unlike read, loses nothing when the connection drops
    if response.status_code == 200:
        what = "" if said["size"] is None else known.refuses(said["size"])
        if release.WEB_PAGE.match(chunk):
            what = "is a web page"
        if what:
            advice = "look at it in a browser, or try another --base_url"
            raise DownloadError(url, f"what the server sends {what}", advice)
        part.restart(said)
    else:
        place = response.headers.get("Content-Range", "").startswith(f"bytes {part.size()}-")
        if not place or said | {"md5": part.said.get("md5")} != part.said:
            part.discard()
            raise Interrupted(url, "the file there has changed", AGAIN)
        part.resumed = True
    bar.total = part.said["size"]
    bar.n = bar.initial = bar.last_print_n = part.size()  # tqdm knows no way back but this
    # Hashing and flushing go on beside the download: at the end they would take as long again.
    with futures.ThreadPoolExecutor(2) as beside, part.path.open("ab") as file:
        hashing: futures.Future[Any] = beside.submit(int)  # done at once
        flushing: futures.Future[Any] = beside.submit(int)
        flushed = file.tell()
        while chunk:
            file.write(chunk)
            file.flush()  # so that nothing of it is lost if this process is killed
            bar.update(len(chunk))
            if hashing.done() and file.tell() - part.hash.done > 8 * CHUNK:
                hashing = beside.submit(part.hash.catch_up, disable=True)
            if flushing.done() and file.tell() - flushed > 128 * CHUNK:
                flushing, flushed = beside.submit(part.flush), file.tell()
            chunk = response.raw.read1(CHUNK)
        part.flush()


def connect(url: str, part: Part, known: Known, timeout: float, bar: tqdm) -> None:
    """Let one connection bring what a part lacks.

    Raises: Interrupted if the part is not complete and another try may help; DownloadError.
    """
    start, headers = part.size(), {"Accept-Encoding": "identity"}
    if start and start == part.said["size"]:
        return part.flush()
    if start:
        headers["Range"] = f"bytes={start}-"
        if part.said["version"] and not part.said["version"].startswith("W/"):
            headers["If-Range"] = part.said["version"]
    try:
        with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
            if response.status_code == 416:  # the file there is shorter than what came
                part.discard()
            check_status(url, response)
            receive(url, response, part, known, bar)
    except NETWORK as error:
        network_failure(url, part.size(), error)
    if part.size() < (part.said["size"] or 0):
        raise Interrupted(url, f"stopped after {part.size()} of {part.said['size']} bytes", AGAIN)


def fetch(url: str, part: Part, known: Known, options: argparse.Namespace) -> None:
    """Complete a part, by several connections with growing waits between them if need be."""
    failures, best = 0, part.size()
    with progress(f"{part.final.parent.name}/{part.final.name}", known.size, best) as bar:
        while True:
            try:
                return connect(url, part, known, options.timeout, bar)
            except Interrupted as error:
                if part.size() >= best + CHUNK:
                    failures, best = 0, part.size()
                wait = max(min(options.retry_wait * 2**failures, MAX_WAIT), error.after)
                failures += 1
                if failures > RETRIES or wait > MAX_WAIT:
                    raise
            bar.set_postfix_str(f"interrupted, next try in {wait:.0f} s")
            time.sleep(wait)
            bar.set_postfix_str("")


def fetch_from_any(urls: list[str], part: Part, known: Known, options: argparse.Namespace) -> str:
    """Complete a part from the first of `urls` that the server has, and tell which it was."""
    missing = []
    for url in urls:
        try:
            fetch(url, part, known, options)
            return url
        except Missing as error:
            missing.append(error)
    raise missing[0]


def download(urls: list[str], path: Path, sums: IO[str], options: argparse.Namespace) -> None:
    """Bring a whole file to `path`, and its hash to `sums`.

    Raises: DownloadError, or OSError if it cannot be saved; `path` is then as it was.
    """
    part, known = Part(path), release.published(path.parent.name, path.name)
    for last in (False, True):
        url = fetch_from_any(urls, part, known, options)
        if not (found := part.problem(known)):
            return part.finish(sums)
        resumed = part.resumed
        part.discard()
        if last or not resumed:  # else its beginning may be that of an older file: once anew
            raise DownloadError(url, f"what came {found}", "try another --base_url")


def try_lock(file: IO[str]) -> bool:
    """Lock an open file, unless another process did. The lock dies with the process."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 30)  # Windows keeps others from reading what is locked
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a network disk that has no locks
        return True
    return True


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[IO[str]]:
    """The file SUMS of a folder, opened once no other run is writing there."""
    folder.mkdir(parents=True, exist_ok=True)
    waited = False
    while True:
        with release.open_sums(folder, "a+") as file:
            if not try_lock(file):
                if not waited:
                    tell(f"{folder}: waiting for another run that downloads there")
                waited = True
                time.sleep(0.2)
            elif is_open_file(folder / release.SUMS, file):
                try:
                    yield file
                finally:
                    remove_if_empty(folder, file)
                return
            else:  # the run that had it has removed it
                folder.mkdir(parents=True, exist_ok=True)


def is_open_file(path: Path, file: IO[str]) -> bool:
    """Whether an open file still has its name."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    return False


def remove_if_empty(folder: Path, sums: IO[str]) -> None:
    """Leave nothing of a download that brought nothing."""
    if os.fstat(sums.fileno()).st_size == 0:
        with contextlib.suppress(OSError):  # Windows removes no open file
            (folder / release.SUMS).unlink()
            folder.rmdir()


def tell(line: str) -> None:
    """A line on stderr, for stdout belongs to --list and --verify."""
    print(line, file=sys.stderr)


def download_model(model: str, options: argparse.Namespace) -> None:
    """Fetch the files of a model that are not here or not whole.

    Raises: DownloadError.
    """
    folder, url = options.models_dir / model, f"{options.base_url}/{model}"
    lacking = []
    for name in FILES:
        if problem_on_disk(folder, name):
            lacking.append(name)
        else:
            tell(f"{model}/{name}: already whole")
    if not lacking:
        return
    others = release.other_checkpoints(folder)
    if others and not options.force and any((folder / name).exists() for name in lacking):
        raise DownloadError(
            folder,
            f"holds a complete checkpoint that is not the released one ({', '.join(others)})",
            "download to another --models_dir, or replace it with --force",
        )
    try:
        with only_run(folder) as sums:
            for name in lacking:
                urls = [
                    f"{options.base_url}/{remote}/{name}" for remote in release.remote_names(model)
                ]
                url = urls[0]
                if problem_on_disk(folder, name):  # the run that we waited for did not mend it
                    download(urls, folder / name, sums, options)
                tell(f"{model}/{name}: {(folder / name).stat().st_size} bytes, whole")
    except OSError as error:
        advice = f"make room, or choose another folder with --models_dir, then {AGAIN}"
        raise DownloadError(url, f"cannot be saved in {folder} ({error})", advice) from None


def show_list(models: list[str], models_dir: Path) -> None:
    """Print the models, their download sizes, and what is here of each, judged by size only."""
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
        print(f"{model:<10} {size if model in MODELS else '':>17}  {here}")


def verify(models: list[str], models_dir: Path) -> bool:
    """Print the state of each file; True if all are whole."""
    whole = True
    for model in models:
        for name in FILES:
            found = problem_on_disk(models_dir / model, name)
            print(f"{model}/{name}: {found or 'whole'}")
            whole = whole and not found
    return whole


def models_here(models_dir: Path) -> list[str]:
    """The folders with a model, whole or not."""
    return sorted({path.parent.name for name in FILES for path in models_dir.glob(f"*/{name}")})


class Parser(argparse.ArgumentParser):
    """Tells of wrong usage in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def seconds(text: str) -> float:
    """A time that can be waited for."""
    if not 0 < (value := float(text)) < math.inf:
        raise ValueError(text)
    return value


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options; exits with status 2 if they are wrong."""
    parser = Parser(description="Download GPT-2 models.", epilog=f"Models: {' '.join(MODELS)}")
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help="such as 117M; several may be named"
    )
    parser.add_argument(
        "--models_dir", type=Path, default=ROOT / "models", help="where they go; models/ here"
    )
    parser.add_argument(
        "--base_url",
        default=os.environ.get("GPT2_BASE_URL"),
        help=f"a server with such folders, and then any of them; GPT2_BASE_URL, or {BASE_URL}",
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--list", action="store_true", help="tell what there is, and what is here")
    action.add_argument("--verify", action="store_true", help="check what is here")
    action.add_argument("--version", action="version", version=versions())
    parser.add_argument(
        "--force", action="store_true", help="replace a complete checkpoint that is another model"
    )
    parser.add_argument(
        "--timeout", type=seconds, default=30, help="seconds for a silent server; %(default)s"
    )
    parser.add_argument(
        "--retry_wait", type=seconds, default=1, help="seconds to the first retry; %(default)s"
    )
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[-2:] == ["--", "--help"]:  # how the other scripts are asked
        arguments = ["--help"]
    options = parser.parse_args(arguments)

    options.models_dir = Path(os.path.expandvars(options.models_dir)).expanduser()
    here = models_here(options.models_dir) if options.list or options.verify else []
    for model in options.models:
        if not release.PLAIN_NAME.fullmatch(model):
            parser.error(f"{model!r} is no plain name of a model; there are {', '.join(MODELS)}")
        if model not in [*MODELS, *here] and not options.base_url:
            parser.error(f"unknown model {model!r}; there are {', '.join(MODELS)}")
    options.models = options.models or [*dict.fromkeys([*(MODELS if options.list else ()), *here])]
    if not options.models:
        where = f"; none is in {options.models_dir}" if options.verify else ""
        parser.error(f"name a model: {', '.join(MODELS)}{where}")
    options.base_url = (options.base_url or BASE_URL).rstrip("/")
    if not options.base_url.startswith(("http://", "https://")):
        parser.error(f"--base_url must begin with http:// or https://, got {options.base_url}")
    return options


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
                download_model(model, options)
    except (DownloadError, release.UncheckableError, OSError) as error:
        tell(f"download_model.py: {error}")
        return 1
    except KeyboardInterrupt:
        tell(f"download_model.py: stopped; {AGAIN}")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
