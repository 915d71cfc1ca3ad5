"""The ebpf driver: two programs of ours carry the packets in the kernel, for kernels without the ipip module.

`tunl0` is one end of a veth pair. A program where packets leave it puts the outer header on and sends them by the
uplink; a program where packets arrive at each uplink takes it off. Both stay when the agent dies, and the next one
finds them by the filters that hold them: nothing is pinned anywhere.
"""

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from struct import Struct

from ipip import bpf, bpf_object, links, traffic
from ipip.shape import shape
from ipip.tunnel import Facts, Tunnel, TunnelRefused

OBJECT = Path(__file__).with_name("tunnel.bpf.o")
"""What clang made of tunnel.bpf.c when the package was built."""

OTHER_END = "-other"
"""What the veth pair's other end is called besides: there the kernel cuts up what the uplink cannot take whole."""

MAC = bytes.fromhex("0266656c6978")
"""Of both ends, "felix" in locally administered form: tunnel.bpf.c has it too. A device of this MAC is ours."""

LONGEST = 65535
"""Bytes: MTU of the other end, which must take whatever was made longer than the uplink."""

NAME = "felix-ipip"
"""Filters are called so, and after a colon the version of what they hold."""

POD_PREFIX = "cali"
"""Interfaces of pods begin so; a pod must not reach the tunnel, so none of its packets is decapsulated."""

ADDRESS = IPv4Interface("169.254.80.4/32")
"""Of the other end, which nobody talks to: the reverse path filter trusts no interface that has none."""

PARAMETERS = Path("/proc/sys/net/ipv4/conf")
PARAMETERS_WANTED = (
    ("{device}/forwarding", "1"),  # BPF asks the FIB on behalf of this device
    ("{other}/forwarding", "1"),
    ("{other}/accept_local", "1"),  # what arrives there is ours: it comes from our own address
    ("{other}/rp_filter", "2"),
)

SETTINGS, PEER, COUNT = Struct("=4sI"), Struct("=QII"), Struct("=QQ")
"""The layouts of tunnel.bpf.c."""

FIRST = bytes(4)
"""Key of the only settings."""

COUNTERS = (
    "sent",
    "received",
    "dropped_no_route",
    "dropped_source_not_allowed",
    "dropped_malformed",
    "dropped_too_big",
    "dropped_congestion",
    "dropped_no_uplink",
    "dropped_fragment",
    "dropped_refused",
)
"""In the order of tunnel.bpf.c's reasons."""

SHARED = ("settings", "peers", "counters")
"""Maps that both programs use; where they are the same, both are of one piece."""

Maps = dict[str, bpf.Map]


