"""Looks after a node's blocks and addresses now and then: leaks are taken back, unused blocks given up."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import structlog

from felix_py import leaks
from felix_py.addresses import Held
from felix_py.allocations import Allocations
from felix_py.claims import Conflict
from felix_py.datastore.api import Damaged
from felix_py.ipam import Block
from felix_py.leaks import Suspects
from felix_py.ledger import Attachment
from felix_py.model import BlockAffinity, IPNetwork, Node, NodeName
from felix_py.store_failed import StoreFailed

PERIOD = 60.0
"""Seconds between two looks; a leak is taken back after `leaks.GRACE`, so nothing is in a hurry."""

SHORTLY = 1.0
"""Seconds until it is asked again whether resources are known."""

SPREAD = 2.0
"""Seconds within which all nodes look at the blocks of a datastore that was restored: each lists all."""

log = structlog.get_logger()

Claimed: TypeAlias = tuple[NodeName, IPNetwork]


class Tending:
    """Looks after the allocations of one node, and, where it is the first of those that are there, after the dead's.

    Args:
        store: the node's allocations.
        node: its name.
        forget: told of each pod whose interface has been gone for so long that its addresses were taken back.
        clock: the time of day.
        period: seconds between two looks.
        restored: set when what was written down may have been lost: then it is looked sooner.
    """

    def __init__(
        self,
        store: Allocations,
        node: NodeName,
        forget: Callable[[str], Awaitable[None]],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        period: float = PERIOD,
        restored: asyncio.Event | None = None,
    ) -> None:
        self._period = period
        self._restored = restored or asyncio.Event()
        self._store = store
        self._node = node
        self._forget = forget
        self._clock = clock
        self._unused: Suspects[Held] = Suspects()
        self._gone: Suspects[Attachment] = Suspects()
        self._ownerless: Suspects[Claimed] = Suspects()

    async def run(self) -> None:
        """Look as soon as resources are known, and every `period` seconds from then on, until cancelled."""
        while True:
            in_sync = self._store.addresses.own.cluster().in_sync
            for name in await asyncio.to_thread(self.look) if in_sync else ():
                await self._forget(name)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._period if in_sync else SHORTLY):
                    await self._restored.wait()
                    await asyncio.sleep(random.uniform(0, SPREAD))  # noqa: S311 - no secret
            self._restored.clear()

    def look(self, grace: timedelta = leaks.GRACE) -> tuple[str, ...]:
        """Look once; return the names of pods that are gone for good.

        Args:
            grace: how long something may seem unused before it is taken back.
        """
        try:
            self.tidy(grace)
            return tuple(self._detached(grace))
        except (OSError, Conflict, Damaged, StoreFailed) as failure:
            log.warning("datastore.fault", fault=f"blocks could not be looked after: {failure}")
            return ()

    def tidy(self, grace: timedelta = leaks.GRACE) -> None:
        """Bring what is written down in order, without a look at pods.

        Raises:
            OSError, Conflict, Damaged: some of it is left to the next time.
        """
        addresses = self._store.addresses
        with self._store.alone():
            addresses.refresh()
            addresses.pay()
            addresses.find_lost()
            addresses.restore()
            # All of thousands of nodes are many pages: the first one reads them once in each look.
            blocks, _ = addresses.blocks(None if self._first(self._nodes()) else self._node)
            self._take_back_unused(grace, blocks)
            addresses.own.end_unused()
            addresses.own.claim_for_tunnel()
            self._bury(grace, blocks)

    def _take_back_unused(self, grace: timedelta, blocks: Iterable[Block]) -> None:
        """Take back what is written down for this node, or for nodes that are no more, and is used by nobody."""
        now, nodes = self._clock(), self._nodes()
        in_use = self._store.in_use()
        unused = [
            (address, holder)
            for block in blocks
            for address, holder in block.holders.items()
            if (holder.node == self._node and in_use.get(address) != holder.handle)
            or (holder.node not in nodes and self._first(nodes))
        ]
        self._unused = self._unused.after(unused, now)
        due = self._unused.due(now, grace)
        if due:
            # Looked at again right before: `take_back` asks the block whether it is still the very same holder.
            still = self._store.in_use()
            leaked = [each for each in due if still.get(each[0]) != each[1].handle]
            self._store.addresses.take_back(leaked)
            for address, holder in leaked:
                log.info("ipam.address.released", address=str(address), holder=str(holder), cause="nobody uses it")

    def _bury(self, grace: timedelta, blocks: Iterable[Block]) -> None:
        """Give up the blocks of nodes that are no more."""
        now, nodes, addresses = self._clock(), self._nodes(), self._store.addresses
        if not self._first(nodes):
            self._ownerless = Suspects()
            return
        # Claims are known without asking; only which of them nodes keep themselves has to be read.
        left = any(each.node not in nodes for each in addresses.own.cluster().of(BlockAffinity))
        claims = addresses.own.claims() if left else ()
        claimed = {(each.node, each.cidr) for each in claims if each.node not in nodes}
        owned = {(each.affinity, each.cidr) for each in blocks if each.affinity is not None}
        self._ownerless = self._ownerless.after(claimed | {each for each in owned if each[0] not in nodes}, now)
        for node, cidr in self._ownerless.due(now, grace):
            addresses.own.end(node, cidr)

    def _detached(self, grace: timedelta) -> list[str]:
        """Detach pods whose interface has been gone for so long that no DEL will come."""
        now, living = self._clock(), self._store.living_interfaces()
        gone = [each for each in self._store.attachments() if each.host_interface not in living]
        self._gone = self._gone.after(gone, now)
        names = []
        for each in self._gone.due(now, grace):
            if each.host_interface not in self._store.living_interfaces():
                self._store.detach(each)
                log.info(
                    "ipam.address.released", address=_listed(each), holder=each.name, cause="its interface is gone"
                )
                names.append(each.name)
        return names

    def _nodes(self) -> set[NodeName]:
        return {node.name for node in self._store.addresses.own.cluster().of(Node)}

    def _first(self, nodes: set[NodeName]) -> bool:
        """Say whether this node looks after what the dead have left: the first by name, so that not all do."""
        return self._node == min(nodes, default=None)


def _listed(attachment: Attachment) -> str:
    return ", ".join(map(str, attachment.addresses))
