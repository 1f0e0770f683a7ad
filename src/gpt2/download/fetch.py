"""One file from a server that may drop the connection: resume, retry, check."""

import contextlib
import dataclasses
import logging
import re
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
from gpt2.download.partial_file import PartialFile, ServerMetadata
from gpt2.download.released_files import ExpectedFile

RETRIES = 5  # in a row that bring less than READ_SIZE each
MAX_WAIT = 120  # seconds
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-")
NETWORK = (requests.RequestException, urllib3.exceptions.HTTPError, ValueError, OverflowError)
STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')
log = logging.getLogger("gpt2.download")


def download(urls: Sequence[str], final: Path, timeout: float = 30, retry_wait: float = 1) -> None:
    """Download a file to `final`, and record its hash.

    Args:
      urls: possible addresses; the first that has the file is used.
      timeout: seconds that a server may be silent.
      retry_wait: seconds before the first retry, doubled for each further one.
    Raises: DownloadError; OSError if it cannot be saved. `final` is then as it was.
    """
    part, expected = PartialFile(final), folder.expected_download(final.parent, final.name)
    for url in urls:
        try:
            fetch(url, part, expected, timeout, retry_wait)
            break
        except MissingFile:
            if url == urls[-1]:
                raise
    origin, sums = folder.recorded(final.parent)
    sums[final.name] = expected.sha256 or check.file_hash(part.path)
    part.finish()
    folder.record(final.parent, sums, origin)
    log.info("%s/%s: %d bytes, complete", final.parent.name, final.name, final.stat().st_size)


def fetch(
    url: str, part: PartialFile, expected: ExpectedFile, timeout: float, retry_wait: float
) -> None:
    """Complete and check a partial file, over several connections, with growing waits."""
    failures, best = 0, part.size()
    with progress(f"{part.final.parent.name}/{part.final.name}", expected.size, best) as bar:
        while True:
            try:
                return connect(url, part, expected, timeout, bar)
            except InterruptedDownload as error:
                if part.size() >= best + READ_SIZE:
                    failures, best = 0, part.size()
                what = f"{error.what}, after {part.size()} bytes"
                wait = max(min(retry_wait * 2**failures, MAX_WAIT), error.after)
                failures += 1
                if failures > RETRIES or wait > MAX_WAIT:
                    raise InterruptedDownload(url, what, error.advice) from None
            with tqdm.external_write_mode():
                log.info("%s: %s; next try in %.3g s", shown(url), what, wait)
            time.sleep(wait)


def connect(url: str, part: PartialFile, expected: ExpectedFile, timeout: float, bar: tqdm) -> None:
    """Download the rest of a partial file over one connection, and check it.

    Raises: InterruptedDownload if it is not complete and another try may help; DownloadError.
    """
    start, headers = part.size(), dict[str, str | None]({"Accept-Encoding": "identity"})
    if start and (part.server.etag or expected.sha256):  # or a mixture would go unnoticed
        headers |= {"Range": f"bytes={start}-", "If-Range": part.server.etag}
    if not start or start != part.server.size:
        try:
            with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
                check_status(url, response)
                receive(url, response, part, expected, bar)
        except DownloadError:  # which is a ValueError, too
            raise
        except NETWORK as error:  # also a server that is silent for `timeout` seconds
            raise explain(url, error) from None
    if part.size() < (part.server.size or 0):
        raise InterruptedDownload(url, "the connection ended early", AGAIN)
    size = expected.size or part.server.size
    if wrong := check.problem(part.path, dataclasses.replace(expected, size=size)):
        part.discard()
        # The beginning of a file that was resumed may be that of an older file.
        raise (InterruptedDownload if start else DownloadError)(url, f"it {wrong}", ELSEWHERE)


def check_status(url: str, response: requests.Response) -> None:
    """Raise the error for a reply other than 200, 206 or 416."""
    status = response.status_code
    what = f"the server answers {status} {response.reason}"
    if status == 401:
        raise DownloadError(url, what, "it needs a password: --base_url https://NAME:PASSWORD@...")
    if status in (403, 404, 410):
        raise MissingFile(url, what, f"see --list for the names, or {ELSEWHERE}")
    if status in (408, 429) or status >= 500:
        after = 0.0
        with contextlib.suppress(*NETWORK):  # an unclear time
            after = urllib3.Retry().get_retry_after(response.raw) or 0
        what += f" and asks to wait {after:.0f} s" if after else ""
        raise InterruptedDownload(url, what, f"later, {AGAIN}", after)
    if status not in (200, 206, 416):
        raise DownloadError(url, what, ELSEWHERE)


def receive(
    url: str, response: requests.Response, part: PartialFile, expected: ExpectedFile, bar: tqdm
) -> None:
    """Append a body to the partial file, or start over if the server sends the whole file."""
    # Unlike read, read1 loses nothing when the connection drops, and the bar shows every byte.
    size, read = response.raw.length_remaining, response.raw.read1
    etag = STRONG_ETAG.fullmatch(response.headers.get("ETag", ""))
    server = ServerMetadata(size, etag[0] if etag else None)
    place = CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    chunk = read(READ_SIZE)
    if response.status_code == 200:
        wrong = check.not_the_file(chunk) or ("" if size is None else expected.size_error(size))
        if wrong:
            advice = f"look at it in a browser, or {ELSEWHERE}"
            raise DownloadError(url, f"what the server sends {wrong}", advice)
        part.restart(server)
    elif not (place and int(place[1]) == part.size() and server.etag == part.server.etag):
        part.discard()
        raise InterruptedDownload(url, "the file there has changed", AGAIN)
    bar.total = limit = part.server.size or expected.size
    bar.n = bar.initial = bar.last_print_n = part.size()  # tqdm's update cannot go back
    with part.path.open("ab") as file:
        while chunk and (limit is None or file.tell() <= limit):
            file.write(chunk)
            file.flush()  # so that nothing of it is lost if this process is killed
            bar.update(len(chunk))
            chunk = read(READ_SIZE)
