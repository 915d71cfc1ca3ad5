"""Our words as ExaBGP's text: golden files, and ExaBGP's own parser as the judge of them."""

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from bgp_builders import A2, B1, ME, NODE_AS, TOR, TOR_AS, network, peer, settings
from exabgp.configuration.configuration import Configuration
from exabgp.environment import getenv
from exabgp.logger import log
from exabgp.protocol.family import AFI
from exabgp.protocol.ip import IP
from exabgp.util.psk import decode_base64

from bgp import exabgp_codec, exabgp_options
from bgp.peering import PeerSettings
from bgp.speaker import reachable
from bgp.types import Announce, AnnounceEndOfRib, Family, HoldSessions, Said, Teardown, Withdraw

GOLDEN = Path(__file__).parent / "golden" / "exabgp"

CASES = {
    "two-racks-a1": settings(
        peer(TOR, TOR_AS, "tor", "global"), peer(A2, name="a2", passive=True), peer(B1, name="b1")
    ),
    "other-port-and-hold-time": settings(
        peer(TOR, 4200000001, "tor", "node", port=1790, hold_time=9), asn=4200000002, router_id=IPv4Address("1.1.1.1")
    ),
    "ipv6-peer-left-out": settings(peer(B1), PeerSettings(IPv6Address("fd00::1"), NODE_AS, "six", "node")),
    "no-peer": settings(),
    "every-option": settings(
        peer(
            TOR,
            TOR_AS,
            "tor",
            "global",
            hold_time=30,
            local_asn=64999,
            any_source=True,
            ttl_hops=2,
            password="s3\"cr'et; } é",  # noqa: S106 - a test of quoting
            keepalive=5,
            restart_time=300,
            families=(Family.IPV4_UNICAST, Family.IPV6_UNICAST),
        ),
        peer(B1, name="b1", source=IPv4Address("192.0.2.11"), keepalive=3),
    ),
    "both-versions-of-ip": settings(
        peer(B1, name="b1"),
        PeerSettings(IPv6Address("fd00:2::11"), NODE_AS, "b1", "mesh", passive=True),
        PeerSettings(
            IPv6Address("fd00:1::1"),
            TOR_AS,
            "tor",
            "global",
            ttl_hops=1,
            families=(Family.IPV4_UNICAST, Family.IPV6_UNICAST),
        ),
        PeerSettings(IPv6Address("fd00:1::2"), TOR_AS, "tor", "global", families=(Family.IPV4_UNICAST,)),
        local_address6=IPv6Address("fd00:1::11"),
    ),
    "what-has-an-obstacle-left-out": settings(
        peer(TOR, TOR_AS, obstacle="BGPPeer tor has a password, tor/pw, that has not been read yet"), peer(B1)
    ),
}


@pytest.fixture(scope="module")
def parser() -> Callable[[str], Configuration]:
    """Return ExaBGP's own parser; its logger must be set up first, and says nothing here."""
    environment = getenv()
    environment.log.enable = False
    log.init(environment)
    return lambda text: Configuration([text], text=True)


@pytest.mark.parametrize("name", CASES)
def test_the_configuration_is_the_golden_one(name: str) -> None:
    assert exabgp_codec.configuration(CASES[name]) == (GOLDEN / f"{name}.conf").read_text()


@pytest.mark.parametrize("name", CASES)
def test_exabgp_understands_the_golden_configuration(name: str, parser: Callable[[str], Configuration]) -> None:
    parsed = parser((GOLDEN / f"{name}.conf").read_text())
    assert parsed.reload() is True, str(parsed.error)
    wanted = {str(each.address): each for each in reachable(CASES[name])}
    found = {str(neighbor["peer-address"]): neighbor for neighbor in parsed.neighbors.values()}
    assert set(found) == set(wanted)
    for address, neighbor in found.items():
        peer = wanted[address]
        assert neighbor["peer-as"] == peer.asn
        assert neighbor["local-as"] == (peer.local_asn or CASES[name].asn)
        assert str(neighbor["router-id"]) == str(CASES[name].router_id)
        assert neighbor["hold-time"] == peer.hold_time
        assert neighbor["passive"] is peer.passive
        assert neighbor["connect"] == peer.port
        assert neighbor["manual-eor"] is True
        assert neighbor["adj-rib-in"] is False
        assert neighbor["capability"]["graceful-restart"] == (peer.restart_time or 120)
        assert [f"{afi.name()} {safi.name()}" for afi, safi in neighbor.families()] == list(peer.carried)
        assert neighbor["incoming-ttl"] == (256 - peer.ttl_hops if peer.ttl_hops else None)
        assert exabgp_options.keepalive(neighbor) == peer.keepalive
        if peer.password:
            assert neighbor["md5-base64"] is True
            assert decode_base64(neighbor["md5-password"]).decode() == peer.password
        else:
            assert neighbor["md5-password"] is None


