"""A pod's veth on the real kernel: nothing passes before it is opened, and everything does when that returns."""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from cni_lab import until
from spaces import Space

from felix_py.calc.routes import GATEWAY6
from felix_py.cni import pod_changes, podnet
from felix_py.cni.pod_changes import Pod
from felix_py.cni.podnet import Veth
from felix_py.cni.spec import CniError
from felix_py.kernel.links import LinkRefused
from felix_py.ledger import Attachment, with_mac

pytestmark = pytest.mark.netns

MTU = 1400
ADDRESSES = ip_address("10.65.0.7"), ip_address("fd65::7")


@pytest.fixture
def host() -> Iterator[Space]:
    made = Space()
    yield made
    made.do(let_go)
    made.close()


@pytest.fixture
def pod() -> Iterator[Space]:
    made = Space()
    yield made
    made.close()


@pytest.fixture
def spaces() -> Iterator[Callable[[], Space]]:
    with ExitStack() as stack:

        def another() -> Space:
            made = Space()
            stack.callback(made.close)
            return made

        yield another


@pytest.fixture
def attachment(pod: Space) -> Attachment:
    return with_mac(Attachment("c1", "eth0", "default/web-0", "cali1", ADDRESSES, netns=pod.path))


@pytest.fixture
def veth(host: Space, pod: Space, attachment: Attachment) -> Iterator[Veth]:
    descriptor = os.open(pod.path, os.O_RDONLY)
    yield make(host, attachment, descriptor)
    os.close(descriptor)


def make_all(pods: Sequence[Pod]) -> list[Veth | Exception]:
    others = pod_changes.together(len(pods))
    return podnet.make([podnet.plan(each, others) for each in pods])


def make(host: Space, attachment: Attachment, namespace: int) -> Veth:
    (made,) = host.do(make_all, [Pod(attachment, MTU, namespace)])
    assert isinstance(made, Veth), made
    return made


def open_up(host: Space, veth: Veth) -> None:
    assert host.do(podnet.open_all, [veth]) == [None]


def let_go() -> None:
    """Close what the thread of a host keeps."""
    if podnet._of_thread.sock is not None:
        podnet._of_thread.sock.close()


def flags(space: Space, device: str) -> set[str]:
    (line,) = (line for line in space.run("ip", "-o", "link", "show", "dev", device).splitlines())
    return set(line.partition("<")[2].partition(">")[0].split(","))


def test_both_ends_are_down_until_they_are_opened(host: Space, pod: Space, veth: Veth) -> None:
    assert "UP" not in flags(host, "cali1")
    assert "UP" not in flags(pod, "eth0")
    open_up(host, veth)
    for space, device in ((host, "cali1"), (pod, "eth0")):
        assert {"UP", "LOWER_UP"} <= flags(space, device)


def test_the_first_packet_passes_when_it_is_open(host: Space, pod: Space, veth: Veth) -> None:
    open_up(host, veth)
    host.ip("route add 10.65.0.7 dev cali1", "route add fd65::7 dev cali1", "addr add 10.65.9.9/32 dev lo")
    for address in ("10.65.0.7", "fd65::7"):
        assert host.pings(address)
    assert pod.pings("10.65.9.9")


def attached(space: Space, device: str, address: str) -> Attachment:
    pod = Attachment(f"c-{device}", "eth0", f"default/{device}", device, (ip_address(address),), netns=space.path)
    return with_mac(pod)


def several(host: Space, *wanted: tuple[Space, str, str]) -> list[Veth | Exception]:
    """Make pods together, of each its namespace, its interface on the host, and its address."""
    with ExitStack() as stack:
        pods = []
        for space, device, address in wanted:
            namespace = os.open(space.path, os.O_RDONLY)
            stack.callback(os.close, namespace)
            pods.append(Pod(attached(space, device, address), MTU, namespace))
        made = host.do(make_all, pods)
        standing = [veth for veth in made if isinstance(veth, Veth)]
        assert host.do(podnet.open_all, standing) == [None] * len(standing)
        return made


def reached(host: Space, device: str, address: str) -> bool:
    host.ip(f"route replace {address} dev {device}", "addr replace 10.65.9.9/32 dev lo")
    return host.pings(address)


def test_several_are_made_together(host: Space, pod: Space, spaces: Callable[[], Space]) -> None:
    wanted = [(pod, "cali1", "10.65.0.1"), (spaces(), "cali2", "10.65.0.2"), (spaces(), "cali3", "10.65.0.3")]
    assert all(isinstance(each, Veth) for each in several(host, *wanted))
    assert all(reached(host, device, address) for _, device, address in wanted)


