"""The tun driver's process: outlives the agent, is found again, is replaced when it fails."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import ipip_lab
import pytest
from ipip_lab import Racks, capture, until

from ipip import header, queues
from ipip.device import Device, TunnelRefused

pytestmark = pytest.mark.netns

RTMGRP_LINK = 1
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
AGENT = """
import os, pathlib, signal, sys
sys.path[:0] = sys.argv[1:3]
import ipip_lab
from ipip.device import Device
Device(pathlib.Path(sys.argv[3]), "tun").put(ipip_lab.wish(1))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def bare() -> Iterator[Racks]:
    with ipip_lab.racks() as made:
        yield made


@pytest.fixture
def racks(bare: Racks) -> Racks:
    return bare.ready()


def ask(racks: Racks, *lines: bytes) -> list[dict[str, object]]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(ipip_lab.DEADLINE)
        sock.connect(str(racks.a1.directory / "ipip.sock"))
        sock.sendall(b"".join(line + b"\n" for line in lines))
        with sock.makefile("rb") as answers:
            return [json.loads(answers.readline()) for _ in lines]


def resident(process: int) -> int:
    line = next(line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


def test_one_that_is_told_to_stop_carries_first_what_waits_for_it(racks: Racks) -> None:
    assert racks.ping().returncode == 0
    everybody = [*racks.a1.carriers(), *racks.a1.helpers()]
    with (
        racks.b1.pod.do(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sink,
        socket.socket(socket.AF_UNIX) as control,
    ):
        sink.bind(("10.65.2.5", 4000))
        sink.settimeout(ipip_lab.DEADLINE)
        sink.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 20)
        control.connect(str(racks.a1.directory / "ipip.sock"))
        control.sendall(b"{}\n")
        assert b"not understood" in control.recv(256)
        for process in everybody:
            os.kill(process, signal.SIGSTOP)
        control.sendall(b'{"command": "stop"}\n')
        sent = {number.to_bytes(2, "big") for number in range(400)}  # more than all take in a batch
        for each in sent:  # a socket for each: several connections, which several processes carry
            with racks.a1.pod.do(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as source:
                source.sendto(each, ("10.65.2.5", 4000))
        for process in everybody:
            os.kill(process, signal.SIGCONT)
        assert {sink.recv(64) for _ in sent} == sent
        assert control.recv(64) == b"{}\n"
    until(lambda: not racks.a1.carriers(), "the processes have ended")


def test_an_agent_that_dies_loses_no_packet(bare: Racks) -> None:
    bare.b1.put()
    bare.b1.route()
    root, here = Path(ipip_lab.__file__).parents[2], Path(ipip_lab.__file__).parent
    died = bare.a1.namespace.run(sys.executable, "-c", AGENT, root, here, bare.a1.directory, check=False)
    assert died.returncode == -signal.SIGKILL
    bare.a1.route()
    assert bare.ping().returncode == 0
    assert bare.a1.read() == bare.a1.wish


def test_a_new_agent_adopts_the_process(racks: Racks) -> None:
    before = racks.a1.carriers()
    device = racks.a1.namespace.do(Device, run_directory=racks.a1.directory)
    assert device.why == "tun: tunl0 is a TUN device already; `felix-agent cleanup` lets us choose anew"
    assert racks.a1.namespace.do(device.read, "tunl0") == racks.a1.wish
    racks.a1.namespace.do(device.put, racks.a1.wish)
    assert racks.a1.carriers() == before


@pytest.mark.parametrize("blow", [pytest.param(signal.SIGKILL, id="killed"), pytest.param(signal.SIGSTOP, id="stuck")])
def test_a_process_that_fails_is_replaced_and_routes_survive(racks: Racks, blow: signal.Signals) -> None:
    (before,) = racks.a1.carriers()
    os.kill(before, blow)
    if blow is signal.SIGKILL:
        until(lambda: racks.a1.carriers() == [], "the process ends")
    broken = racks.a1.read()
    assert broken is not None
    assert (broken.up, broken.routes, broken.allowed) == (False, frozenset(), frozenset())
    racks.a1.put()
    assert racks.a1.read() == racks.a1.wish
    assert racks.ping().returncode == 0
    assert racks.a1.carriers() != [before]


def test_the_death_of_the_process_is_a_link_event(racks: Racks) -> None:
    watch = racks.a1.namespace.do(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    with watch:
        watch.bind((0, RTMGRP_LINK))
        watch.settimeout(ipip_lab.DEADLINE)
        os.kill(racks.a1.carriers()[0], signal.SIGKILL)
        assert b"tunl0" in watch.recv(1 << 16)


def test_a_process_of_another_version_is_replaced(racks: Racks) -> None:
    before = racks.a1.carriers()
    racks.a1.device._carrying.version = "newer"
    assert racks.a1.read() != racks.a1.wish
    racks.a1.put()
    assert racks.a1.read() == racks.a1.wish
    assert racks.a1.carriers() != before
    assert racks.ping().returncode == 0


def test_a_process_whose_socket_was_removed_is_replaced(racks: Racks) -> None:
    (racks.a1.directory / "ipip.sock").unlink()
    assert racks.a1.read() != racks.a1.wish
    racks.a1.put()
    assert racks.a1.read() == racks.a1.wish
    assert len(racks.a1.carriers()) == 1
    assert racks.ping().returncode == 0


def test_a_deleted_device_ends_the_process_and_put_makes_both_anew(racks: Racks) -> None:
    racks.a1.namespace.ip("link del tunl0\n")
    assert racks.a1.read() is None
    until(lambda: racks.a1.carriers() == [], "the process ends")
    assert '"reason": "tunl0 was deleted"' in (racks.a1.directory / "ipip.log").read_text()
    racks.a1.put()
    racks.a1.route()
    assert racks.ping().returncode == 0


def test_a_terminated_process_says_so(racks: Racks) -> None:
    os.kill(racks.a1.carriers()[0], signal.SIGTERM)
    until(lambda: racks.a1.carriers() == [], "the process ends")
    lines = [json.loads(line) for line in (racks.a1.directory / "ipip.log").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["started", "stopped"]


def test_one_device_has_one_process(racks: Racks) -> None:
    other = racks.a1.namespace.do(Device, run_directory=racks.a1.directory / "other", driver="tun")
    racks.a1.namespace.do(other.put, racks.a1.wish)
    assert len(racks.a1.carriers()) == 1
    assert racks.a1.namespace.do(other.read, "tunl0") == racks.a1.wish


def test_what_keeps_the_process_from_starting_is_said(bare: Racks) -> None:
    bare.a1.directory.mkdir()
    (bare.a1.directory / "ipip.sock").mkdir()
    with pytest.raises(TunnelRefused, match=r"^tunl0 cannot be made in userspace: "):
        bare.a1.put()
    (bare.a1.directory / "ipip.sock").rmdir()


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xfe\0", id="no text"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"command": ["status"]}', id="command is a list"),
        pytest.param(b'{"command": "reboot"}', id="unknown command"),
        pytest.param(b'{"command": "configure"}', id="settings missing"),
        pytest.param(
            b'{"command": "configure", "local": "172.31.1.999", "routes": [], "allowed": []}', id="no such address"
        ),
        pytest.param(
            b'{"command": "configure", "local": "172.31.1.99", "routes": [], "allowed": []}', id="address not ours"
        ),
        pytest.param(
            b'{"command": "configure", "local": "172.31.1.11", "routes": [["10.0.0.1/8", "1.1.1.1"]], "allowed": []}',
            id="host bits",
        ),
        pytest.param(
            b'{"command": "configure", "local": "172.31.1.11", "routes": [["10.0.0.0/8"]], "allowed": []}', id="no node"
        ),
        pytest.param(b'{"command": "configure", "local": "\\ud800", "routes": [], "allowed": [null]}', id="no address"),
    ],
)
def test_rubbish_on_the_control_socket_is_answered_and_changes_nothing(racks: Racks, line: bytes) -> None:
    (answer,) = ask(racks, line)
    assert set(answer) == {"error"}
    assert racks.a1.read() == racks.a1.wish
    assert racks.ping().returncode == 0


def test_a_line_without_end_and_many_clients_are_cut_off(racks: Racks) -> None:
    path = str(racks.a1.directory / "ipip.sock")
    idle = [socket.socket(socket.AF_UNIX) for _ in range(15)]
    try:
        for sock in idle:
            sock.connect(path)
        with socket.socket(socket.AF_UNIX) as endless:
            endless.connect(path)
            endless.settimeout(ipip_lab.DEADLINE)
            with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
                endless.sendall(b"x" * (64 << 20))
        assert racks.a1.read() == racks.a1.wish
    finally:
        for sock in idle:
            sock.close()


def test_the_control_socket_is_roots_alone(racks: Racks) -> None:
    assert (racks.a1.directory / "ipip.sock").stat().st_mode & 0o777 == 0o600


def test_the_processes_are_small_and_sleep_when_nothing_happens(racks: Racks) -> None:
    processes = [*racks.a1.carriers(), *racks.a1.helpers()]
    assert max(map(resident, processes)) < 12 * 1024
    until(lambda: "counters" in ask(racks, b'{"command": "status"}')[0], "every process has answered once")
    times = [times_of(process) for process in processes]
    switches = [switches_of(process) for process in processes]
    until(lambda: racks.ping("-i", "0.2").returncode == 0, "something happens")
    assert [switches_of(process) for process in processes] != switches
    assert [times_of(process) for process in processes] == times


def times_of(process: int) -> list[str]:
    return Path(f"/proc/{process}/stat").read_text().split()[13:15]


def switches_of(process: int) -> str:
    return Path(f"/proc/{process}/status").read_text().partition("ctxt")[2]


def processors() -> int:
    return min(len(os.sched_getaffinity(0)), queues.MOST)


def test_every_processor_has_a_process_with_its_part_of_the_packets(racks: Racks) -> None:
    assert len(racks.a1.helpers()) == processors() - 1
    before = racks.a1.counters()
    with (
        racks.b1.pod.do(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        racks.a1.pod.do(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("10.65.2.5", 0))
        receiver.settimeout(ipip_lab.DEADLINE)
        sent = {bytes([number]) for number in range(200)}
        answers = set()
        for payload in sorted(sent):
            with racks.a1.pod.do(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as each:
                each.sendto(payload, receiver.getsockname())
                answers.add(receiver.recv(100))
        sender.sendto(b"the last", receiver.getsockname())
        assert receiver.recv(100) == b"the last"  # none came twice
    assert answers == sent
    assert racks.a1.counters()["sent_packets"] - before["sent_packets"] == len(sent) + 1
    assert racks.b1.counters()["received_packets"] >= len(sent) + 1


@pytest.mark.parametrize("blow", [pytest.param(signal.SIGKILL, id="killed"), pytest.param(signal.SIGSTOP, id="stuck")])
def test_one_process_that_fails_has_all_replaced(racks: Racks, blow: signal.Signals) -> None:
    if processors() == 1:
        pytest.skip("one processor, one process")
    before = {*racks.a1.carriers(), *racks.a1.helpers()}
    os.kill(racks.a1.helpers()[0], blow)
    until(lambda: racks.a1.read() != racks.a1.wish, "the failure is seen")
    racks.a1.put()
    until(lambda: not before & {*racks.a1.carriers(), *racks.a1.helpers()}, "the old ones are gone")
    assert racks.a1.read() == racks.a1.wish
    assert len(racks.a1.helpers()) == processors() - 1
    assert racks.ping().returncode == 0


def test_a_first_process_that_is_killed_takes_the_others_along(racks: Racks) -> None:
    os.kill(racks.a1.carriers()[0], signal.SIGKILL)
    until(lambda: not racks.a1.carriers() + racks.a1.helpers(), "all end")


def test_a_device_of_an_older_version_keeps_its_one_queue(bare: Racks) -> None:
    bare.a1.namespace.run("ip", "tuntap", "add", "tunl0", "mode", "tun")
    bare.ready()
    assert bare.a1.helpers() == []
    assert bare.a1.read() == bare.a1.wish
    assert bare.ping().returncode == 0


def test_the_type_of_service_is_copied(racks: Racks) -> None:
    with capture(racks.tor, "rack1") as packets:
        assert racks.ping("-Q", "0xb8").returncode == 0
        outer, _ = next(split for packet in packets() if (split := header.decode(packet)) is not None)
    assert outer.type_of_service == 0xB8


def test_a_local_address_that_moves_is_followed(racks: Racks) -> None:
    racks.a1.namespace.ip("addr add 172.31.1.12/24 dev eth0\n")
    racks.a1.put(local="172.31.1.12")
    with capture(racks.tor, "rack1") as packets:
        racks.ping()
        sources = {socket.inet_ntoa(split[0].source) for packet in packets() if (split := header.decode(packet))}
    assert sources == {"172.31.1.12"}


def test_an_address_that_is_not_ours_is_refused_in_a_sentence(racks: Racks) -> None:
    with pytest.raises(
        TunnelRefused, match=r"packets cannot be sent from 172.31.1.99: Cannot assign requested address"
    ):
        racks.a1.put(local="172.31.1.99")


def test_the_kernel_driver_without_its_module_is_refused_in_a_sentence(bare: Racks) -> None:
    if ipip_lab.kernel_has_ipip():
        pytest.skip("this kernel has the ipip module")
    device = bare.a1.namespace.do(Device, run_directory=bare.a1.directory, driver="kernel")
    with pytest.raises(TunnelRefused, match=r"^tunl0 cannot be made: this kernel has no ipip module; "):
        bare.a1.namespace.do(device.put, bare.a1.wish)


def test_usage_is_explained(racks: Racks) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ipip.userspace"], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stderr) == (2, "usage: python -m ipip.userspace DEVICE SOCKET LOG VERSION\n")
    assert racks.a1.read() == racks.a1.wish