class Ebpf:
    """Loads, attaches and finds the programs of one network namespace."""

    kind = "veth"

    def __init__(self) -> None:
        self._given: links.Gateways | None = None
        self._opened: dict[int, Maps] = {}

    def ours(self, link: links.Link) -> bool:
        """Say whether a device is one of ours."""
        return is_ours(link)

    def facts(self, _name: str, link: links.Link) -> Facts:
        """Say what the programs do; nothing where one is missing, of another version, or not of one piece."""
        if self._given is None:
            self._given = links.gateways(link.index)
        maps = self._working(link)
        if maps is None:
            return Facts()
        local, device = SETTINGS.unpack(bpf.read(maps["settings"], FIRST) or bytes(SETTINGS.size))
        if device != link.index:
            return Facts()
        return Facts(IPv4Address(local), self._given, frozenset(map(IPv4Address, bpf.keys(maps["peers"]))))

    def put(self, tunnel: Tunnel) -> None:
        """Have the device there, and the programs attached; maps are changed in place.

        Raises:
            TunnelRefused: where the kernel does not take the programs.
        """
        link = links.read(tunnel.name)
        if link is None:
            links.create_pair(tunnel.name, tunnel.name + OTHER_END, MAC, LONGEST)
            link = links.read(tunnel.name)
        if link is None:
            raise TunnelRefused(f"{tunnel.name} went away while it was set up; it is tried again")
        self._prepare(tunnel.name)
        maps = self._working(link)
        if maps is None:
            self._load(tunnel, link)
        else:
            _fill(maps, tunnel, link)
        self._given = tunnel.routes

    def delete(self, name: str) -> None:
        """Remove the device, and its programs from every uplink; those of another tunnel of ours stay."""
        every = links.every()
        others = frozenset(each.index for called, each in every.items() if called != name and self.ours(each))
        for uplink in every.values():
            self._detach(uplink.index, others)
        link = links.read(name)
        if link is not None and self.ours(link):
            links.remove(link.index)
        self._close()
        self._given = None

    def counters(self, name: str) -> Mapping[str, int]:
        """Return what was carried and dropped since the programs were loaded."""
        link = links.read(name)
        maps = None if link is None else self._working(link)
        if maps is None:
            return {}
        found: dict[str, int] = {}
        for number, word in enumerate(COUNTERS):
            values = [COUNT.unpack(each) for each in bpf.read_per_cpu(maps["counters"], number.to_bytes(4, "little"))]
            packets, octets = (sum(column) for column in zip(*values, strict=True))
            if word.startswith("dropped"):
                found[word] = packets
            else:
                found |= {f"{word}_packets": packets, f"{word}_bytes": octets}
        return found

    # --- programs and where they are

    def _working(self, link: links.Link) -> Maps | None:
        """Return the maps of what is attached, where it is whole: one program at the device, one at each uplink."""
        if link.up and not link.carrier:
            return None  # the other end is down or gone
        places = [(link.index, traffic.EGRESS), *((index, traffic.INGRESS) for index in uplinks())]
        here = f"{NAME}:{version()}"
        opened = []
        for index, end in places:
            found = traffic.find(index, end)
            maps = self._maps(found.program) if found is not None and found.name == here else None
            if maps is None:
                return None
            opened.append(maps)
        sending, *arriving = opened
        one = all(maps[each].number == sending[each].number for maps in arriving for each in SHARED)
        return sending if one and arriving else None

    def _maps(self, program: int) -> Maps | None:
        if program not in self._opened:
            try:
                self._opened[program] = bpf.program_maps(program)
            except FileNotFoundError:
                return None
        return self._opened[program]

    def _load(self, tunnel: Tunnel, link: links.Link) -> None:
        """Load programs of this version with maps of their own, full before any packet meets them; then attach.

        At the uplinks last: what is decapsulated needs a device that is up.
        """
        self._close()
        with loaded() as (programs, maps):
            _fill(maps, tunnel, link)
            here = f"{NAME}:{version()}"
            wanted = uplinks()
            traffic.attach(link.index, traffic.EGRESS, here, programs["encapsulate"])
            shape(tunnel)
            for uplink in wanted:
                traffic.attach(uplink, traffic.INGRESS, here, programs["decapsulate"])
        for each in links.every().values():
            if each.index not in (*wanted, link.index):
                self._detach(each.index)

    def _detach(self, index: int, others: frozenset[int] = frozenset()) -> None:
        """Take our program off an uplink, but one that leads to one of these other devices."""
        with contextlib.suppress(OSError):  # an interface may go while we look
            found = traffic.find(index, traffic.INGRESS)
            if found is not None and found.name.startswith(NAME) and self._device(found.program) not in others:
                traffic.detach(index, traffic.INGRESS)

    def _device(self, program: int) -> int:
        """Return the index of the tunnel that a program serves; 0 for none."""
        maps = self._maps(program) or {}
        said = bpf.read(maps["settings"], FIRST) if "settings" in maps else None
        return 0 if said is None else int(SETTINGS.unpack(said)[1])

    def _close(self) -> None:
        for maps in self._opened.values():
            for each in maps.values():
                os.close(each.descriptor)
        self._opened.clear()

    def _prepare(self, name: str) -> None:
        """Let both ends forward, and the other end take packets that come from our own address."""
        other = links.read(name + OTHER_END)
        if other is None:
            raise TunnelRefused(f"{name}{OTHER_END} is missing; remove {name} with `ip link del {name}`")
        if ADDRESS not in links.addresses(other.index):
            links.add_address(other.index, ADDRESS)
        if not other.up:
            links.change(other.index, up=True)
        for parameter, value in PARAMETERS_WANTED:
            path = PARAMETERS / parameter.format(device=name, other=name + OTHER_END)
            if path.read_text().strip() != value:
                path.write_text(value)


