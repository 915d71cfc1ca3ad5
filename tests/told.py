"""Who stands beside the loop of one node, as a test says: BGP, and a datastore that keeps silent."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from types import SimpleNamespace
from typing import Any

from bgp.speaker_words import NextHops
from felix_py.model import IPNetwork
from felix_py.state import Event


@dataclass
class ToldSpeaker:
    """BGP as the loop sees it: paths, and whether their absence means something."""

    paths: dict[IPNetwork, Any] = field(default_factory=dict)
    done: bool = True
    chooses: bool = True
    configured: Any = None
    told: list[NextHops] = field(default_factory=list)

    def configure(self, settings: Any) -> None:
        self.configured = settings

    def best_paths(self) -> Mapping[IPNetwork, Any]:
        return dict(self.paths)

    def changes(self) -> None:
        """Say that everything may have changed."""

    def peer_name(self, path: Any) -> str:
        return str(path.path.peer)

    def converged(self) -> bool:
        return self.done

    def selecting(self) -> bool:
        return self.done or self.chooses

    def next_hops(self) -> frozenset[IPv4Address]:
        return frozenset(each.path.attributes.next_hop for each in self.paths.values())

    def tell(self, event: NextHops) -> None:
        self.told.append(event)

    def learn(self, prefix: str, next_hop: str) -> None:
        attributes = SimpleNamespace(next_hop=IPv4Address(next_hop))
        path = SimpleNamespace(attributes=attributes, stale=False, peer=next_hop)
        self.paths[IPv4Network(prefix)] = SimpleNamespace(path=path, equal=())


class SilentDatastore:
    """A datastore that never says anything; tests tell the agent themselves."""

    faults: tuple[str, ...] = ()

    async def events(self) -> AsyncIterator[tuple[Event, ...]]:
        await asyncio.Event().wait()
        yield ()
