"""One file from a server that may drop the connection: resume, retry, verify."""

import contextlib
import dataclasses
import datetime
import email.utils
import math
import re
import time
from collections.abc import Callable, Generator, Sequence
from concurrent import futures
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from tqdm import tqdm

from gpt2.download import release
from gpt2.download.errors import DownloadError, Interrupted, Missing
from gpt2.download.part import Part, Said
from gpt2.download.release import Known, progress
from gpt2.download.web import AGAIN, CHUNK, ELSEWHERE, Reply, open_url

RETRIES = 5  # in a row that bring less than a chunk each
MAX_WAIT = 120  # seconds
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")
STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')
SHA256 = re.compile(r'"?([0-9a-f]{64})"?')


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to treat a server."""

    report: Callable[[str], None]  # shows a line to the user
    timeout: float = 30  # seconds that it may be silent
    retry_wait: float = 1  # seconds before the first retry, doubled for each further one
    token: str = ""  # for the server of the URL itself
    dead: set[str] = dataclasses.field(default_factory=set)  # hosts that failed in this run
    if_missing: str = f"see --list for the names, or {ELSEWHERE}"  # advice


def server_says(reply: Reply) -> Said:
    """What a reply says of the complete file."""
    etag, size, md5 = reply.headers.get("ETag", ""), reply.size, reply.headers.get("Content-MD5")
    if reply.status == 206:  # then these two are of the rest only
        found = CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", ""))
        size, md5 = int(found[2]) if found and found[2] != "*" else None, None
    sha256 = SHA256.fullmatch(reply.linked.get("X-Linked-Etag", ""))  # of Hugging Face
    return Said(
        size,
        md5,
        version=etag if STRONG_ETAG.fullmatch(etag) else None,
        sha256=sha256[1] if sha256 else None,
        commit=reply.linked.get("X-Repo-Commit"),
    )


def check_status(url: str, reply: Reply, settings: Settings) -> None:
    """Raise what fits a reply other than 200 or 206."""
    what = f"the server answers {reply.status} {reply.reason}"
    if details := reply.linked.get("X-Error-Message"):  # of Hugging Face
        what += f" ({details})"
    if reply.status in (401, 403, 404, 410):
        raise Missing(url, what, settings.if_missing, reply.status)
    if reply.status in (408, 416, 429) or reply.status >= 500:
        after = retry_after(reply.headers.get("Retry-After", ""))
        what += f" and asks to wait {after:.0f} s" if after else ""
        raise Interrupted(url, what, f"later, {AGAIN}", after)
    if reply.status not in (200, 206):
        raise DownloadError(url, what, ELSEWHERE)


def retry_after(text: str) -> float:
    """The seconds that a server asks to wait, which may be infinite; 0 if it is unclear."""
    if re.fullmatch(r"\s*[0-9]+\s*", text, re.ASCII):
        return float(text) if len(text) < 10 else math.inf
    try:
        date = email.utils.parsedate_to_datetime(text)
        return max(0, date.timestamp() - datetime.datetime.now().timestamp())
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return 0


def receive(url: str, reply: Reply, part: Part, known: Known, bar: tqdm) -> None:
    """Append a body to the part; or begin it again, where the server sends all of it."""
    said, chunk = server_says(reply), reply.read()
    if reply.status == 200:
        what = known.refuses(said.size) if said.size is not None else ""
        what = release.not_the_file(chunk) or what
        if what:
            advice = f"look at it in a browser, or {ELSEWHERE}"
            raise DownloadError(url, f"what the server sends {what}", advice)
        part.restart(said)
    else:
        place = CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", ""))
        same = dataclasses.replace(said, md5=part.said.md5) == part.said
        if not place or int(place[1]) != part.size() or not same:
            part.discard()
            raise Interrupted(url, "the file there has changed", AGAIN)
        part.resumed = True
    bar.total = part.said.size
    bar.n = bar.initial = bar.last_print_n = part.size()  # tqdm has no other way back
    with part.open("ab") as file, contextlib.closing(write(part, file, chunk, reply)) as pieces:
        for written in pieces:
            bar.update(written)
            if (limit := part.said.size or known.limit()) is not None and file.tell() > limit:
                part.discard()
                what = f"what the server sends is longer than {limit} bytes"
                raise DownloadError(url, what, ELSEWHERE)


def write(part: Part, file: IO[bytes], chunk: bytes, reply: Reply) -> Generator[int, None, None]:
    """Write `chunk` and the rest of a reply to the open part; yields the size of each piece."""
    # Hashing and flushing run alongside the download: at the end they would take as long again.
    with futures.ThreadPoolExecutor(2) as alongside:
        hashing: futures.Future[Any] = alongside.submit(int)  # done at once
        flushing: futures.Future[Any] = alongside.submit(int)
        flushed = file.tell()
        while chunk:
            file.write(chunk)
            file.flush()  # so that nothing of it is lost if this process is killed
            yield len(chunk)
            if hashing.done() and file.tell() - part.hash.done > 8 * CHUNK:
                hashing = alongside.submit(part.hash.catch_up, disable=True)
            if flushing.done() and file.tell() - flushed > 128 * CHUNK:
                flushing, flushed = alongside.submit(part.flush), file.tell()
            chunk = reply.read()
        part.flush()


def connect(url: str, part: Part, known: Known, settings: Settings, bar: tqdm) -> None:
    """Let one connection bring what a part lacks.

    Raises: Interrupted if the part is not complete and another try may help; DownloadError.
    """
    start, headers = part.size(), {"Accept-Encoding": "identity"}
    if start and start == part.said.size:
        return part.flush()
    if start and part.can_resume(known):
        headers["Range"] = f"bytes={start}-"
        if part.said.version:
            headers["If-Range"] = part.said.version
    with open_url(url, headers, settings.timeout, settings.token) as reply:
        if reply.status == 416:  # the file there is shorter than what has arrived
            part.discard()
        check_status(url, reply, settings)
        receive(url, reply, part, known, bar)
    if part.size() < (part.said.size or 0):
        raise Interrupted(url, "the connection ended early", AGAIN)


def fetch(url: str, part: Part, known: Known, settings: Settings, retries: int = RETRIES) -> None:
    """Complete a part, by several connections with growing waits between them if need be."""
    failures, best = 0, part.size()
    with progress(f"{part.final.parent.name}/{part.final.name}", known.size, best) as bar:
        while True:
            try:
                return connect(url, part, known, settings, bar)
            except Interrupted as error:
                if part.size() >= best + CHUNK:
                    failures, best = 0, part.size()
                what = f"{error.what}, after {part.size()} bytes"
                wait = max(min(settings.retry_wait * 2**failures, MAX_WAIT), error.after)
                failures += 1
                if failures > retries or wait > MAX_WAIT:
                    raise Interrupted(url, what, error.advice, error.after) from None
            with tqdm.external_write_mode():
                settings.report(f"{url}: {what}; next try in {wait:.3g} s")
            time.sleep(wait)


def download(
    urls: Sequence[str], final: Path, sums: IO[str], known: Known, settings: Settings
) -> Said:
    """Bring a complete file to `final`, and its hash to `sums`.

    Args:
      urls: where it may be; a server that fails is passed over for the next one.
    Returns: what the server said of the file.
    Raises: DownloadError, of the first URL; OSError if it cannot be saved. `final` is then as it
      was.
    """
    part, failed, dead = Part(final), list[DownloadError](), settings.dead
    for url in [url for url in urls if _host(url) not in dead] or urls:
        if failed and _host(url) in dead:
            continue
        others = [other for other in urls if _host(other) not in dead | {_host(url)}]
        try:
            return _download_from(url, part, sums, known, settings, 1 if others else RETRIES)
        except DownloadError as error:
            failed.append(error)
            if not isinstance(error, Missing):
                dead.add(_host(url))
                if others:
                    settings.report(f"{error.summary()}; trying {others[0]}")
    raise failed[0]


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _download_from(
    url: str, part: Part, sums: IO[str], known: Known, settings: Settings, retries: int
) -> Said:
    fetch(url, part, known, settings, retries)
    found = part.problem(known)
    if found and part.resumed:  # its beginning may be that of an older file: start over, once
        part.discard()
        fetch(url, part, known, settings, retries)
        found = part.problem(known)
    if found:
        part.discard()
        raise DownloadError(url, f"what arrived {found}", ELSEWHERE)
    part.finish(sums)
    return part.said