def is_ours(link: links.Link) -> bool:
    """Say whether a device is an end of one of our pairs."""
    return link.kind == Ebpf.kind and link.address == MAC


def version() -> str:
    """Return what tells these programs from those of another version of this package."""
    return hashlib.sha256(OBJECT.read_bytes()).hexdigest()[:12]


def uplinks() -> tuple[int, ...]:
    """Return the indexes of the interfaces that a node's packet may arrive at.

    All that speak Ethernet, but for tunnels of ours, pods' and those that are a part of another, unless they have an
    address of their own.
    """
    holders = links.holders()
    return tuple(
        sorted(
            link.index
            for called, link in links.every().items()
            if link.hardware == links.ETHERNET
            and not is_ours(link)
            and not called.startswith(POD_PREFIX)
            and (link.index in holders or not link.mastered)
        )
    )


@contextlib.contextmanager
def loaded() -> Iterator[tuple[dict[str, int], Maps]]:
    """Load the programs; what nothing holds afterwards goes.

    Raises:
        TunnelRefused: with what the kernel or the package lacks.
    """
    with contextlib.ExitStack() as stack:
        try:
            found = bpf_object.parse(OBJECT.read_bytes())
            maps: Maps = {}
            for name, shape in found.maps.items():
                maps[name] = bpf.make_map(name, shape)
                stack.callback(os.close, maps[name].descriptor)
            descriptors = {name: each.descriptor for name, each in maps.items()}
            programs: dict[str, int] = {}
            for name, each in found.programs.items():
                programs[name] = bpf.load(name, each.linked(descriptors))
                stack.callback(os.close, programs[name])
        except bpf_object.Unreadable as error:
            raise TunnelRefused(str(error)) from error
        except OSError as error:
            raise TunnelRefused(reason(error)) from error
        yield programs, maps


def reason(error: OSError) -> str:
    """Return a sentence about why programs could not be loaded, with the remedy."""
    match error.errno:
        case errno.ENOENT:
            return f"{OBJECT.name} was not built: apt-get install clang, then install felix-py again"
        case errno.EPERM:
            return "BPF is forbidden here; give CAP_BPF and CAP_NET_ADMIN, before Linux 5.8 CAP_SYS_ADMIN"
        case errno.ENOSYS:
            return "this kernel has no BPF"
    return f"this kernel does not take our BPF programs ({error.strerror})"


def unusable() -> str | None:
    """Say what keeps the driver from working here; None where nothing does. Really loads the programs."""
    try:
        with loaded():
            return None
    except TunnelRefused as refused:
        return str(refused)


def _fill(maps: Maps, tunnel: Tunnel, link: links.Link) -> None:
    """Write into the maps what differs; a node is admitted before another is refused."""
    wanted = SETTINGS.pack(tunnel.local.packed, link.index)
    if bpf.read(maps["settings"], FIRST) != wanted:
        bpf.write(maps["settings"], FIRST, wanted)
    present = set(bpf.keys(maps["peers"]))
    allowed = {node.packed for node in tunnel.allowed}
    for node in allowed - present:
        bpf.write(maps["peers"], node, bytes(PEER.size))
    for node in present - allowed:
        bpf.remove(maps["peers"], node)
