"""What settings of a session do on the wire, against BIRD: passwords, TTL, KEEPALIVEs, source addresses, IPv6."""

from base64 import b64encode
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from bgp_lab import NODE_AS, NODES, TOR, TOR_AS, Lab, Node, ip, running, settings, tor, until
from loops import in_a_loop

from bgp.peering import PeerSettings
from bgp.speaker import SpeakerSettings

pytestmark = pytest.mark.interop

FIRST, SECOND = "f1rst; } é", "second"
"""BIRD's grammar has no way to write a quote; ours has to."""


def bird(*lines: str, node: str = "10.9.0.11", address: str = str(TOR)) -> str:
    """Return a BIRD that has one session, with these options."""
    return f"""
log stderr all;
router id {TOR};
protocol device {{ }}
protocol bgp n1 {{
  local {address} as {TOR_AS};
  neighbor {node} as {NODE_AS};
  strict bind yes;
  connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 {{ import all; export all; }};
  {" ".join(lines)}
}}
"""


def count(lab: Lab, machine: str, counter: str) -> int:
    """Return one of the kernel's counters of a machine; it drops packets in silence otherwise."""
    shown = ip("netns", "exec", lab.prefix + machine, "nstat", "-asz", counter)
    return next(int(line.split()[1]) for line in shown.splitlines() if line.startswith(counter))


def shown(process: int | None, password: str) -> bool:
    """Say whether everybody, or its own user, can read a password of a process: in its arguments or environment."""
    words = b"".join(Path(f"/proc/{process}/{name}").read_bytes() for name in ("cmdline", "environ"))
    return password.encode() in words or b64encode(password.encode()) in words


def restart(lab: Lab, configuration: str) -> None:
    lab.bird.kill()
    lab.bird.start(configuration)


@in_a_loop
async def test_a_password_can_be_changed_and_touches_no_other_session(lab: Lab) -> None:
    lab.bird.start(bird(f'password "{FIRST}";'))
    one, two = Node(lab, "n1"), Node(lab, "n2")
    one.service.configure(settings("n1", tor(password=FIRST)))
    two.service.configure(settings("n2"))
    async with running(one, two):
        await until(lambda: one.established() and one.established(NODES["n2"]), "both sessions are up")
        assert not shown(one.service.child_pid, FIRST)

        one.service.configure(settings("n1", tor(password=SECOND)))
        await until(lambda: count(lab, "tor", "TcpExtTCPMD5Failure") > 0, "the router refuses the new password")
        assert not one.established()

        restart(lab, bird(f'password "{SECOND}";'))
        await until(one.established, "the session is back with the new password")

        one.service.configure(settings("n1", tor()))
        restart(lab, bird())
        await until(one.established, "the session is back without a password")
        assert one.peer(NODES["n2"]).flaps == 0


@pytest.mark.parametrize("passive", [pytest.param(True, id="the router dials"), pytest.param(False, id="we dial")])
@in_a_loop
async def test_packets_from_too_far_are_dropped_for_that_peer_only(lab: Lab, passive: bool) -> None:  # noqa: FBT001 - a column
    lab.bird.start(bird("ttl security on;"))
    one, two = Node(lab, "n1"), Node(lab, "n2")
    one.service.configure(settings("n1", tor(ttl_hops=1, passive=passive)))
    two.service.configure(settings("n2"))
    async with running(one, two):
        # The other node dials the same listening socket, with a TTL of 64.
        await until(lambda: one.established() and one.established(NODES["n2"]), "both sessions are up")
        assert count(lab, "n1", "TcpExtTCPMinTTLDrop") == 0
        # Without `ttl security` BIRD sends to a neighbour on the wire with a TTL of 1.
        restart(lab, bird())
        await until(lambda: count(lab, "n1", "TcpExtTCPMinTTLDrop") > 2, "packets of the router are dropped")
        assert not one.established()
        assert one.peer(NODES["n2"]).flaps == 0, one.peer(NODES["n2"]).history


@in_a_loop
async def test_keepalives_come_as_often_as_asked_for_and_that_is_changed_live(lab: Lab) -> None:
    lab.bird.start(bird())
    one = Node(lab, "n1")
    one.service.configure(settings("n1", tor(hold_time=30), mesh=False))
    async with running(one):
        await until(one.established, "the session is up")
        one.service.configure(settings("n1", tor(hold_time=30, keepalive=1), mesh=False))
        # A third of the hold time would bring three more in half a minute.
        await until(lambda: one.peer().sent.get("keepalive", 0) >= 6, "six KEEPALIVEs are sent")
        assert one.peer().flaps == 0
        assert one.peer().hold_time == 30


@pytest.mark.parametrize("passive", [pytest.param(True, id="the router dials"), pytest.param(False, id="we dial")])
@in_a_loop
async def test_the_kernel_may_choose_the_source_address(lab: Lab, passive: bool) -> None:  # noqa: FBT001 - a column
    ip("-n", f"{lab.prefix}tor", "addr", "add", "10.9.1.1/24", "dev", "br0")
    ip("-n", f"{lab.prefix}n1", "addr", "add", "10.9.1.11/24", "dev", "eth0")
    lab.bird.start(bird("passive yes;" if not passive else "", node="10.9.1.11", address="10.9.1.1"))
    one, far = Node(lab, "n1"), IPv4Address("10.9.1.1")
    wanted = settings("n1", tor(address=far, any_source=True, passive=passive), mesh=False)
    one.service.configure(replace(wanted, listen_on=(IPv4Address(0),)))
    async with running(one):
        await until(lambda: one.established(far), "the session is up")
        local = one.peer(far).local
        assert local is not None
        assert str(local.address) == "10.9.1.11"
        assert one.peer(far).dialled is not passive
        # The next hop of what we announce is the node's address nevertheless.
        await until(lambda: "via 10.9.0.11" in lab.bird.ask("show", "route", "all"), "BIRD has our block")


@in_a_loop
async def test_nodes_hold_a_session_over_each_version_of_ip(lab: Lab) -> None:
    six = {name: IPv6Address(f"fd09::{number}") for number, name in enumerate(NODES, 11)}

    def wanted(name: str, other: str) -> SpeakerSettings:
        base = settings(name)
        more = PeerSettings(six[other], NODE_AS, other, "mesh", passive=name < other)
        return replace(base, peers=(*base.peers, more), local_address6=six[name])

    for name, address in six.items():
        ip("-n", lab.prefix + name, "addr", "add", f"{address}/64", "dev", "eth0", "nodad")
    one, two = Node(lab, "n1"), Node(lab, "n2")
    one.service.configure(wanted("n1", "n2"))
    two.service.configure(wanted("n2", "n1"))
    async with running(one, two):
        await until(lambda: one.established(six["n2"]) and one.established(NODES["n2"]), "both sessions are up")