def test_ipv4_over_ipv6_is_offered_with_ipv6_next_hops(parser: Callable[[str], Configuration]) -> None:
    parsed = parser((GOLDEN / "both-versions-of-ip.conf").read_text())
    assert parsed.reload() is True
    offers = {str(each["peer-address"]): bool(each["capability"]["nexthop"]) for each in parsed.neighbors.values()}
    assert offers == {"172.31.2.11": False, "fd00:1::1": True, "fd00:1::2": False, "fd00:2::11": False}


def test_a_source_that_the_kernel_chooses_is_no_address_of_exabgp(parser: Callable[[str], Configuration]) -> None:
    exabgp_options.install()
    parsed = parser((GOLDEN / "every-option.conf").read_text())
    assert parsed.reload() is True
    found = {str(each["peer-address"]): each for each in parsed.neighbors.values()}
    assert {address: each.auto_discovery for address, each in found.items()} == {str(TOR): True, str(B1): False}
    # The next hop that stands for ourselves stays our address.
    found[str(TOR)]["local-address"] = IP.create("192.0.2.99")  # as ExaBGP does when it has dialled
    assert {str(each.ip_self(AFI.ipv4)) for each in found.values()} == {str(ME), "192.0.2.11"}


def test_a_password_is_in_the_configuration_and_nowhere_else() -> None:
    case = CASES["every-option"]
    password = next(each.password for each in case.peers if each.password)
    assert b64encode(password.encode()).decode() in exabgp_codec.configuration(case)
    assert password not in repr(case)
    assert password not in str(exabgp_codec.environment(case))


def test_exabgp_refuses_a_configuration_that_is_none(parser: Callable[[str], Configuration]) -> None:
    refused = parser("neighbor 10.0.0.1 { nonsense; }")
    assert refused.reload() is not True
    assert "nonsense" in str(refused.error)


def test_every_golden_file_has_its_case() -> None:
    assert {file.stem for file in GOLDEN.glob("*.conf")} == set(CASES)


def test_the_first_line_carries_the_configuration() -> None:
    verb, _, text = exabgp_codec.first_line(CASES["two-racks-a1"]).partition(" ")
    assert verb == "%%config"
    assert json.loads(text) == (GOLDEN / "two-racks-a1.conf").read_text()


@pytest.mark.parametrize(
    ("said", "lines"),
    [
        pytest.param(
            Announce((network("10.65.0.0/26"), network("10.65.7.0/26"))),
            ["announce attributes next-hop self origin igp nlri 10.65.0.0/26 10.65.7.0/26"],
            id="to all",
        ),
        pytest.param(
            Announce((network("10.65.0.0/26"),), (B1,)),
            ["neighbor 172.31.2.11 announce attributes next-hop self origin igp nlri 10.65.0.0/26"],
            id="to one",
        ),
        pytest.param(
            Withdraw((network("10.65.0.0/26"),)),
            ["withdraw attributes next-hop self nlri 10.65.0.0/26"],
            id="withdraw",
        ),
        pytest.param(
            AnnounceEndOfRib(B1), ['%%eor {"peer": "172.31.2.11", "family": "ipv4 unicast"}'], id="End-of-RIB"
        ),
        pytest.param(HoldSessions(), [exabgp_codec.first_line(settings(peer(B1)))], id="sessions"),
        pytest.param(
            HoldSessions((Teardown(A2, 2, "bye"),)),
            [
                '%%part {"peer": "172.31.1.12", "code": 6, "subcode": 2, "data": "03627965"}',
                exabgp_codec.first_line(settings(peer(B1))),
            ],
            id="sessions, and one that ends",
        ),
    ],
)
def test_commands(said: Said, lines: list[str]) -> None:
    assert list(exabgp_codec.lines(said, settings(peer(B1)))) == lines


def test_many_prefixes_are_said_in_several_commands() -> None:
    prefixes = tuple(network("10.64.0.0/10").subnets(new_prefix=20))
    lines = list(exabgp_codec.lines(Announce(prefixes), settings(peer(B1))))
    assert [len(line.split(" nlri ")[1].split()) for line in lines] == [500, 500, 24]


def test_the_environment_has_what_only_a_new_process_can_change() -> None:
    environment = exabgp_codec.environment(settings(listen_port=1790))
    assert environment["exabgp.tcp.bind"] == str(ME)
    six = settings(local_address6=IPv6Address("fd00::11"))
    assert exabgp_codec.environment(six)["exabgp.tcp.bind"] == f"{ME} fd00::11"
    everywhere = replace(six, listen_on=(IPv4Address(0), IPv6Address(0)))
    assert exabgp_codec.environment(everywhere)["exabgp.tcp.bind"] == "0.0.0.0 ::"
    assert environment["exabgp.tcp.port"] == "1790"
    assert environment["exabgp.api.cli"] == "false"
