"""The tunnels' own addresses, one of each version of IP, out of this node's blocks."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import structlog

from felix_py import ipam
from felix_py.addresses import Addresses, Held
from felix_py.claims import Conflict
from felix_py.gathering import Gathering
from felix_py.ipam import Block, Holder, NotAssigned
from felix_py.model import IPAddress, IPNetwork, NodeName
from felix_py.store_failed import failed

TUNNEL_HANDLES = {4: "ipip-tunnel-addr", 6: "vxlan-v6-tunnel-addr"}
"""Of the tunnels' own addresses, by version of IP; Calico's words. IP in IP and VXLAN share the one of IPv4."""

log = structlog.get_logger()


class TunnelAddresses:
    """Those of one node. For any thread, but for `find`."""

    def __init__(
        self, addresses: Addresses, node: NodeName, gathering: Gathering[Any, Any], clock: Callable[[], datetime]
    ) -> None:
        self._addresses = addresses
        self._node = node
        self._gathering = gathering
        self._clock = clock
        self._held: dict[int, Held] = {}  # by version of IP

    def of_block(self, block: IPNetwork, *, keep: bool = True) -> IPAddress | None:
        """Return the tunnels' own address in this block, giving it one where it has none; None when all are in use.

        Args:
            block: one of this node's blocks.
            keep: whether a new one is written down; not for those who only look, as `felix-agent plan`.
        """
        version = block.version
        # The loop asks, which is not to wait for whoever is writing: a busy API server may take its time.
        before = self._held.get(version)
        if before is not None and before[0] in block:
            return before[0]
        with self._gathering.alone():
            before = self._held.get(version)
            held = Holder(self._handle(version), self._node, self._clock())
            if not keep:
                return next(iter(self._addresses.block(block).free(self._addresses.own.terms())), None)
            try:
                answer = self._addresses.give_in(block, held)
            except (OSError, Conflict) as failure:
                log.warning("datastore.fault", fault=str(failed(failure)))
                answer = self._unwritten(block, held)
            if isinstance(answer, NotAssigned):
                return None
            self._addresses.give_back_later([before] if before is not None else [])
            self._held[version] = answer, held
            return answer

    def _unwritten(self, block: IPNetwork, held: Holder) -> IPAddress | NotAssigned:
        """Give an address that is written with the next pod; until then a restart may choose another one."""
        answer = ipam.assign(self._addresses.block(block), held, self._addresses.own.terms())
        if isinstance(answer, NotAssigned):
            return answer
        self._addresses.remember([(answer.address, held)], written=False)
        return answer.address

    def _handle(self, version: int) -> str:
        """Return the handle of the address of a version of IP."""
        return f"{TUNNEL_HANDLES[version]}-{self._node}"

    def find(self, blocks: Iterable[Block], before: Mapping[str, IPAddress]) -> None:
        """Know the addresses that were given before this agent started.

        Args:
            blocks: of all nodes.
            before: what the file of earlier versions says, by handle.
        """
        names = {self._handle(version): version for version in TUNNEL_HANDLES}
        for block in blocks:
            for address, each in block.holders.items():
                if each.handle in names:
                    self._held[names[each.handle]] = address, each
                    self._addresses.remember([(address, each)], written=True)
        for handle, version in names.items():
            if version not in self._held and handle in before:
                held = before[handle], Holder(handle, self._node, self._clock())
                self._held[version] = held
                self._addresses.remember([held], written=False)