def groups(host: Space) -> set[str]:
    """Return the groups of pods' interfaces on a host."""
    lines = host.run("ip", "-o", "link", "show").splitlines()
    return {line.partition("group ")[2].split()[0] for line in lines if "cali" in line}


def test_those_that_come_up_together_are_in_no_group_afterwards(
    host: Space, pod: Space, spaces: Callable[[], Space]
) -> None:
    several(host, (pod, "cali1", "10.65.0.1"), (spaces(), "cali2", "10.65.0.2"))
    assert groups(host) == {"default"}


@contextmanager
def made_together(host: Space, *wanted: tuple[Space, str, str]) -> Iterator[list[Veth]]:
    """Make pods as `several` does, and do not open them; their namespaces are held meanwhile."""
    found = []
    with ExitStack() as stack:
        pods = [Pod(attached(*each), MTU, stack.enter_context(open(each[0].path)).fileno()) for each in wanted]  # noqa: PTH123 - for its descriptor
        for made in host.do(make_all, pods):
            assert isinstance(made, Veth), made
            found.append(made)
        yield found


def test_of_some_that_were_made_together_only_those_come_up_that_are_opened(
    host: Space, pod: Space, spaces: Callable[[], Space]
) -> None:
    """The third one was not guarded, say."""
    wanted = (pod, "cali1", "10.65.0.1"), (spaces(), "cali2", "10.65.0.2"), (spaces(), "cali3", "10.65.0.3")
    with made_together(host, *wanted) as made:
        assert host.do(podnet.open_all, made[:2]) == [None, None]
    assert "UP" not in flags(host, "cali3")
    assert reached(host, "cali1", "10.65.0.1")
    assert reached(host, "cali2", "10.65.0.2")


