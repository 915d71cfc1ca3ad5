"""The kernel as the agent sees it: read back what is ours, carry out one plan, wake up when others change things."""

import errno
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Protocol

from felix_py.kernel import ownership, rtnetlink, sysctl
from felix_py.kernel.objects import (
    DeleteRoute,
    DeleteTunnel,
    KernelRefused,
    KernelState,
    Link,
    Plan,
    PutRoute,
    PutSysctl,
    PutTunnel,
    Report,
    Route,
    RouteKey,
    Step,
)
from ipip.tunnel import DEVICE, Tunnel

IFINFOMSG = struct.Struct("=BxHiII")
IFADDRMSG = struct.Struct("=BBBBI")
IFLA_IFNAME, IFLA_MTU = 3, 4
IFA_LOCAL = 2
IFF_UP, IFF_RUNNING = 0x1, 0x40
RTM_GETLINK, RTM_GETADDR = 18, 22
DUMP_ATTEMPTS = 5
"""Felix, too, gives up a dump that was interrupted five times; the next event tries again."""


class TunnelDevice(Protocol):
    """What carries encapsulated packets here; `ipip.device` offers it."""

    def read(self, name: str) -> Tunnel | None:
        """Return the device as it is, None where there is none."""

    def put(self, tunnel: Tunnel) -> None:
        """Make the device so."""

    def delete(self, name: str) -> None:
        """Remove the device."""


class Kernel:
    """One thread's view of this network namespace."""

    def __init__(self, tunnels: TunnelDevice, refused: type[Exception]) -> None:
        self._tunnels = tunnels
        self._tunnel_refused = refused
        self._routes = rtnetlink.RouteSocket()

    @property
    def port(self) -> int:
        """The netlink port of our own writes, by which their echoes are known."""
        return self._routes.port

    def close(self) -> None:
        """Close the sockets; everything installed stays."""
        self._routes.close()

    def links(self) -> dict[str, Link]:
        """Return every interface by name, with its IPv4 addresses."""
        addresses = _addresses()
        found = {}
        for kind, body in _dump(RTM_GETLINK, IFINFOMSG.pack(0, 0, 0, 0, 0)):
            if kind == rtnetlink.RTM_NEWLINK:
                link = _link(body, addresses)
                found[link.name] = link
        return found

    def table(self, links: Mapping[str, Link]) -> dict[RouteKey, Route]:
        """Return every IPv4 route of the main table, whoever owns it.

        Raises:
            KernelRefused: when the table kept changing while it was read.
        """
        names = {link.index: link.name for link in links.values()}
        for _ in range(DUMP_ATTEMPTS):
            try:
                return dict(
                    entry for body in self._routes.dump() if (entry := rtnetlink.decode(body, names)) is not None
                )
            except rtnetlink.DumpInterrupted:
                continue
        raise KernelRefused(f"the route table changed during each of {DUMP_ATTEMPTS} readings; it is read again")

    def read(self, want: KernelState, table: Mapping[RouteKey, Route]) -> KernelState:
        """Return what of `table` is ours or in the way of `want`, with the tunnels and parameters that `want` names."""
        ours = {key: route for key, route in table.items() if ownership.is_ours(route)}
        occupants = {key: route for key, route in table.items() if key in want.routes and key not in ours}
        # A tunnel that nobody wants any more is ours by its name, and has to be seen to be removed.
        names = {*want.tunnels, DEVICE}
        tunnels = {name: found for name in names if (found := self._tunnels.read(name)) is not None}
        return KernelState(ours, tunnels, sysctl.read(want.sysctls), occupants)

    def carry_out(self, plan: Plan) -> Report:
        """Do each step; one that is refused stops no other."""
        done: list[Step] = []
        failed: list[tuple[Step, str]] = []
        for step in plan:
            if isinstance(step, PutSysctl | PutTunnel):
                self._attempt(step, done, failed)
        self._write_routes([step for step in plan if isinstance(step, PutRoute)], done, failed)
        self._write_routes([step for step in plan if isinstance(step, DeleteRoute)], done, failed)
        for step in plan:
            if isinstance(step, DeleteTunnel):
                self._attempt(step, done, failed)
        return Report(tuple(done), tuple(failed))

    def _attempt(
        self, step: PutSysctl | PutTunnel | DeleteTunnel, done: list[Step], failed: list[tuple[Step, str]]
    ) -> None:
        try:
            match step:
                case PutSysctl(path, value):
                    sysctl.write(path, value)
                case PutTunnel(tunnel):
                    self._tunnels.put(tunnel)
                case DeleteTunnel(name):
                    self._tunnels.delete(name)
        except (KernelRefused, self._tunnel_refused) as refusal:
            failed.append((step, str(refusal)))
        else:
            done.append(step)

    def _write_routes(
        self, steps: list[PutRoute] | list[DeleteRoute], done: list[Step], failed: list[tuple[Step, str]]
    ) -> None:
        ready: list[PutRoute | DeleteRoute] = []
        entries: list[tuple[RouteKey, Route, int | None]] = []
        for step in steps:
            try:
                entries.append((step.key, step.route, _index(step.route.device)))
                ready.append(step)
            except OSError:
                self._without_device(step, done, failed)
        write = self._routes.put if ready and isinstance(ready[0], PutRoute) else self._routes.delete
        refused = write(entries) if entries else {}
        for position, step in enumerate(ready):
            if position in refused:
                failed.append((step, _sentence(step, *refused[position])))
            else:
                done.append(step)

    @staticmethod
    def _without_device(step: PutRoute | DeleteRoute, done: list[Step], failed: list[tuple[Step, str]]) -> None:
        if isinstance(step, DeleteRoute):
            done.append(step)  # the kernel removed the route with its device
        else:
            failed.append((step, f"{step.route.device} does not exist"))


