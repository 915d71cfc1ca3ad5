"""Asks the kernel what it would do with one packet, and whether a neighbour answers, as `ip route get` does."""

import errno
import select
import time
from collections.abc import Iterator, Mapping

from felix_py.kernel import lookup_codec, rule_codec
from felix_py.kernel.flow import Flow
from felix_py.kernel.lookup_codec import NUD_FAILED, NUD_INCOMPLETE, NUD_NONE, Found
from felix_py.kernel.messages import DONE, DUMP, ERROR, HEADER, REQUEST, RTM_GETROUTE, messages, refusal
from felix_py.kernel.netlink_socket import broken, open_socket, subscribe
from felix_py.kernel.objects import RouteType
from felix_py.kernel.rule_codec import Rule
from felix_py.kernel.wire import Family, Refusal
from felix_py.model import IPAddress, IPNetwork

RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30
GROUP_NEIGHBOURS = 3
"""RTNLGRP_NEIGH, include/uapi/linux/rtnetlink.h."""

CREATE = 0x400

SMALL = 1 << 18
"""Bytes of socket buffer: answers to one question, and the events of the neighbours of some hundred milliseconds."""

ANSWER_SECONDS = 2.0
"""The kernel answers at once; this is for one that does not answer at all."""

RESOLVE_SECONDS = 0.25
"""How long an unknown neighbour may take to answer: on a link it takes less than one millisecond."""

ASKED_AGAIN_SECONDS = 1.1
"""The same for one that is being asked for already: the kernel repeats its question each second (RFC 4861, 10)."""

UNKNOWN = frozenset({NUD_NONE, NUD_INCOMPLETE, NUD_FAILED})
"""States in which nothing can be sent to a neighbour."""


