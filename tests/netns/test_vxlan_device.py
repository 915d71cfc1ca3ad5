"""The VXLAN device of one node on the real kernel: made as wanted, read back, heard of when others change it."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from spaces import Space

from vxlan import tunnel
from vxlan.device import Device, TunnelRefused
from vxlan.tunnel import Vxlan, gateway, mac_of

pytestmark = pytest.mark.netns


def remotes(*nodes: tuple[str, str]) -> dict[str, frozenset[tuple[str, tunnel.IPAddress]]]:
    """Return the entries and neighbours of these other nodes."""
    known = [(mac_of(name, ip_address(address).version), ip_address(address)) for name, address in nodes]
    return {
        "forwarding": frozenset(known),
        "neighbours": frozenset((mac, gateway(address, mac)) for mac, address in known),
    }


WISH = Vxlan(
    IPv4Address("172.31.1.11"),
    1450,
    4096,
    4789,
    mac_of("a1", 4),
    IPv4Address("10.65.0.1"),
    **remotes(("a2", "172.31.1.12"), ("b1", "172.31.2.11")),
)
WISH6 = Vxlan(
    IPv6Address("fd31:1::11"),
    1430,
    4096,
    4789,
    mac_of("a1", 6),
    IPv6Address("fd65::1"),
    **remotes(("a2", "fd31:1::12"), ("b1", "fd31:2::11")),
    name=tunnel.DEVICES[6],
)
A2, A2_6 = mac_of("a2", 4), mac_of("a2", 6)


class Host:
    """A namespace with an uplink, and the device in it."""

    def __init__(self) -> None:
        self.space = Space()
        self.space.ip(
            "link add eth0 type veth peer name far0",
            "addr add 172.31.1.11/24 dev eth0",
            "addr add fd31:1::11/64 dev eth0 nodad",
            "link set far0 up",
            "link set eth0 up",
        )
        self.device = self.space.do(Device)

    def put(self, wanted: Vxlan) -> None:
        self.space.do(self.device.put, wanted)

    def read(self, name: str = WISH.name) -> Vxlan | None:
        return self.space.do(self.device.read, name)

    def changed(self) -> bool:
        return self.space.do(self.device.changed)

    def close(self) -> None:
        self.device.close()
        self.space.close()


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.close()


@pytest.mark.parametrize("wish", [WISH, WISH6], ids=["IPv4", "IPv6"])
def test_what_was_made_is_read_back_and_is_news_to_nobody(host: Host, wish: Vxlan) -> None:
    assert host.read(wish.name) is None
    host.put(wish)
    assert host.read(wish.name) == wish
    assert not host.changed(), "our own changes are no news"
    host.put(wish)
    assert not host.changed()


@pytest.mark.parametrize("wish", [WISH, WISH6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(
    "change",
    [
        "link set {name} down",
        "link set {name} mtu 1400",
        "link set {name} address 02:00:00:00:00:01",
        "link del {name}",
        "neigh del {gateway} dev {name}",
        "neigh replace {gateway} lladdr 02:00:00:00:00:01 dev {name} nud permanent",
        "neigh replace {gateway} lladdr {mac} dev {name} nud stale",
    ],
)
def test_every_drift_is_heard_differs_and_is_repaired(host: Host, wish: Vxlan, change: str) -> None:
    host.put(wish)
    mac = mac_of("a2", wish.local.version)
    node = next(address for entry, address in wish.forwarding if entry == mac)
    host.space.ip(change.format(name=wish.name, gateway=gateway(node, mac), mac=mac))
    assert host.changed()
    assert host.read(wish.name) != wish
    host.put(wish)
    assert host.read(wish.name) == wish
    assert not host.changed()


@pytest.mark.parametrize(
    "words",
    [
        f"fdb del {A2} dev vxlan.calico dst 172.31.1.12 self",
        f"fdb replace {A2} dev vxlan.calico dst 172.31.1.99 self permanent",
        "fdb add 02:00:00:00:00:09 dev vxlan.calico dst 172.31.1.99 self permanent",
        "link set dev vxlan.calico learning on",
    ],
)
def test_a_changed_forwarding_entry_is_heard_and_repaired(host: Host, words: str) -> None:
    host.put(WISH)
    if words.startswith("link"):
        host.space.ip("link set vxlan.calico type vxlan learning")
    else:
        host.space.run("bridge", *words.split())
    assert host.changed()
    assert host.read() != WISH
    host.put(WISH)
    assert host.read() == WISH
    assert not host.changed()


def test_neighbours_of_other_interfaces_are_not_heard(host: Host) -> None:
    host.put(WISH)
    host.space.ip("neigh add 172.31.1.99 lladdr 02:00:00:00:00:01 dev eth0 nud permanent", "link set far0 down")
    assert not host.changed()


def test_a_node_that_moves_and_one_that_goes_change_entries_in_place(host: Host) -> None:
    host.put(WISH)
    index = host.device._indexes["vxlan.calico"]
    after = replace(WISH, local=IPv4Address("172.31.1.12"), **remotes(("b1", "172.31.2.77"), ("b2", "172.31.2.12")))
    host.put(after)
    assert host.read() == after
    assert host.device._indexes["vxlan.calico"] == index, "the device was not made anew"


@pytest.mark.parametrize("fields", [{"vni": 7}, {"port": 8472}])
def test_what_the_kernel_cannot_change_is_made_anew_with_all_its_entries(host: Host, fields: dict[str, int]) -> None:
    host.put(WISH)
    after = replace(WISH, **fields)
    host.put(after)
    assert host.read() == after


def test_five_hundred_nodes_are_made_and_removed(host: Host) -> None:
    many = replace(WISH, **remotes(*((f"n{n}", f"172.20.{n // 250}.{n % 250 + 1}") for n in range(500))))
    host.put(many)
    assert host.read() == many
    host.put(WISH)
    assert host.read() == WISH


def test_a_device_of_another_kind_is_left_alone(host: Host) -> None:
    host.space.ip("link add vxlan.calico type bridge")
    assert host.read() is None
    with pytest.raises(TunnelRefused, match="is a device of kind bridge that is not ours"):
        host.put(WISH)
    host.space.do(host.device.delete, WISH.name)
    assert "vxlan.calico" in host.space.run("ip", "link", "show")


def test_deleting_is_done_when_nothing_is_left(host: Host) -> None:
    host.put(WISH)
    for _ in range(2):
        host.space.do(host.device.delete, WISH.name)
        assert host.read() is None
