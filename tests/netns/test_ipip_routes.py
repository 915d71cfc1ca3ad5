"""Routes and next-hop objects led out of another interface: in place, and like before but for the interface."""

from collections.abc import Iterator

import pytest
from ipip_lab import Namespace

from ipip import links, routes

pytestmark = pytest.mark.netns

FORMS = (
    "10.1.0.0/24 via 172.31.2.11 dev {} onlink proto 80",
    "10.2.0.0/24 dev {} proto static scope link",
    "10.3.0.0/24 via 172.31.2.11 dev {} onlink metric 7 mtu 1300 advmss 1200",
    "10.4.0.0/24 via 172.31.2.11 dev {} onlink src 10.65.1.1 tos 0x10",
    "10.5.0.0/24 via 172.31.2.11 dev {} table 1000 onlink realms 3",
    "10.6.0.0/24 nexthop via 172.31.2.11 dev {} weight 3 onlink nexthop via 172.31.9.9 dev other weight 2 onlink",
    "10.7.0.0/24 encap ip id 5 dst 1.2.3.4 via 172.31.2.11 dev {} onlink",
    "10.8.0.0/24 nhid 80 proto 80",
    "10.9.0.0/24 nhid 82 proto 80",
)
"""As `ip route add` takes them."""

OBJECTS = ("id 80 via 172.31.2.11 dev {} onlink proto 80", "id 81 via 172.31.9.9 dev other onlink", "id 82 group 80/81")


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = Namespace("routes")
    made.ip(
        "".join(f"link add {name} type veth peer name {name}-far\nlink set {name} up\n" for name in NAMES)
        + "".join(f"link set {name}-far up\n" for name in NAMES)
        + "addr add 10.65.1.1/32 dev one\naddr add 10.65.1.1/32 dev two\nlink set lo up\n"
    )
    yield made
    made.close()


NAMES = ("one", "two", "other")


def listing(space: Namespace) -> list[str]:
    shown = (*("ip", "-d", "route", "show", "table", "all"),), ("ip", "-d", "nexthop", "show")
    return sorted(line.strip() for words in shown for line in space.run(*words).stdout.splitlines())


def test_all_that_leaves_by_one_interface_leaves_by_another(space: Namespace) -> None:
    space.ip("".join(f"nexthop add {form}\n" for form in OBJECTS).format("one"))
    space.ip("".join(f"route add {form}\n".format("one") for form in FORMS))
    before = [line.replace("dev one ", "dev two ") for line in listing(space) if "proto kernel" not in line]
    assert sum("dev two " in line for line in before) > len(FORMS)
    one, two = (space.do(links.read, name) for name in ("one", "two"))
    assert one
    assert two
    space.do(routes.move, one.index, two.index)
    assert [line for line in listing(space) if "proto kernel" not in line] == before
    space.ip("link del one\n")
    assert [line for line in listing(space) if "proto kernel" not in line] == before


def test_one_that_the_kernel_does_not_take_stays_and_stops_no_other(space: Namespace) -> None:
    space.ip("route add 10.1.0.0/24 via 172.31.2.11 dev one onlink\nroute add 10.2.0.0/24 dev one\n")
    space.ip("addr add 192.0.2.1/24 dev one\nroute add 10.3.0.0/24 via 192.0.2.9 dev one\n")
    one, two = (space.do(links.read, name) for name in ("one", "two"))
    assert one
    assert two
    space.do(routes.move, one.index, two.index)
    shown = {line.split()[0]: line for line in space.run("ip", "route").stdout.splitlines()}
    assert "dev two" in shown["10.1.0.0/24"]
    assert "dev two" in shown["10.2.0.0/24"]
    assert "dev one" in shown["10.3.0.0/24"]
