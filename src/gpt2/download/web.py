"""One request to a server that may be slow, endless or hostile."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from gpt2.download.errors import DownloadError, Interrupted

CHUNK = 1 << 20  # bytes
LEAST_SPEED = 1000  # bytes a second
SPELL = 2  # timeouts: in such a time the reply's head is complete, and its body not too slow
MOST_REDIRECTS = 20
NETWORK = (requests.RequestException, urllib3.exceptions.HTTPError, ValueError, OverflowError)
AGAIN = "run the same command again to resume"
ELSEWHERE = "try another server (--base_url, HF_ENDPOINT)"


class Watchdog:
    """Cuts a connection that does not send enough in time.

    A socket's own timeout ends a silence only, and each byte starts it again.
    """

    def __init__(self, timeout: float):
        self.reason = ""  # why the connection was cut
        self._spell, self._sockets = SPELL * timeout, list[socket.socket]()
        self._reading, self._arrived = False, 0
        self._head, self._over = threading.Event(), threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def adopt(self, connected: socket.socket) -> None:
        """Watch a connection. TLS wraps its socket later; a duplicate stays the same."""
        self._sockets.append(connected.dup())
        if self.reason:
            self._cut(self.reason)

    def head_arrived(self) -> None:
        """From now on, judge the speed of the body."""
        self._head.set()

    def read(self, read: Callable[[int], bytes]) -> bytes:
        """What `read` brings; only time that is spent here counts."""
        self._reading = True
        chunk = read(CHUNK)
        self._reading = False
        self._arrived += len(chunk)
        return chunk

    def close(self) -> None:
        """Stop watching."""
        self._over.set()
        self._head.set()
        for connected in self._sockets:
            connected.close()

    def _watch(self) -> None:
        if not self._head.wait(self._spell):
            self._cut(f"there was no complete reply within {self._spell:g} s")
        while not self._over.wait(self._spell):
            if self._reading and self._arrived < LEAST_SPEED * self._spell:
                self._cut(f"it sends less than {LEAST_SPEED} bytes a second")
            self._arrived = 0

    def _cut(self, reason: str) -> None:
        self.reason = reason
        for connected in self._sockets:
            with contextlib.suppress(OSError):  # closed already
                connected.shutdown(socket.SHUT_RDWR)


class Reply:
    """The reply at the end of a chain of redirects.

    Attributes: status, reason, headers; linked: the headers of the first reply, which may be a
    redirect; size: bytes of the body, None if unknown.
    """

    def __init__(self, response: requests.Response, linked: Mapping[str, str], dog: Watchdog):
        self._response, self._dog, self.linked = response, dog, linked
        self.status, self.reason = response.status_code, response.reason
        self.headers, self.size = response.headers, response.raw.length_remaining

    def read(self) -> bytes:
        """The next bytes of the body; b"" at its end."""
        # Unlike read, read1 loses nothing when the connection drops.
        chunk = self._dog.read(self._response.raw.read1)
        if not chunk and self._dog.reason:  # the end is that of the connection
            raise requests.ConnectionError(self._dog.reason)
        return chunk


@contextlib.contextmanager
def open_url(
    url: str, headers: Mapping[str, str], timeout: float, token: str = ""
) -> Iterator[Reply]:
    """Request a URL, and follow redirects.

    Args:
      timeout: seconds that the server may be silent; slowness is limited accordingly.
      token: sent to the server of `url` only, never to one that it redirects to.
    Raises: Interrupted if another try may help, else DownloadError; also in the `with` block.
    """
    dog = Watchdog(timeout)
    try:
        response, linked = _follow(url, headers, timeout, token, dog)
        if dog.reason:  # a head that was cut short can look complete
            response.close()
            raise requests.ConnectionError(dog.reason)
        dog.head_arrived()
        with response:
            yield Reply(response, linked, dog)
    except NETWORK as error:
        if dog.reason:
            raise Interrupted(url, dog.reason, f"later, {AGAIN}") from None
        _network_failure(url, error)
    finally:
        dog.close()


def _follow(
    first: str, headers: Mapping[str, str], timeout: float, token: str, dog: Watchdog
) -> tuple[requests.Response, Mapping[str, str]]:
    url: str = first
    linked: Mapping[str, str] = {}
    for hop in range(MOST_REDIRECTS + 1):
        with _Session(dog) as session:
            auth = _Bearer(token) if token and _origin(url) == _origin(first) else None
            response = session.get(url, headers=headers, stream=True, timeout=timeout, auth=auth)
        if hop == 0:
            linked = response.headers
        if not response.is_redirect:
            return response, linked
        response.close()  # its body may be endless
        target = response.headers["Location"].encode("latin-1").decode("utf-8", "replace")
        try:
            url = urljoin(url, target)
            if urlsplit(url).scheme not in ("http", "https"):
                raise ValueError
        except ValueError:
            what = f"it redirects to {target!r}, which is not a usable address"
            raise DownloadError(first, what, ELSEWHERE) from None
    raise DownloadError(first, f"more than {MOST_REDIRECTS} redirects", ELSEWHERE)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2]


class _Bearer(requests.auth.AuthBase):
    """Puts a token into a request. Being there, it also keeps ~/.netrc out."""

    def __init__(self, token: str):
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


class _Session(requests.Session):
    """Follows no redirect, whose body it would read to the end, and shows its sockets to a dog."""

    def __init__(self, dog: Watchdog):
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(dog))

    def resolve_redirects(self, *args: Any, **options: Any) -> Iterator[Any]:
        return iter(())


class _Adapter(requests.adapters.HTTPAdapter):
    def __init__(self, dog: Watchdog):
        super().__init__()
        self._dog = dog

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        kind: Any = pool.ConnectionCls
        dog = self._dog

        class Watched(kind):
            def _new_conn(self) -> socket.socket:
                connected: socket.socket = super()._new_conn()
                dog.adopt(connected)
                return connected

        pool.ConnectionCls = Watched
        return pool


def _network_failure(url: str, error: BaseException) -> NoReturn:
    """Raise what fits an error of the libraries, in the words of its first cause."""
    root = error
    while cause := root.__cause__ or root.__context__:
        root = cause
    if "CERTIFICATE_VERIFY_FAILED" in str(root):
        advice = "check the clock, or set REQUESTS_CA_BUNDLE to your network's certificates"
        raise DownloadError(url, f"its TLS certificate is not trusted ({root})", advice) from None
    if isinstance(error, (ValueError, OverflowError)):
        raise DownloadError(url, f"it cannot be fetched ({root})", ELSEWHERE) from None
    advice = f"check the network and its proxy (HTTPS_PROXY), then {AGAIN}"
    raise Interrupted(url, f"the connection failed ({root})", advice) from None
