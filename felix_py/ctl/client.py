"""Asks the agent: one GET over its unix socket, one document back, or one sentence about why not."""

import json
import os
import re
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

DEADLINE = 10.0
"""Seconds to wait for an answer; a busy agent answers in milliseconds."""

EXIT_REFUSED = 2
"""As design: 0 all well, 1 something is not, 2 the agent cannot be reached or the command is wrong."""

LAB = Path("/run/felix-lab")
"""Where felix-lab keeps its nodes; `--node` finds their sockets there."""

MOUNTED = re.compile(r"/felix-lab/([^/]+)/(?:nodes|routers)/[^/]+/[^/]+$")
"""What is mounted in a lab's machine, whose name is the first group."""


class Unreachable(Exception):  # noqa: N818 - named for what it means: no agent answered
    """The agent could not be asked; the sentence says why and what to do."""


class NotFound(Exception):  # noqa: N818 - named for what it means: the agent knows no such thing
    """The agent answered that what was asked for does not exist."""


class Refused(Exception):  # noqa: N818 - named for what it means: the question makes no sense
    """The agent refused the question; the sentence says what to ask instead."""


def socket_path(given: str | None, node: str | None, lab: str | None = None, home: Path = LAB) -> Path:
    """Return the socket to use: the one given, that of a lab's node, FELIX_SOCKET, or this node's own.

    Args:
        given: the path of a socket.
        node: the name of a node of a lab.
        lab: which lab that is; None is that of FELIX_LAB, or of this machine, or the only one with such a node.
        home: the folder of all labs.

    Raises:
        Unreachable: when there is no such node.
        Refused: when several labs have it.
    """
    if given is not None:
        return Path(given)
    if node is not None:
        return _of_lab(node, lab or os.environ.get("FELIX_LAB") or _lab_of_this_machine(), home)
    if lab is not None:
        raise Refused(f"--lab {lab} says where a node is, and no node was named; give --node as well")
    return Path(os.environ.get("FELIX_SOCKET", "/run/felix/agent.sock"))


def _lab_of_this_machine() -> str | None:
    """Return the lab whose machine this is, for nodes and routers see its folders as their own; None elsewhere."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    found = (MOUNTED.search(line.split()[3]) for line in lines)  # the field of what is mounted, proc(5)
    return next((each[1] for each in found if each is not None), None)


def _of_lab(node: str, lab: str | None, home: Path) -> Path:
    labs = sorted(home.iterdir()) if home.is_dir() else []
    sockets = {each.name: each / "nodes" / node / "run" / "agent.sock" for each in labs}
    found = {name: path for name, path in sockets.items() if path.exists() and lab in (None, name)}
    if len(found) > 1:
        raise Refused(f"the labs {' and '.join(found)} each have a node {node}; say which by --lab, or FELIX_LAB")
    if found:
        return next(iter(found.values()))
    if lab is None:
        raise Unreachable(f"no lab on this machine has a running node {node}; see `felix-lab status`")
    raise Unreachable(f"lab {lab} has no running node {node}; see `felix-lab --name {lab} status`")


def get(path: Path, resource: str, *parts: str, **query: str | None) -> dict[str, Any]:
    """Return the document at /v1/RESOURCE/PARTS.

    Raises:
        Unreachable: when no agent answers at `path`.
        NotFound: when the agent knows no such thing.
        Refused: when the agent cannot make sense of the question.
    """
    return _ask("GET", path, (resource, *parts), query)


def get_meanwhile(
    path: Path, parts: tuple[str, ...], query: Mapping[str, str | None], wait: Callable[[socket.socket], None]
) -> dict[str, Any]:
    """Return a document as `get` does, and have `wait` wait until the socket can be read."""
    return _ask("GET", path, parts, query, wait)


def post(path: Path, resource: str, *parts: str, **query: str | None) -> dict[str, Any]:
    """Ask for what stands at /v1/RESOURCE/PARTS to be done, and return the answer; raises as `get` does."""
    return _ask("POST", path, (resource, *parts), query)


def _ask(
    method: str,
    path: Path,
    parts: tuple[str, ...],
    query: Mapping[str, str | None],
    wait: Callable[[socket.socket], None] = lambda _: None,
) -> dict[str, Any]:
    target = "/v1/" + "/".join(quote(part, safe="") for part in parts)
    asked = {name: value for name, value in query.items() if value is not None}
    try:
        status, body = _exchange(method, path, target + ("?" + urlencode(asked) if asked else ""), wait)
    except FileNotFoundError:
        raise Unreachable(f"no agent runs here: {path} does not exist; start it with `felix-agent run`") from None
    except PermissionError:
        raise Unreachable(f"{path} is not open to you; become root or a member of the group felix") from None
    except ConnectionRefusedError:
        raise Unreachable(f"no agent listens on {path}; start it with `felix-agent run`") from None
    except BrokenPipeError:
        raise  # our own reader has seen enough
    except OSError as error:
        raise Unreachable(f"the agent at {path} did not answer: {str(error) or type(error).__name__}") from error
    return _document(status, body, path)


def _exchange(method: str, path: Path, target: str, wait: Callable[[socket.socket], None]) -> tuple[int, bytes]:
    """Ask one thing and read the answer to its end, after which the agent hangs up (RFC 9112).

    By hand: Python's http.client brings TLS and mail along, whose import takes a quarter of a command's time.

    Raises:
        OSError: when the socket fails, or the answer is none or not whole.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(DEADLINE)
        connection.connect(str(path))
        ask = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        connection.sendall(ask.encode())
        wait(connection)
        answer = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii", "replace").split("\r\n")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    words = first.split()
    if not first.startswith("HTTP/1.") or len(words) < 2 or not words[1].isdigit():  # noqa: PLR2004 - version and status
        raise ConnectionError("its answer is no HTTP" if answer else "it closed the connection without an answer")
    if fields.get("content-length") != str(len(body)):
        raise ConnectionError("it hung up in the middle of its answer")
    return int(words[1]), body


def _document(status: int, body: bytes, path: Path) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError as error:
        raise Unreachable(f"what listens on {path} is no felix-agent: its answer is no JSON") from error
    if not isinstance(document, dict):
        raise Unreachable(f"what listens on {path} is no felix-agent: its answer is no document")
    if status == HTTPStatus.NOT_FOUND:
        raise NotFound(document.get("error", "the agent knows no such thing"))
    if status == HTTPStatus.BAD_REQUEST:
        raise Refused(document.get("error", "the agent does not understand this"))
    if status != HTTPStatus.OK:
        raise Unreachable(f"the agent at {path} refused: {document.get('error', status)}")
    return document
