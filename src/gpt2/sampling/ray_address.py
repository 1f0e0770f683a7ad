"""Whether Ray answers at the address of a cluster, asked before Ray is imported."""

import importlib.util
import os
import re
import socket

from user_error import UserError, require

CONNECT_SECONDS = 5  # to wait for an answer; Ray itself would try again for minutes
HTTP2_SETTINGS = b"\x04"  # the frame that both sides of a connection begin with in HTTP/2


class ClusterError(UserError):
    """The cluster is at fault, and not what the user typed."""

    exit_status = 1


def check_address(address: str) -> None:
    """Raise UserError unless Ray is installed and answers at the address; imports no Ray."""
    shown = f"--ray {address}"
    if address == "auto" and os.environ.get("RAY_ADDRESS"):
        address = os.environ["RAY_ADDRESS"]  # which Ray takes, too
        shown += f" (RAY_ADDRESS is {address})"
    found = re.fullmatch(r"(?:ray://)?(\[[^\]\s]+\]|[^:/\s]+):(\d{1,5})", address)
    known = address in ("local", "auto") or (found is not None and int(found[2]) < 1 << 16)
    require("ray", repr(address), known, "local, auto, HOST:PORT or ray://HOST:PORT")
    if importlib.util.find_spec("ray") is None:
        raise UserError("--ray needs Ray: python3 -m pip install -r requirements-ray.txt")
    if found:
        try:
            answer = _first_frame(found[1].strip("[]"), int(found[2]))
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ClusterError(f"{shown}: no answer: {reason}") from None
        if answer != HTTP2_SETTINGS and not os.environ.get("RAY_USE_TLS"):
            raise ClusterError(f"{shown}: what answers there is not Ray")


def _first_frame(host: str, port: int) -> bytes:
    """The kind of frame that a server of HTTP/2, as Ray's are, answers first. Raises: OSError."""
    with socket.create_connection((host, port), timeout=CONNECT_SECONDS) as connection:
        settings = b"\0\0\0" + HTTP2_SETTINGS + bytes(5)
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
        return connection.recv(4, socket.MSG_WAITALL)[3:]
