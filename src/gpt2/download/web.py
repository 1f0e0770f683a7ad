"""One request to a web server, and what its failures mean."""

import contextlib
from collections.abc import Iterator, Mapping

import requests
import urllib3

from gpt2.download.errors import DownloadError, InterruptedDownload, root_cause

AGAIN = "run the same command again to resume"
ELSEWHERE = "try another server (--base_url)"
CHECK_NETWORK = f"check the network and its proxy (HTTPS_PROXY), then {AGAIN}"
CHECK_CERTIFICATES = "check the clock, or set REQUESTS_CA_BUNDLE to your network's certificates"
NETWORK = (requests.RequestException, urllib3.exceptions.HTTPError, ValueError, OverflowError)


@contextlib.contextmanager
def open_url(
    url: str, headers: Mapping[str, str | None], timeout: float
) -> Iterator[requests.Response]:
    """Request a URL and follow redirects; the `with` block reads the body.

    Raises: InterruptedDownload if another try may help, else DownloadError; also for failures of
      the network in the `with` block, such as a server that is silent for `timeout` seconds.
    """
    try:
        with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
            yield response
    except DownloadError:  # of the `with` block; it is a ValueError, too
        raise
    except NETWORK as error:
        raise _explain(url, error) from None


def _explain(url: str, error: BaseException) -> DownloadError:
    """What an error of requests or urllib3 means, with the text of its root cause."""
    root = root_cause(error)
    if "CERTIFICATE" in str(root):
        what = f"its TLS certificate is not trusted ({root})"
        return DownloadError(url, what, CHECK_CERTIFICATES)
    if "SOCKS support" in str(root):
        advice = "install it: pip install PySocks"
        return DownloadError(url, "a SOCKS proxy is set, which needs a library", advice)
    if isinstance(error, (ValueError, OverflowError, requests.TooManyRedirects)):
        advice = ELSEWHERE
        if requests.utils.get_environ_proxies(url):
            advice = f"check the address of your network's proxy (HTTPS_PROXY), or {advice}"
        return DownloadError(url, f"it cannot be fetched ({root})", advice)
    return InterruptedDownload(url, f"the connection failed ({root})", CHECK_NETWORK)
