"""What ends a download, in one line that is safe to print and has a remedy."""

import os
import re

from gpt2.terminal import escaped
from user_error import UserError

AGAIN = "run the same command again to resume"
ELSEWHERE = "try another server (--base_url)"
CHECK_NETWORK = f"check the network and its proxy (HTTPS_PROXY), then {AGAIN}"
CHECK_CERTIFICATES = "check the clock, or set REQUESTS_CA_BUNDLE to your network's certificates"


class DownloadError(UserError):
    """A download that failed: where, what happened, and what to try."""

    exit_status = 1

    def __init__(self, where: object, what: str, advice: str, after: float = 0):
        self.what, self.advice = shown(what), advice
        self.after = after  # seconds that the server asks to wait
        self.summary = f"{shown(where)}: {self.what}"
        super().__init__(f"{self.summary}; {advice}")


class InterruptedDownload(DownloadError):
    """A failure after which another try may succeed."""


class MissingFile(DownloadError):
    """The server has no such file, or does not show it."""


def shown(text: object) -> str:
    """A text from outside as part of one line, escaped, without passwords and the token."""
    line = re.sub(r"[^/@\s'\"]+:[^/@\s]*@", "", escaped(" ".join(str(text)[:2000].split())))
    token = os.environ.get("HF_TOKEN", "").strip()
    line = line.replace(token, "...") if token else line
    return line if len(line) <= 300 else line[:300] + "..."


def root_cause(error: BaseException) -> BaseException:
    """The error of the lowest library, which has the clearest text."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return error


def explain(where: str, error: BaseException) -> DownloadError:
    """What an error of a network library means, with the text of its root cause."""
    root = root_cause(error)
    if "CERTIFICATE" in str(root):
        what = f"its TLS certificate is not trusted ({root})"
        return DownloadError(where, what, CHECK_CERTIFICATES)
    # No wait helps against an invalid address of the server or the proxy.
    wrong_address = isinstance(error, (ValueError, OverflowError))
    kind = DownloadError if wrong_address else InterruptedDownload
    return kind(where, f"the download failed ({root})", CHECK_NETWORK)
