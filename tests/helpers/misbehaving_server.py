"""An HTTP server on loopback that serves bytes, counts them, and misbehaves on command."""

import collections
import hashlib
import http.server
import json
import ssl
import threading
from collections.abc import Callable
from urllib.parse import urlsplit


class MisbehavingServer(http.server.ThreadingHTTPServer):
    """Serves `files`, a dict of path ("/1M/vocab.bpe") -> bytes.

    `faults[path]` lists what the next requests of a path meet, one each; what is left when it
    is empty is good service. `always[path]` is met by every request. A fault is a function of
    the handler and the bytes that should be sent; the functions below make them.
    """

    daemon_threads = True

    def __init__(self, files, certificate=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = dict(files)
        self.faults = collections.defaultdict(list)
        self.always: dict[str, Callable] = {}
        self.ranges = True  # whether Range is understood
        self.missing = status(404)  # the reply for other paths
        self.headers: Callable[[bytes], dict] = lambda body: {"ETag": f'"{hash(body)}"'}
        self.requests: list[tuple[str, dict]] = []
        self.sent = collections.Counter()  # bytes of body by path
        scheme = "http"
        if certificate:
            scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"{scheme}://127.0.0.1:{self.server_port}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.thread.join()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that goes away is no news."""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, self.name = self.server, urlsplit(self.path).path  # a proxy is sent whole URLs
        server.requests.append((self.path, dict(self.headers)))
        body = server.files.get(self.name, b"")
        if server.faults[self.name]:
            server.faults[self.name].pop(0)(self, body)
        elif self.name in server.always:
            server.always[self.name](self, body)
        elif self.name in server.files:
            self.serve(body)
        else:
            server.missing(self, body)

    do_HEAD = do_GET

    def serve(self, body, pieces=None, headers=()):
        """Answer with `body` or the range asked for; `pieces` limits what is really sent."""
        headers = self.server.headers(body) | dict(headers)
        asked = self.headers.get("Range", "bytes=0-") if self.server.ranges else "0"
        first = int(asked.removeprefix("bytes=").rstrip("-"))
        if first >= len(body) > 0:
            return status(416, {"Content-Range": f"bytes */{len(body)}"})(self, b"")
        if first:
            headers |= {"Content-Range": f"bytes {first}-{len(body) - 1}/{len(body)}"}
        headers["Content-Length"] = str(len(body) - first)
        self.answer(206 if first else 200, headers)
        for piece in (pieces or (lambda rest: [rest]))(body[first:]):
            self.write(piece)

    def write(self, piece):
        """Send and count a piece of a body, unless only the head was asked for."""
        if self.command != "HEAD":
            self.server.sent[self.name] += len(piece)
            self.wfile.write(piece)

    def answer(self, code, headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *args):
        """Keep quiet."""


def drop(count):
    """Close the connection after `count` bytes of the body."""
    return lambda handler, body: handler.serve(body, lambda rest: [rest[:count]])


def stall(count, until):
    """Send `count` bytes of the body, then nothing before `until` (an event) is set."""

    def fault(handler, body):
        def pieces(rest):
            yield rest[:count]
            until.wait(30)
            yield rest[count:]

        handler.serve(body, pieces)

    return fault


def status(code, headers=(), text=b""):
    """Answer with a status and a body of its own."""

    def fault(handler, body):
        handler.answer(code, {"Content-Length": str(len(text)), **dict(headers)})
        handler.write(text)

    return fault


def raw(text, endless=b""):
    """Send bytes as they are; then `endless` again and again, until the client goes away."""

    def fault(handler, body):
        handler.wfile.write(text)
        while endless:
            handler.wfile.write(endless)

    return fault


def serve_as_hub(server, cdn, repository, files, commit="c" * 40, token=""):
    """Let `server` answer for a model as Hugging Face's does; its weights are on `cdn`.

    With a token the model is private.
    """
    server.always.clear()
    server.headers = lambda body: {"ETag": f'"{hashlib.sha1(body).hexdigest()}"'}
    head = {"X-Repo-Commit": commit}

    def reply(path, answer):
        def guarded(handler, body):
            if token and handler.headers.get("Authorization") != f"Bearer {token}":
                return refuse(handler, body)
            return answer(handler, body)

        server.always[path] = guarded

    refuse = status(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid password"})
    api, tree = f"/api/models/{repository}", []
    for name, body in files.items():
        tree.append({"type": "file", "path": name, "size": len(body), "oid": "0" * 40})
        if name.endswith(".safetensors"):
            cdn.files[f"/{repository}/{name}"] = body
            sha256 = hashlib.sha256(body).hexdigest()
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(body)), **head}
            linked["Location"] = f"{cdn.url}/{repository}/{name}"
            reply(f"/{repository}/resolve/{commit}/{name}", status(302, linked))
        else:
            serve = lambda handler, _, body=body: handler.serve(body, headers=head)  # noqa: E731
            reply(f"/{repository}/resolve/{commit}/{name}", serve)
    info = {"id": repository, "sha": commit, "siblings": []}
    reply(f"{api}/revision/main", status(200, {}, json.dumps(info).encode()))
    reply(f"{api}/tree/{commit}", status(200, {}, json.dumps(tree).encode()))
    server.missing = status(404, {"X-Error-Code": "RepoNotFound"})
