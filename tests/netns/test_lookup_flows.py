"""Questions about packets with protocol and ports, asked of a real kernel whose rules choose by them."""

import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from joined import joined
from spaces import Space

from felix_py.kernel.flow import Flow
from felix_py.kernel.lookup import Lookup
from felix_py.kernel.lookup_codec import Found
from felix_py.kernel.wire import Refusal

pytestmark = [pytest.mark.netns, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

RULES = (
    "100: from all ipproto tcp dport 80 lookup 100",
    "200: from all ipproto udp sport 5000-5999 dport 53 prohibit",
    "300: from 198.51.100.0/24 fwmark 0x7 iif eth0 ipproto sctp lookup 100",
)


@pytest.fixture(scope="module")
def here() -> Iterator[Space]:
    """A host whose rules lead some flows to another table, of both versions of IP, and end others."""
    with joined() as (here, there):
        there.ip("link set eth0 up")
        here.ip(
            "address add 192.0.2.1/24 dev eth0",
            "address add 2001:db8::1/64 dev eth0 nodad",
            "link set eth0 up",
            "route add default via 192.0.2.2",
            "route add default via 192.0.2.3 table 100",
            "route add default via 2001:db8::2",
            "route add default via 2001:db8::3 table 100",
            "rule add pref 100 ipproto tcp dport 80 lookup 100",
            "rule add pref 200 ipproto udp sport 5000-5999 dport 53 prohibit",
            "rule add pref 300 from 198.51.100.0/24 fwmark 7 iif eth0 ipproto sctp lookup 100",
        )
        for rule in (
            "pref 100 ipproto tcp dport 80 lookup 100",
            "pref 200 from 2001:db8:1::/48 to 2001:db8:2::/48 ipproto ipv6-icmp lookup 100",
        ):
            here.run("ip", "-6", "rule", "add", *rule.split())
        here.parameter("ipv4/conf/all/forwarding", "1")
        here.parameter("ipv6/conf/all/forwarding", "1")
        yield here


@pytest.fixture
def lookup(here: Space) -> Iterator[Lookup]:
    lookup = here.do(Lookup)
    yield lookup
    lookup.close()


HTTP, DNS, HTTPS = Flow(6, None, 80), Flow(17, 5000, 53), Flow(6, 80, 443)
FROM, TO = ("198.51.100.1", "2001:db8:1::1"), ("203.0.113.1", "2001:db8:2::1")


def ask(here: Space, lookup: Lookup, flow: Flow | None, version: int, *, arrives: bool) -> Found | Refusal:
    names = dict(here.do(socket.if_nameindex))
    index = next(number for number, name in names.items() if name == "eth0")
    which = version == 6
    source = ip_address(FROM[which]) if arrives else None
    return lookup.route(ip_address(TO[which]), source, index if arrives else 0, names, flow)


@pytest.mark.parametrize("arrives", [True, False], ids=["from outside", "of its own"])
@pytest.mark.parametrize(
    ("flow", "version", "gateway", "table"),
    [
        pytest.param(None, 4, "192.0.2.2", 254, id="nothing is said"),
        pytest.param(HTTP, 4, "192.0.2.3", 100, id="a port that a rule names"),
        pytest.param(HTTPS, 4, "192.0.2.2", 254, id="another port"),
        pytest.param(Flow(17, None, 80), 4, "192.0.2.2", 254, id="another protocol"),
        pytest.param(Flow(17, 6000, 53), 4, "192.0.2.2", 254, id="a source port that no rule names"),
        pytest.param(Flow(1), 4, "192.0.2.2", 254, id="no ports at all"),
        pytest.param(Flow(132, 1, 80), 4, "192.0.2.2", 254, id="a protocol that no kernel is asked about"),
        pytest.param(None, 6, "2001:db8::2", 254, id="IPv6, nothing is said"),
        pytest.param(HTTP, 6, "2001:db8::3", 100, id="IPv6, a port that a rule names"),
        pytest.param(HTTPS, 6, "2001:db8::2", 254, id="IPv6, another port"),
    ],
)
def test_rules_choose_by_protocol_and_ports(
    here: Space, lookup: Lookup, flow: Flow | None, version: int, gateway: str, table: int, *, arrives: bool
) -> None:
    found = ask(here, lookup, flow, version, arrives=arrives)
    assert isinstance(found, Found), found
    assert (str(found.via), found.table) == (gateway, table)


def test_icmp_of_ipv6_is_asked_by_its_own_number(here: Space, lookup: Lookup) -> None:
    found = ask(here, lookup, Flow(1).of_version(6), 6, arrives=True)
    assert isinstance(found, Found)
    assert found.table == 100


def test_a_rule_may_end_a_flow(here: Space, lookup: Lookup) -> None:
    refused = ask(here, lookup, DNS, 4, arrives=False)
    assert isinstance(refused, Refusal)
    assert refused.code == 13


def test_rules_are_read_as_ip_rule_shows_them(lookup: Lookup) -> None:
    every = list(lookup.rules(4))
    assert tuple(str(each) for each in every if each.by_flow) == RULES
    assert [str(each) for each in every if not each.by_flow] == [
        "0: from all lookup local", "32766: from all lookup main", "32767: from all lookup default",
    ]  # fmt: skip
    assert [str(each) for each in lookup.rules(6)] == [
        "0: from all lookup local",
        "100: from all ipproto tcp dport 80 lookup 100",
        "200: from 2001:db8:1::/48 to 2001:db8:2::/48 ipproto icmpv6 lookup 100",
        "32766: from all lookup main",
    ]