def _index(device: str | None) -> int | None:
    return None if device is None else socket.if_nametoindex(device)


REASONS = {
    errno.ENETDOWN: "{device} is down",
    errno.ENODEV: "{device} does not exist",
    errno.EEXIST: "another route stands there",
    errno.EPERM: "not permitted; run as root",
}


def _sentence(step: PutRoute | DeleteRoute, code: int, text: str) -> str:
    return REASONS.get(code, text).format(device=step.route.device)


def _dump(kind: int, body: bytes) -> list[tuple[int, bytes]]:
    sock = rtnetlink.open_socket()
    try:
        header = rtnetlink.HEADER.pack(16 + len(body), kind, rtnetlink.REQUEST | rtnetlink.DUMP, 1, 0)
        sock.send(header + body)
        found: list[tuple[int, bytes]] = []
        while True:
            for answer, _, _, _, content in rtnetlink.messages(sock.recv(1 << 18)):
                if answer in (rtnetlink.DONE, rtnetlink.ERROR):
                    return found
                found.append((answer, content))
    finally:
        sock.close()


def _addresses() -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for kind, body in _dump(RTM_GETADDR, IFADDRMSG.pack(socket.AF_INET, 0, 0, 0, 0)):
        if kind != rtnetlink.RTM_NEWADDR:
            continue
        _, length, _, _, index = IFADDRMSG.unpack_from(body)
        local = dict(rtnetlink.attributes(body, IFADDRMSG.size)).get(IFA_LOCAL)
        if local:
            found.setdefault(index, set()).add(f"{socket.inet_ntoa(local)}/{length}")
    return found


def _link(body: bytes, addresses: Mapping[int, set[str]]) -> Link:
    _, _, index, flags, _ = IFINFOMSG.unpack_from(body)
    found = dict(rtnetlink.attributes(body, IFINFOMSG.size))
    return Link(
        name=found[IFLA_IFNAME].rstrip(b"\0").decode(),
        index=index,
        mtu=rtnetlink.U32.unpack(found[IFLA_MTU])[0],
        up=bool(flags & IFF_UP),
        running=bool(flags & IFF_RUNNING),
        addresses=frozenset(addresses.get(index, ())),
    )


class Watch:
    """Tells what others change: routes, links, addresses. Overflow is a change like any other: read again."""

    GROUPS = (
        rtnetlink.GROUP_LINK,
        rtnetlink.GROUP_IPV4_ADDRESS,
        rtnetlink.GROUP_IPV4_ROUTE,
        rtnetlink.GROUP_IPV4_NETCONF,
    )

    def __init__(self, ours: int) -> None:
        self._ours = ours
        self._socket = rtnetlink.open_socket(groups=self.GROUPS)
        self._socket.setblocking(False)  # noqa: FBT003 - the standard library's own signature

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def drain(self, note: Callable[[str], None]) -> None:
        """Read everything that is queued and call `note` with the cause of each change made by others."""
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                note("events lost")
                continue
            for kind, _, _, port, body in rtnetlink.messages(data):
                if port != self._ours:
                    cause = _cause(kind, body)
                    if cause is not None:
                        note(cause)


CAUSES = {
    rtnetlink.RTM_NEWROUTE: "route changed",
    rtnetlink.RTM_DELROUTE: "route deleted",
    rtnetlink.RTM_NEWLINK: "link changed",
    rtnetlink.RTM_DELLINK: "link deleted",
    rtnetlink.RTM_NEWADDR: "address added",
    rtnetlink.RTM_DELADDR: "address deleted",
    rtnetlink.RTM_NEWNETCONF: "parameter changed",  # forwarding, proxy_arp, rp_filter; others wait for the resync
}


def _cause(kind: int, body: bytes) -> str | None:
    """Name a change; None for routes that cannot concern us: other tables than main."""
    if kind in (rtnetlink.RTM_NEWROUTE, rtnetlink.RTM_DELROUTE) and len(body) > 5 and body[4] != 254:  # noqa: PLR2004
        return None
    return CAUSES.get(kind)
