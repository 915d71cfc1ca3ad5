"""Our words as ExaBGP's text: golden files, and ExaBGP's own parser as the judge of them."""

import json
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from bgp_builders import A2, B1, ME, NODE_AS, TOR, TOR_AS, network, peer, settings
from exabgp.configuration.configuration import Configuration
from exabgp.environment import getenv
from exabgp.logger import log

from bgp import exabgp_codec
from bgp.peering import PeerSettings
from bgp.types import Announce, AnnounceEndOfRib, HoldSessions, Said, Withdraw

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
    wanted = {str(each.address): each for each in CASES[name].peers if each.address.version == 4}
    found = {str(neighbor["peer-address"]): neighbor for neighbor in parsed.neighbors.values()}
    assert set(found) == set(wanted)
    for address, neighbor in found.items():
        assert neighbor["peer-as"] == wanted[address].asn
        assert neighbor["local-as"] == CASES[name].asn
        assert str(neighbor["router-id"]) == str(CASES[name].router_id)
        assert neighbor["hold-time"] == wanted[address].hold_time
        assert neighbor["passive"] is wanted[address].passive
        assert neighbor["connect"] == wanted[address].port
        assert neighbor["manual-eor"] is True
        assert neighbor["adj-rib-in"] is False
        assert neighbor["capability"]["graceful-restart"] == 120


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
            ["announce attributes next-hop self nlri 10.65.0.0/26 10.65.7.0/26"],
            id="to all",
        ),
        pytest.param(
            Announce((network("10.65.0.0/26"),), B1),
            ["neighbor 172.31.2.11 announce attributes next-hop self nlri 10.65.0.0/26"],
            id="to one",
        ),
        pytest.param(
            Withdraw((network("10.65.0.0/26"),)),
            ["withdraw attributes next-hop self nlri 10.65.0.0/26"],
            id="withdraw",
        ),
        pytest.param(AnnounceEndOfRib(B1), ["neighbor 172.31.2.11 announce eor ipv4 unicast"], id="End-of-RIB"),
        pytest.param(HoldSessions(), [exabgp_codec.first_line(settings())], id="sessions"),
    ],
)
def test_commands(said: Said, lines: list[str]) -> None:
    assert list(exabgp_codec.lines(said, settings())) == lines


def test_many_prefixes_are_said_in_several_commands() -> None:
    prefixes = tuple(network("10.64.0.0/10").subnets(new_prefix=20))
    lines = list(exabgp_codec.lines(Announce(prefixes), settings()))
    assert [len(line.split(" nlri ")[1].split()) for line in lines] == [500, 500, 24]


def test_the_environment_has_what_only_a_new_process_can_change() -> None:
    environment = exabgp_codec.environment(settings(listen_port=1790))
    assert environment["exabgp.tcp.bind"] == str(ME)
    assert environment["exabgp.tcp.port"] == "1790"
    assert environment["exabgp.api.cli"] == "false"
