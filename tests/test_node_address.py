"""A node's own address: each method, and the sentences where it finds none or several."""

from ipaddress import ip_address, ip_interface

import pytest

from felix_py.kernel.objects import Link
from felix_py.model import IPAddress
from felix_py.node_address import Detected, Host, Method, Undecided, detect, parse


def link(name: str, index: int, *addresses: str, up: bool = True) -> Link:
    return Link(name, index, 1500, up, up, frozenset(addresses))


LO = link("lo", 1, "127.0.0.1/8", "::1/128")
ETH0 = link("eth0", 2, "172.31.1.11/24", "fd31:1::11/64", "fe80::1/64")
ETH1 = link("eth1", 3, "192.168.7.4/16")
DOCKER = link("docker0", 4, "172.17.0.1/16")
ALL = (LO, ETH0, ETH1, DOCKER)


def source(towards: IPAddress) -> IPAddress | None:
    return ip_address("192.168.7.4") if towards == ip_address("198.51.100.1") else None


@pytest.mark.parametrize(
    ("text", "links", "address"),
    [
        pytest.param("kubernetes-internal-ip", ALL, "172.31.1.11/24", id="as kubelet says, with its mask"),
        pytest.param("first-found", (LO, ETH0, DOCKER), "172.31.1.11/24", id="the only one that may be an uplink"),
        pytest.param("interface=eth1", ALL, "192.168.7.4/16", id="by the name of an interface"),
        pytest.param("interface=bond.*,eth1", ALL, "192.168.7.4/16", id="the first expression that fits decides"),
        pytest.param("skip-interface=eth1", ALL, "172.31.1.11/24", id="all but one interface"),
        pytest.param("cidr=192.168.0.0/16", ALL, "192.168.7.4/16", id="by its network"),
        pytest.param("can-reach=198.51.100.1", ALL, "192.168.7.4/16", id="by the route to somebody"),
    ],
)  # fmt: skip
def test_methods(text: str, links: tuple[Link, ...], address: str) -> None:
    found = detect(parse(text), Host(links, (ip_address("172.31.1.11"),), source), 4)
    assert isinstance(found, Detected)
    assert found.address == ip_interface(address)


def test_several_are_refused_by_name() -> None:
    assert detect(Method("first-found"), Host(ALL), 4) == Undecided(
        "nodeAddress is first-found, and several addresses fit: 172.31.1.11/24 on eth0, 192.168.7.4/16 on eth1; "
        "say which, as nodeAddress: cidr=…"
    )


def test_none_is_refused_with_what_there_is() -> None:
    found = detect(parse("interface=bond0"), Host((LO, ETH1)), 4)
    assert isinstance(found, Undecided)
    assert found.why.startswith(
        "nodeAddress is interface=bond0, and no IPv4 address of this host fits (there are: 192.168.7.4/16 on eth1)"
    )


def test_ipv6_is_found_alone_and_never_link_local() -> None:
    found = detect(Method("first-found"), Host(ALL), 6)
    assert isinstance(found, Detected)
    assert found.address == ip_interface("fd31:1::11/64")


def test_an_interface_that_is_down_has_no_address() -> None:
    down = link("eth1", 3, "192.168.7.4/16", up=False)
    found = detect(Method("first-found"), Host((LO, ETH0, down)), 4)
    assert isinstance(found, Detected)


@pytest.mark.parametrize(
    "text",
    ["", "eth0", "interface", "interface=", "first-found=eth0", "cidr=10.0.0.1/8", "can-reach=host", "interface=["],
)
def test_what_is_no_method(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the setting says what to give
        parse(text)
