"""One file from a server that may drop the connection: resume, retry, check."""

import contextlib
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import requests
import urllib3
from tqdm import tqdm

from gpt2.download import check, folder
from gpt2.download.check import READ_SIZE, progress
from gpt2.download.errors import (
    AGAIN,
    ELSEWHERE,
    DownloadError,
    InterruptedDownload,
    MissingFile,
    explain,
    shown,
)
from gpt2.download.released_files import SHARD, ExpectedFile, released_file

RETRIES = 5  # in a row that bring less than READ_SIZE each
MAX_WAIT = 120  # seconds
NETWORK = (requests.RequestException, urllib3.exceptions.HTTPError, ValueError, OverflowError)
log = logging.getLogger("gpt2.download")


def download(urls: Sequence[str], final: Path, timeout: float = 30, retry_wait: float = 1) -> None:
    """Download a file to `final`, and record its hash.

    Args:
      urls: possible addresses; the first that has the file is used.
      timeout: seconds that a server may be silent.
      retry_wait: seconds before the first retry, doubled for each further one.
    Raises: DownloadError; OSError if it cannot be saved. `final` is then as it was.
    """
    part = final.with_name(f"part.{final.name}")
    expected = released_file(final.parent.name, final.name)
    for url in urls:
        try:
            fetch(url, part, expected, timeout, retry_wait)
            break
        except MissingFile:
            if url == urls[-1]:
                raise
    origin, sums = folder.recorded(final.parent)
    sums[final.name] = expected.sha256 or check.file_hash(part)
    with part.open("r+b") as file:
        os.fsync(file.fileno())  # or a power cut could leave the name without the content
    part.replace(final)
    folder.record(final.parent, sums, origin)
    log.info("%s/%s: %d bytes, complete", final.parent.name, final.name, final.stat().st_size)


def fetch(url: str, part: Path, expected: ExpectedFile, timeout: float, retry_wait: float) -> None:
    """Complete and check a partial file, over several connections, with growing waits."""
    failures, best = 0, size_of(part)
    label = f"{part.parent.name}/{part.name.removeprefix('part.')}"
    with progress(label, expected.size, best) as bar:
        while True:
            try:
                return connect(url, part, expected, timeout, bar)
            except InterruptedDownload as error:
                size = size_of(part)
                if size >= best + READ_SIZE:
                    failures, best = 0, size
                what = f"{error.what}, after {size} bytes"
                wait = max(min(retry_wait * 2**failures, MAX_WAIT), error.after)
                failures += 1
                if failures > RETRIES or wait > MAX_WAIT:
                    raise InterruptedDownload(url, what, error.advice) from None
            with tqdm.external_write_mode():
                log.info("%s: %s; next try in %.3g s", shown(url), what, wait)
            time.sleep(wait)


def size_of(part: Path) -> int:
    """How many bytes of a file have arrived."""
    return part.stat().st_size if part.exists() else 0


def connect(url: str, part: Path, expected: ExpectedFile, timeout: float, bar: tqdm) -> None:
    """Download the rest of a partial file over one connection, and check it.

    A file starts over unless the check would notice that it is a mixture of two versions.
    Raises: InterruptedDownload if it is not complete and another try may help; DownloadError.
    """
    resumable = expected.sha256 or part.name.endswith(SHARD)
    start = size_of(part) if resumable else 0
    if not start or start != expected.size:
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        try:
            with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
                if not (start and response.status_code == 416):  # which means that nothing is left
                    check_status(url, response)
                    receive(url, response, part, start, expected, bar)
        except DownloadError:  # which is a ValueError, too
            raise
        except NETWORK as error:  # also a server that is silent for `timeout` seconds
            raise explain(url, error) from None
    if wrong := check.problem(part, expected):
        part.unlink()
        raise (InterruptedDownload if start else DownloadError)(url, f"it {wrong}", ELSEWHERE)


def check_status(url: str, response: requests.Response) -> None:
    """Raise the error for a reply other than 200 or 206."""
    status = response.status_code
    what = f"the server answers {status} {response.reason}"
    if status in (403, 404):
        raise MissingFile(url, what, f"see --list for the names, or {ELSEWHERE}")
    if status in (408, 429) or status >= 500:
        after = 0.0
        with contextlib.suppress(*NETWORK):  # an unclear time
            after = urllib3.Retry().get_retry_after(response.raw) or 0
        what += f" and asks to wait {after:.0f} s" if after else ""
        raise InterruptedDownload(url, what, f"later, {AGAIN}", after)
    if status not in (200, 206):
        raise DownloadError(url, what, ELSEWHERE)


def receive(
    url: str, response: requests.Response, part: Path, start: int, expected: ExpectedFile, bar: tqdm
) -> None:
    """Append a body after `start` bytes, or start over if the server sends the whole file."""
    # Unlike read, read1 loses nothing when the connection drops, and the bar shows every byte.
    size, read = response.raw.length_remaining, response.raw.read1
    chunk = read(READ_SIZE)
    if response.status_code == 200:
        start = 0
        wrong = check.not_the_file(chunk) or ("" if size is None else expected.size_error(size))
        if wrong:
            advice = f"look at it in a browser, or {ELSEWHERE}"
            raise DownloadError(url, f"what the server sends {wrong}", advice)
    elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        part.unlink(missing_ok=True)
        raise InterruptedDownload(url, "the server sends another part of the file", AGAIN)
    bar.total = total = expected.size if size is None else start + size
    bar.n = bar.initial = bar.last_print_n = start  # tqdm's update cannot go back
    with part.open("ab" if start else "wb") as file:
        while chunk and (total is None or file.tell() <= total):
            file.write(chunk)
            file.flush()  # so that nothing of it is lost if this process is killed
            bar.update(len(chunk))
            chunk = read(READ_SIZE)
