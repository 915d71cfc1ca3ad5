"""What the kernel tracks of an address goes, and nothing else does; the kernel's own list in /proc is the witness."""

import os
import queue
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from conntrack_lab import Connection, in_a_namespace, inject, rule, tracked, unshare_network
from structlog.testing import capture_logs

from felix_py.kernel import conntrack_codec as codec
from felix_py.kernel.conntrack import Conntrack
from felix_py.kernel.conntrack_table import WALK, KernelTable
from felix_py.kernel.wire import Family
from felix_py.model import IPAddress

pytestmark = pytest.mark.netns

POD = "10.65.0.5"
SERVICE, BACKEND = "10.96.0.10", "10.65.0.6"


def purge(*addresses: str) -> Conntrack:
    """Purge and wait until it is done."""
    done: queue.Queue[IPAddress] = queue.Queue()
    conntrack = Conntrack(done.put)
    for address in addresses:
        conntrack.begin(ip_address(address))
    assert {done.get(timeout=20) for _ in addresses} == set(map(ip_address, addresses))
    conntrack.close()
    return conntrack


def both_directions_go_and_others_stay() -> None:
    opened = Connection(POD, "10.65.1.9")
    answered = Connection("10.65.1.9", POD)
    others = {
        Connection("10.65.1.9", "10.65.1.8"),
        Connection("10.65.0.50", "10.65.1.9"),  # begins with the same digits
        Connection("10.65.1.9", SERVICE, BACKEND),
        Connection("fd00::5", "fd00::9"),
    }
    inject({opened, answered} | others)
    conntrack = purge(POD)
    assert tracked() == others
    assert (conntrack.entries_removed, conntrack.failures) == (2, 0)


def a_service_is_forgotten_with_the_pod_behind_it() -> None:
    other = Connection("10.65.1.9", SERVICE, "10.65.0.7", port=7)
    inject([Connection("10.65.1.9", SERVICE, BACKEND), other])
    purge(BACKEND)
    assert tracked() == {other}


def traffic_through_nat_is_forgotten() -> None:
    rule(
        f"table ip n {{\nchain o {{\ntype nat hook output priority -100\nip daddr {SERVICE} dnat to {BACKEND}\n}}\n}}\n"
    )
    converse(POD, SERVICE, BACKEND)
    assert tracked() == {Connection(POD, SERVICE, BACKEND)}
    purge("10.65.0.7")
    assert tracked() == {Connection(POD, SERVICE, BACKEND)}
    purge(BACKEND)
    assert tracked() == set()


def a_zone_of_one_direction_is_minded() -> None:
    rule("table ip raw {\nchain o {\ntype filter hook output priority -300\nct original zone set 5\n}\n}\n")
    converse(POD, BACKEND, BACKEND)
    assert tracked() == {Connection(POD, BACKEND)}
    purge(POD)
    assert tracked() == set()


def converse(asker: str, asked: str, answering: str) -> None:
    """Ask a question from port 1000 to port 53 by UDP, and have it answered."""
    for address in (asker, answering):
        subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"], check=True)
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        for each, end in ((server, (answering, 53)), (client, (asker, 1000))):
            each.settimeout(5)
            each.bind(end)
        # Without a route the kernel would not get as far as to look at the destination.
        subprocess.run(["ip", "route", "replace", f"{asked}/32", "dev", "lo"], check=True)
        client.sendto(b"?", (asked, 53))
        question, from_whom = server.recvfrom(9)
        server.sendto(b"!", from_whom)
        assert (question, *client.recvfrom(9)) == (b"?", b"!", (asked, 53))


def ipv6_goes_too() -> None:
    others = {Connection("fd00::9", "fd00::8"), Connection("fd00::50", "fd00::9"), Connection(POD, "10.65.1.9")}
    through = Connection("fd00::9", "fd00::10", "fd00::5", port=7)
    inject({Connection("fd00::5", "fd00::9"), Connection("fd00::9", "fd00::5"), through} | others)
    purge("fd00::5")
    assert tracked() == others


def zones_are_told_apart_and_all_are_purged() -> None:
    other = Connection("10.65.1.9", "10.65.1.8", zone=7)
    inject([Connection(POD, "10.65.1.9"), Connection(POD, "10.65.1.9", zone=7), other])
    assert len(tracked()) == 3
    purge(POD)
    assert tracked() == {other}


def an_address_with_nothing_is_done() -> None:
    assert purge(POD).entries_removed == 0, "nothing is tracked at all"
    other = Connection("10.65.1.9", "10.65.1.8")
    inject([other])
    conntrack = purge(POD)
    assert (conntrack.entries_removed, conntrack.failures) == (0, 0)
    assert tracked() == {other}


def another_connection_with_the_same_tuple_stays() -> None:
    inject([Connection(POD, "10.65.1.9")])
    table = KernelTable()
    (entry,) = codec.matching(table._dump(codec.all_entries(Family.IPV4)), {ip_address(POD).packed})
    flipped = bytes(each ^ 0xFF for each in entry.identity)
    assert table._delete([entry._replace(identity=flipped)]) == ([], {}), "one that is gone is done"
    assert tracked() == {Connection(POD, "10.65.1.9")}
    assert table._delete([entry]) == ([0], {})
    assert tracked() == set()