def test_what_cannot_come_up_together_comes_up_alone(host: Space, pod: Space, spaces: Callable[[], Space]) -> None:
    """The kernel sets those of a group up one after the other, and stops at one that cannot be."""
    host.ip("link add vxlan7 type vxlan id 7 local 127.0.0.1 dstport 4789")
    wanted = (pod, "cali1", "10.65.0.1"), (spaces(), "cali2", "10.65.0.2")
    with made_together(host, *wanted) as made, host.do(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as taken:
        (group,) = groups(host)
        host.ip(f"link set vxlan7 group {group}")
        taken.bind(("0.0.0.0", 4789))  # noqa: S104 - of a namespace of its own
        with pytest.raises(AssertionError, match="Address already in use"):
            host.run("ip", "link", "set", "group", group, "up")
        assert not any("UP" in flags(host, device) for device in ("cali1", "cali2")), "it comes first"
        assert host.do(podnet.open_all, made) == [None, None]
    assert groups(host) == {"default"}
    assert all("LOWER_UP" in flags(space, "eth0") for space, _, _ in wanted)
    assert all(reached(host, device, address) for _, device, address in wanted)


def test_a_pod_that_goes_meanwhile_is_the_only_one_that_is_refused(
    host: Space, pod: Space, spaces: Callable[[], Space]
) -> None:
    wanted = (pod, "cali1", "10.65.0.1"), (spaces(), "cali2", "10.65.0.2"), (spaces(), "cali3", "10.65.0.3")
    with made_together(host, *wanted) as made:
        wanted[1][0].ip("link del eth0")
        first, second, third = host.do(podnet.open_all, made)
    assert (first, third) == (None, None)
    assert isinstance(second, LinkRefused)
    assert "eth0 was refused: No such device" in str(second)
    assert reached(host, "cali1", "10.65.0.1")
    assert reached(host, "cali3", "10.65.0.3")


def test_one_that_is_refused_is_the_only_one(host: Space, pod: Space, spaces: Callable[[], Space]) -> None:
    pod.ip("link add eth0 type veth peer name other")
    first, last = spaces(), spaces()
    made = several(host, (first, "cali1", "10.65.0.1"), (pod, "cali2", "10.65.0.2"), (last, "cali3", "10.65.0.3"))
    assert [type(each) for each in made] == [Veth, CniError, Veth]
    assert "has an interface eth0 already; give another CNI_IFNAME" in str(made[1])
    assert reached(host, "cali1", "10.65.0.1")
    assert reached(host, "cali3", "10.65.0.3")


def test_a_namespace_that_is_not_like_the_one_before_gets_the_same_network(
    host: Space, pod: Space, spaces: Callable[[], Space]
) -> None:
    """The interface's index is expected to be that of the pod before; here it is not, and nobody else's is touched."""
    second, third = spaces(), spaces()
    second.ip("link add other0 type veth peer name other1", "link set other0 down", "link set other1 down")
    wanted = [(pod, "cali1", "10.65.0.1"), (second, "cali2", "10.65.0.2"), (third, "cali3", "10.65.0.3")]
    assert all(isinstance(each, Veth) for each in several(host, *wanted))
    assert "UP" not in flags(second, "other0") | flags(second, "other1")
    assert all(reached(host, device, address) for _, device, address in wanted)


@pytest.mark.parametrize("taken", ["nobody's", "the host's", "the pod's"])
def test_ends_have_the_indexes_that_are_known_of_them_also_where_those_wished_for_are_taken(
    host: Space, pod: Space, spaces: Callable[[], Space], taken: str
) -> None:
    wished, inside = pod_changes.ends()
    if taken == "the host's":
        host.ip(f"link add other0 index {wished + 1} type veth peer name other1")
    elif taken == "the pod's":
        pod.ip("link add other0 type veth peer name other1")
        assert inside in (pod.do(socket.if_nametoindex, name) for name in ("other0", "other1"))
    wanted = [(pod, "cali1", "10.65.0.1"), (spaces(), "cali2", "10.65.0.2")]
    made = several(host, *wanted)
    for veth, (space, device, address) in zip(made, wanted, strict=True):
        assert isinstance(veth, Veth)
        assert veth.index == host.do(socket.if_nametoindex, device)
        assert veth.inside == space.do(socket.if_nametoindex, "eth0")
        assert reached(host, device, address)
    assert made[1].index == wished + 2, "who is not concerned has what was wished for"  # type: ignore[union-attr]
    assert (made[0].index == wished + 1) == (taken == "nobody's")  # type: ignore[union-attr]


def test_what_an_agent_left_that_died_makes_room(host: Space, pod: Space, spaces: Callable[[], Space]) -> None:
    host.ip("link add cali1 type veth peer name left")
    made = several(host, (pod, "cali1", "10.65.0.1"), (spaces(), "cali2", "10.65.0.2"))
    assert all(isinstance(each, Veth) for each in made)
    assert reached(host, "cali1", "10.65.0.1")
    assert "left" not in host.run("ip", "link")


def test_a_veth_has_link_local_addresses_where_the_pod_speaks_ipv6(
    host: Space, pod: Space, spaces: Callable[[], Space], veth: Veth
) -> None:
    open_up(host, veth)
    other = spaces()
    several(host, (other, "cali2", "10.65.0.2"))
    assert str(GATEWAY6) in host.run("ip", "-6", "address", "show", "dev", "cali1")
    until(lambda: "fe80::" in pod.run("ip", "-6", "address", "show", "dev", "eth0"), "the kernel gives one")
    assert not host.run("ip", "-6", "address", "show", "dev", "cali2")
    assert "eui64" not in other.run("ip", "-d", "link", "show", "dev", "eth0"), "and never will"
    assert not other.run("ip", "-6", "address", "show", "dev", "eth0")
    assert "::1/128" in other.run("ip", "-6", "address", "show", "dev", "lo"), "IPv6 is not switched off"
    host.ip("link set cali1 down", "link set cali1 up")
    until(lambda: str(GATEWAY6) in host.run("ip", "-6", "address", "show", "dev", "cali1"), "it has it again")


def test_an_interface_too_small_for_ipv6_is_made(host: Space, pod: Space) -> None:
    small = with_mac(Attachment("c1", "eth0", "default/web-0", "cali1", ADDRESSES[:1], netns=pod.path))
    with open(pod.path) as namespace:  # noqa: PTH123 - for its descriptor
        (made,) = host.do(make_all, [Pod(small, 1000, namespace.fileno())])
        assert isinstance(made, Veth), made
        open_up(host, made)
    assert reached(host, "cali1", "10.65.0.7")


def test_no_descriptor_is_left(host: Space, pod: Space, attachment: Attachment) -> None:
    descriptor, held = os.open(pod.path, os.O_RDONLY), []
    for _ in range(3):
        made = make(host, attachment, descriptor)
        open_up(host, made)
        host.ip("link del cali1")
        held.append(len(list(Path("/proc/self/fd").iterdir())))
    os.close(descriptor)
    assert held == held[:1] * 3, "but for the socket that is kept"
