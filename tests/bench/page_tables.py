"""A made-up cluster for the benchmark of the page: its tables and how they change, and the resources of such a one."""

import asyncio
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from itertools import islice
from typing import Any

from felix_py.page.tables import Tables

NODES, ROUTES, EVENTS = 50, 5_000, 200
PER_RACK = 10
SINCE = 1_795_000_000


class Cluster:
    """What the page of a lab of this size would be told (`feed.Source`)."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.turn = 0
        self.tables: dict[str, dict[str, dict[str, Any]]] = {
            "about": {"page": {"title": "fifty nodes"}},
            "nodes": {f"n{number}": _node(number) for number in range(NODES)},
            "sessions": dict(_sessions()),
            "tunnels": dict(_tunnels()),
            "routes": {f"n{number % NODES} {_prefix(number)}": _route(number) for number in range(ROUTES)},
            "events": {f"n0 {number}": _event(number) for number in range(EVENTS)},
        }

    def change(self) -> None:
        """Have a session die, or come back, with all that follows."""
        self.turn += 1
        down = self.turn % 2 == 1
        key = f"n{self.turn} 172.31.1.{11 + self.turn + 1}"
        state = {"state": "Active", "lastError": "Hold Timer Expired"} if down else {"state": "Established"}
        self._put("sessions", key, **state)
        problems = [f"BGP session {key} is Active"] if down else []
        self._put("nodes", f"n{self.turn}", healthy=not down, problems=problems)
        for name in islice(self.tables["routes"], 100 * self.turn, 100 * self.turn + 100):
            self._put("routes", name, state="missing" if down else "installed", reason="eth0 is down" if down else None)
        self.tables["events"] = dict(islice(self.tables["events"].items(), 1, None))
        self.tables["events"][f"n0 {EVENTS + self.turn}"] = _event(EVENTS + self.turn)
        self.news.set()

    def _put(self, table: str, key: str, **fields: Any) -> None:
        rows = self.tables[table]
        self.tables[table] = {**rows, key: {**rows[key], **fields}}

    async def gather(self) -> Tables:
        self.news.clear()
        return {name: dict(rows) for name, rows in self.tables.items()}

    async def changed(self) -> None:
        await self.news.wait()


def _address(number: int) -> str:
    return f"172.31.{1 + number // PER_RACK}.{11 + number}"


def _prefix(number: int) -> str:
    return str(IPv4Network((int(IPv4Address("10.128.0.0")) + 64 * number, 26)))


def _node(number: int) -> dict[str, Any]:
    return {
        "kind": "node",
        "name": f"n{number}",
        "rack": f"rack {number // PER_RACK} · 172.31.{1 + number // PER_RACK}.0/24",
        "addresses": [_address(number)],
        "asNumber": 64512,
        "blocks": [_prefix(number)],
        "asked": True,
        "version": "1",
        "inSync": True,
        "healthy": True,
        "problems": [],
        "routes": {"installed": ROUTES // NODES},
        "routesLeftOut": 0,
        "sessions": {"established": NODES - 1, "configured": NODES - 1, "off": None},
        "podMTU": 1480,
        "tunnels": [{"device": "tunl0", "driver": "kernel"}],
        "pods": 30,
    }


def _sessions() -> Iterator[tuple[str, dict[str, Any]]]:
    for here in range(NODES):
        for there in range(NODES):
            if here != there:
                yield (
                    f"n{here} {_address(there)}",
                    {
                        "node": f"n{here}",
                        "peer": _address(there),
                        "name": f"n{there}",
                        "asNumber": 64512,
                        "type": "mesh",
                        "state": "Established",
                        "since": SINCE,
                        "received": 1,
                        "accepted": 1,
                        "advertised": 1,
                        "stale": 0,
                        "flaps": 0,
                        "lastError": None,
                    },
                )


def _tunnels() -> Iterator[tuple[str, dict[str, Any]]]:
    for here in range(NODES):
        for there in range(NODES):
            if here // PER_RACK != there // PER_RACK:
                yield (
                    f"n{here} {_address(there)} ipip",
                    {
                        "node": f"n{here}",
                        "remote": _address(there),
                        "encapsulation": "ipip",
                        "driver": "kernel",
                        "device": "tunl0",
                        "prefixes": 1,
                        "obstacle": None,
                    },
                )


def _route(number: int) -> dict[str, Any]:
    far = (number * 7 + 1) % NODES
    return {
        "node": f"n{number % NODES}",
        "prefix": _prefix(number),
        "kind": "remote",
        "nextHop": _address(far),
        "device": "tunl0",
        "encapsulation": "ipip",
        "from": f"bgp {_address(far)} (n{far})",
        "since": SINCE,
        "state": "installed",
        "reason": None,
    }


def _event(number: int) -> dict[str, Any]:
    return {
        "node": "n0",
        "id": number,
        "time": f"2026-11-26T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}.000Z",
        "event": "route.put",
        "subject": _prefix(number),
        "what": "installed: via 172.31.1.12 dev eth0",
        "cause": "bgp",
    }


def resources(count: int) -> Iterator[dict[str, Any]]:
    """Yield the resources of a cluster in which one node has this many routes to blocks of others on its link."""
    yield _resource("IPPool", "default", {"cidr": "10.128.0.0/9", "ipipMode": "Never", "blockSize": 26})
    for number in range(NODES):
        yield _resource("Node", f"n{number}", {"bgp": {"ipv4Address": f"172.31.1.{11 + number}/24"}})
    for number in range(count):
        node = f"n{1 + number % (NODES - 1)}"
        spec = {"node": node, "cidr": _prefix(number), "state": "confirmed", "deleted": "false"}
        yield _resource("BlockAffinity", f"{node}-{number}", spec)


def _resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec}