class Lookup:
    """One network namespace's kernel, asked about single packets; for one thread, and it needs no privileges."""

    def __init__(self) -> None:
        """Open the sockets in the network namespace of this thread.

        Raises:
            WireBroken: when that fails.
        """
        try:
            self._asking, self._listening = open_socket(buffer=SMALL), open_socket(buffer=SMALL)
            subscribe(self._listening, GROUP_NEIGHBOURS)
        except OSError as error:
            raise broken("opening a route socket", error) from error
        self._asking.settimeout(ANSWER_SECONDS)
        self._sequence = 0

    def close(self) -> None:
        """Close the sockets."""
        self._asking.close()
        self._listening.close()

    def route(
        self,
        destination: IPAddress,
        source: IPAddress | None,
        device: int,
        names: Mapping[int, str],
        flow: Flow | None = None,
    ) -> Found | Refusal:
        """Return what becomes of a packet, or why it goes nowhere.

        Args:
            destination: of the packet.
            source: of the packet; None where this host is to choose it.
            device: index of the interface that it came in by; 0 where this host sends it.
            names: of the interfaces, by index.
            flow: protocol and ports; None where they are no matter.

        Raises:
            WireBroken: when the kernel did not answer.
        """
        answers = []
        for match in (False, True):
            answer = self._ask(RTM_GETROUTE, lookup_codec.question(destination, source, device, flow, match=match))
            if isinstance(answer, Refusal):
                return answer
            answers.append(answer)
        return lookup_codec.found(answers[0], answers[1], names)

    def rules(self, version: int) -> Iterator[Rule]:
        """Yield the rules of policy routing for a version of IP, in the order in which they are asked.

        Raises:
            WireBroken: when the kernel did not answer.
        """
        family = Family.IPV4 if version == 4 else Family.IPV6  # noqa: PLR2004 - IP versions
        yield from map(rule_codec.rule, self._dump(rule_codec.RTM_GETRULE, rule_codec.every(family)))

    def rejecting(self, kind: RouteType, version: int) -> Iterator[IPNetwork]:
        """Yield the destinations of all routes of a type that sends packets nowhere.

        Raises:
            WireBroken: when the kernel did not answer.
        """
        family = Family.IPV4 if version == 4 else Family.IPV6  # noqa: PLR2004 - IP versions
        for body in self._dump(RTM_GETROUTE, lookup_codec.rejecting(family, kind)):
            yield lookup_codec.prefix_of(body)

    def neighbour(self, address: IPAddress, device: int) -> int:
        """Return the state of a neighbour (NUD_...), after looking for one that is not known.

        Looking for it is what a packet would do; who may not ask for that gets the state as it is.

        Raises:
            WireBroken: when the kernel did not answer.
        """
        state = self._neighbour(address, device)
        if state not in UNKNOWN:
            return state
        self._quiet()
        refused = self._ask(RTM_NEWNEIGH, lookup_codec.neighbour(address, device, use=True), CREATE)
        if isinstance(refused, Refusal) and refused.code:
            return state
        patience = ASKED_AGAIN_SECONDS if state == NUD_INCOMPLETE else RESOLVE_SECONDS
        return self._await(address, device, time.monotonic() + patience)

    def mac(self, address: IPAddress, device: int) -> bytes | None:
        """Return the MAC of a neighbour; None while it is not known.

        Raises:
            WireBroken: when the kernel did not answer.
        """
        answer = self._ask(RTM_GETNEIGH, lookup_codec.neighbour(address, device, use=False))
        return None if isinstance(answer, Refusal) else lookup_codec.neighbour_mac(answer)

    def forwarding(self, mac: bytes, device: int) -> IPAddress | None:
        """Return the node to which a VXLAN device sends frames for a hardware address; None where it knows none.

        Raises:
            WireBroken: when the kernel did not answer.
        """
        entries = [*self._dump(RTM_GETNEIGH, lookup_codec.forwarding(device))]  # to its end: the socket is used again
        nodes = (lookup_codec.forwarded_to(body, mac) for body in entries)
        return next((node for node in nodes if node is not None), None)

    def _neighbour(self, address: IPAddress, device: int) -> int:
        answer = self._ask(RTM_GETNEIGH, lookup_codec.neighbour(address, device, use=False))
        if isinstance(answer, Refusal):
            return NUD_NONE
        return lookup_codec.neighbour_state(answer, address, device) or NUD_NONE

    def _await(self, address: IPAddress, device: int, deadline: float) -> int:
        """Read what happens to neighbours until this one has answered, or the time is over."""
        state = self._neighbour(address, device)
        while state in UNKNOWN and (left := deadline - time.monotonic()) > 0:
            if not select.select([self._listening], [], [], left)[0]:
                break
            for kind, _, _, _, body in messages(self._listening.recv(1 << 16)):
                told = lookup_codec.neighbour_state(body, address, device) if kind == RTM_NEWNEIGH else None
                state = state if told is None else told
        return state

    def _quiet(self) -> None:
        """Forget the events of before."""
        while select.select([self._listening], [], [], 0)[0]:
            try:
                self._listening.recv(1 << 16)
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # of lost events of before nothing is wanted
                    raise broken("listening for neighbours", error) from error

    def _ask(self, kind: int, body: bytes, flags: int = 0) -> bytes | Refusal:
        """Ask for one thing; what is changed is acknowledged with a refusal of code 0."""
        wanted = self._send(kind, body, REQUEST | flags | (0x4 if flags else 0))
        while True:
            for answer, said, sequence, _, content in messages(self._receive()):
                if sequence == wanted:
                    return Refusal(*refusal(said, content)) if answer == ERROR else content

    def _dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        wanted = self._send(kind, body, REQUEST | DUMP)
        while True:
            for answer, _, sequence, _, content in messages(self._receive()):
                if sequence != wanted:
                    continue
                if answer in (DONE, ERROR):
                    return
                yield content

    def _send(self, kind: int, body: bytes, flags: int) -> int:
        self._sequence += 1
        try:
            self._asking.send(HEADER.pack(HEADER.size + len(body), kind, flags, self._sequence, 0) + body)
        except OSError as error:
            raise broken("asking for a route", error) from error
        return self._sequence

    def _receive(self) -> bytes:
        try:
            return self._asking.recv(1 << 16)
        except OSError as error:
            raise broken("asking for a route", error) from error