def ten_of_many_go() -> None:
    """20,000 entries: the kernel chooses; it took 24 ms on the machine where this was written."""
    many = a_crowd(20_000)
    inject(many | {Connection(POD, SERVICE, port=port) for port in range(10)})
    table = KernelTable()
    began = time.perf_counter()
    assert table.forget([ip_address(POD)]).removed == 10
    assert time.perf_counter() - began < 2
    if int(os.uname().release.split(".")[0]) >= 6:
        assert table._filters, "kernels from 6.0 on choose as they should"
    assert tracked() == many


def ipv6_is_found_among_many() -> None:
    """The kernel's own IPv6 filter leaves out whom it is asked for, here the pod that talks to itself."""
    other = Connection("fd00::9", "fd00::8")
    itself = Connection("fd00::5", "fd00::10", "fd00::5")
    inject(a_crowd(WALK + 1000) | {Connection("fd00::5", "fd00::9"), Connection("fd00::9", "fd00::5"), itself, other})
    assert KernelTable().forget([ip_address("fd00::5")]).removed == 3
    assert {each for each in tracked() if ":" in each.source} == {other}


def choosing_ourselves_finds_the_same() -> None:
    """What older kernels, IPv6 and crowds of addresses need."""
    many = a_crowd(WALK + 1000)
    mine = {Connection(POD, SERVICE, port=port) for port in range(10)} | {Connection("10.65.1.9", SERVICE, POD, 7)}
    for kernel_chooses in (True, False):
        inject(mine | (many - tracked()))
        assert KernelTable().forget([ip_address(POD)], kernel_chooses=kernel_chooses).removed == 11
        assert tracked() == many


def many_addresses_go_in_one_look() -> None:
    kept = Connection("10.65.9.9", "10.65.9.8")
    addresses = [f"10.65.3.{last}" for last in range(1, 101)]
    inject([kept, *(Connection(address, SERVICE) for address in addresses)])
    forgotten = KernelTable().forget(map(ip_address, addresses))
    assert (forgotten.removed, set(forgotten.by_address.values()), forgotten.faults) == (100, {1}, {})
    assert tracked() == {kept}


def the_caller_does_not_wait() -> None:
    inject(a_crowd(20_000))
    done: queue.Queue[IPAddress] = queue.Queue()
    conntrack = Conntrack(done.put)
    addresses = [ip_address(f"10.66.0.{last}") for last in range(50)]
    seconds = []
    for address in addresses:
        began = time.perf_counter()
        conntrack.begin(address)
        seconds.append(time.perf_counter() - began)
    assert statistics.median(seconds) < 0.001
    assert {done.get(timeout=20) for _ in addresses} == set(addresses)
    assert not any(map(conntrack.busy, addresses))
    assert conntrack.entries_removed == 50
    conntrack.close()


def the_namespace_is_that_of_the_maker() -> None:
    inject([Connection(POD, "10.65.1.9")])
    stays = threading.Event()
    witness = threading.Thread(target=stays.wait, args=(20,))  # keeps an eye on the first namespace
    witness.start()
    done: queue.Queue[IPAddress] = queue.Queue()
    conntrack = Conntrack(done.put)
    unshare_network()
    assert tracked(witness.native_id) == {Connection(POD, "10.65.1.9")}
    conntrack.begin(ip_address(POD))
    done.get(timeout=20)
    assert tracked(witness.native_id) == set()
    stays.set()
    conntrack.close()


def a_refusal_is_said_once_and_ends_the_wait() -> None:
    inject([Connection(POD, "10.65.1.9")])
    os.setuid(65534)  # whoever may not change the network may not ask either
    with capture_logs() as events:
        conntrack = purge(POD)
    assert conntrack.failures == 1
    assert events == [
        {
            "event": "conntrack.refused",
            "log_level": "warning",
            "address": POD,
            "reason": "Operation not permitted",
        }
    ]


CASES = [
    both_directions_go_and_others_stay,
    a_service_is_forgotten_with_the_pod_behind_it,
    traffic_through_nat_is_forgotten,
    a_zone_of_one_direction_is_minded,
    ipv6_goes_too,
    zones_are_told_apart_and_all_are_purged,
    an_address_with_nothing_is_done,
    another_connection_with_the_same_tuple_stays,
    ten_of_many_go,
    ipv6_is_found_among_many,
    choosing_ourselves_finds_the_same,
    many_addresses_go_in_one_look,
    the_caller_does_not_wait,
    the_namespace_is_that_of_the_maker,
    a_refusal_is_said_once_and_ends_the_wait,
]


def a_crowd(size: int) -> set[Connection]:
    """Return connections of ever other addresses, 10.66.0.0 and on, none of which is a pod's of these tests."""
    return {Connection(f"10.{66 + (n >> 16)}.{n >> 8 & 255}.{n & 255}", SERVICE) for n in range(size)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__.replace("_", " "))
def test_kernel(case: Callable[[], None]) -> None:
    in_a_namespace(case)
