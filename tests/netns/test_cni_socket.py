"""Whatever is sent to the socket, it is answered, logged, and the next call is served."""

import array
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cni_lab import Host, host, until

pytestmark = pytest.mark.netns

PREAMBLE = b"felix-cni 1\0"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Host]:
    with host(tmp_path) as made:
        yield made


def send(node: Host, data: bytes, descriptors: list[int] | None = None) -> bytes:
    """Send, say that nothing follows, and return what comes back until the server closes."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(15)
        sock.connect(str(node.socket))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors or []))] if descriptors else []
        sock.sendmsg([data[:1]], rights)
        try:
            sock.sendall(data[1:])
            sock.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, OSError):
            return b""  # the server had enough
        answer = b""
        while piece := sock.recv(1 << 16):
            answer += piece
        return answer


def rubbish(node: Host) -> list[str]:
    return [event["reason"] for event in node.log if event["event"] == "api.rubbish"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"x", 6, id="one byte"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 6, id="another protocol"),
        pytest.param(b"\0" * 1000, 6, id="zeros"),
        pytest.param(bytes(range(256)) * 40, 6, id="every byte"),
        pytest.param(PREAMBLE + b"CNI_COMMAND\0\0", 6, id="a variable without a value"),
        pytest.param(PREAMBLE + b"CNI_COMMAND=ADD\0", 6, id="no end of the variables"),
        pytest.param(PREAMBLE + b"CNI_COMMAND=EXPLODE\0\0{}", 4, id="an unknown command"),
        pytest.param(PREAMBLE + b"CNI_COMMAND=STATUS\0\0[[[[", 6, id="broken JSON"),
        pytest.param(PREAMBLE + b"CNI_COMMAND=STATUS\0\0" + b"[" * 200000, 6, id="JSON deeper than any stack"),
        pytest.param(PREAMBLE + b"CNI_COMMAND=STATUS\0\0null", 6, id="JSON that is no object"),
        pytest.param(PREAMBLE + b"CNI_COMMAND=STATUS\0\0{}", 1, id="no version"),
    ],
)
def test_rubbish_gets_an_error_and_the_server_lives(node: Host, data: bytes, code: int) -> None:
    answer = send(node, data)
    assert answer.startswith(b"1{")
    assert f'"code": {code},'.encode() in answer
    assert node.cni("STATUS", version="1.1.0").status == 0


def test_rubbish_is_logged(node: Host) -> None:
    send(node, b"hello")
    assert rubbish(node) == ["the call does not begin with 'felix-cni 1'; only felix-cni of this version may call"]


def test_a_call_without_end_is_cut_off(node: Host) -> None:
    assert send(node, PREAMBLE + b"x" * (3 << 20)) == b""
    until(lambda: rubbish(node) == ["a call had more than 2097152 bytes"], "the server says so")


def test_whoever_sends_nothing_is_let_go_while_others_are_served(node: Host) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(node.socket))
        begun = time.monotonic()
        assert node.cni("STATUS", version="1.1.0").status == 0
        assert time.monotonic() - begun < 2
        silent.settimeout(15)
        assert silent.recv(1) == b""
    until(lambda: rubbish(node) == ["the call was not complete within 5 s"], "the server says so")


def test_whoever_leaves_before_the_answer_harms_nobody(node: Host) -> None:
    for _ in range(5):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(node.socket))
            sock.sendall(b"hello")
    assert node.cni("STATUS", version="1.1.0").status == 0


def test_descriptors_that_nobody_asked_for_are_closed(node: Host) -> None:
    assert node.process is not None
    table = Path(f"/proc/{node.process.pid}/fd")
    node.cni("STATUS", version="1.1.0")
    before = until(lambda: len(list(table.iterdir())), "the table is there")
    readable, writable = os.pipe()
    try:
        for _ in range(20):
            send(node, PREAMBLE + b"CNI_COMMAND=STATUS\0\0{}", [readable, writable] * 20)
        until(lambda: len(list(table.iterdir())) <= before, "all are closed")
    finally:
        os.close(readable)
        os.close(writable)


def test_only_root_may_connect(node: Host) -> None:
    assert oct(node.socket.stat().st_mode & 0o777) == "0o600"


def test_the_socket_goes_with_the_server(node: Host) -> None:
    node.stop()
    assert not node.socket.exists()


def test_a_hundred_at_once_are_all_answered(node: Host) -> None:
    calls = [node.begin("STATUS", version="1.1.0") for _ in range(100)]
    assert {call.answer().status for call in calls} == {0}
