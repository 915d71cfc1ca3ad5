"""`felix-lab page`: one page for all machines of a lab, gathered from the nodes' agents over their sockets."""

import asyncio
import contextlib
import json
import os
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from felix_py.api import Answer, TcpApi
from felix_py.config import ListenAddress
from felix_py.lab import screen
from felix_py.lab.state import Lab, Refused
from felix_py.lab.topology import LabNode, Topology
from felix_py.page import tables
from felix_py.page.feed import Feed
from felix_py.page.gate import Reach
from felix_py.page.rows import NODE, ROUTER
from felix_py.page.server import PageServer
from felix_py.page.tables import Row, Tables

WAIT = 5
"""Seconds that an agent holds its answer back until there is news; its API allows no more."""

REST = 0.3
"""Seconds between two questions to one agent: its own feed to a browser is no faster."""

EVENTS = 300
"""Newest events of all nodes on the page."""

HOST = "host"


class LabSource:
    """The tables of every node of a lab (`feed.Source`); `run` has to be at work."""

    def __init__(self, lab: Lab, topology: Topology) -> None:
        self._lab = lab
        self._topology = topology
        self._machines = machines(topology)
        self._parts: dict[str, Tables] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Ask every agent for news until cancelled."""
        async with asyncio.TaskGroup() as group:
            for node in self._topology.nodes:
                group.create_task(self._follow(node))

    async def _follow(self, node: LabNode) -> None:
        revision = -1
        while True:
            try:
                status, document = await get(
                    self._socket(node.name), "page", {"after": str(revision), "wait": str(WAIT)}
                )
                fault = None if status == HTTPStatus.OK else str(document.get("error", status))
            except OSError as error:
                fault, document = f"the agent does not answer: {error.strerror or error}", {}
            if fault is None:
                revision = document["revision"]
                self._parts[node.name] = self._own(node, document["tables"])
            else:
                revision = -1
                away = {"unreachable": True, "problems": [fault]}
                self._parts[node.name] = {"nodes": {node.name: {**self._machines[node.name], **away}}}
            self._changed.set()
            await asyncio.sleep(REST)

    def _own(self, node: LabNode, found: Tables) -> Tables:
        """Return what an agent knows of itself; of the others the topology and they themselves know better."""
        row = found["nodes"][node.name]
        return {**found, "nodes": {node.name: {**row, "rack": self._machines[node.name]["rack"]}}}

    def _socket(self, name: str) -> Path:
        return self._lab.of_node(name) / "run" / "agent.sock"

    async def changed(self) -> None:
        """Wait until an agent has said something."""
        await self._changed.wait()

    async def gather(self) -> Tables:
        """Return everything as the agents told it last."""
        self._changed.clear()
        every = dict(tables.merged([{"nodes": self._machines}, *self._parts.values()]))
        every["about"] = {"page": {"title": f"lab {self._lab.name}"}}
        every["events"] = tables.newest(every.get("events", {}), EVENTS)
        return every

    async def ask(self, node: str, resource: str, query: Mapping[str, str]) -> Answer:
        """Ask a node's agent for more."""
        if self._topology.node(node) is None:
            return 404, {"error": f"{node} is no node of this lab"}
        try:
            return await get(self._socket(node), resource, query)
        except OSError as error:
            return 503, {"error": f"the agent of {node} does not answer: {error.strerror or error}"}


def machines(topology: Topology) -> dict[str, Row]:
    """Return a row for every machine, as far as the topology knows it."""
    racks = {each.name: f"{each.name} · {' '.join(map(str, each.cidrs))}" for each in topology.networks}
    found: dict[str, Row] = {}
    for router in topology.routers:
        addresses = [str(end) for network in topology.networks for end in router.ends(network.name)]
        found[router.name] = _row(ROUTER, router.name, "", addresses, router.as_number)
    for reflector in topology.reflectors:
        ends = list(map(str, reflector.ends))
        found[reflector.name] = _row(ROUTER, reflector.name, "", ends, topology.bgp.as_number)
    for node in topology.nodes:
        number = node.as_number or topology.bgp.as_number
        found[node.name] = _row(NODE, node.name, racks[node.network], list(map(str, node.ends)), number, node.blocks)
    for host in topology.hosts:
        found[host.name] = _row(HOST, host.name, racks[host.network], list(map(str, host.ends)), None)
    return found


def _row(
    kind: str, name: str, rack: str, addresses: list[str], number: int | None, blocks: tuple[Any, ...] = ()
) -> Row:
    return {
        "kind": kind,
        "name": name,
        "rack": rack,
        "addresses": addresses,
        "asNumber": number,
        "blocks": list(map(str, blocks)),
        "asked": False,
    }


async def get(path: Path, resource: str, query: Mapping[str, str]) -> Answer:
    """Ask an agent as `ctl.client.get` does, without a thread that waits.

    Raises:
        OSError: when no agent answers at `path`.
    """
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        target = f"/v1/{quote(resource)}?{urlencode(query)}"
        writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")  # the API closes after its answer
        try:
            return int(head.split(maxsplit=2)[1]), json.loads(body)
        except (ValueError, IndexError):
            raise ConnectionError("it hung up in the middle of its answer") from None
    finally:
        writer.close()


async def serve(lab: Lab, topology: Topology, address: ListenAddress, reach: Reach) -> None:
    """Serve the page of a lab to whom `reach` says, until cancelled.

    Raises:
        Refused: when the address cannot be had.
    """
    source = LabSource(lab, topology)
    feed = Feed(source)
    page = PageServer(feed, source.ask, reach)
    server = TcpApi(address, page.all(), setting="--listen", admit=page.admit)
    await _probe(address)
    async with asyncio.TaskGroup() as group:
        for work in (source.run(), feed.run(), server.serve()):
            group.create_task(work)
        await server.listening.wait()
        screen.say(f"the page of lab {lab.name}: http://{address.host}:{server.port}/   (Ctrl-C ends it)")


async def _probe(address: ListenAddress) -> None:
    """Find out whether the address can be had: an agent waits for its own, a command says so at once."""
    try:
        server = await asyncio.start_server(lambda *_: None, *address)
    except OSError as error:
        raise Refused(
            f"--listen is {address}, which cannot be listened on: {_why(error)}; give another port", status=2
        ) from error
    server.close()
    await server.wait_closed()


def _why(error: OSError) -> str:
    """Say it as the system does: asyncio puts words of its own into strerror."""
    return os.strerror(error.errno) if error.errno else str(error)


def run(lab: Lab, topology: Topology, address: ListenAddress, reach: Reach = Reach.LOOPBACK) -> int:
    """Serve the page until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(lab, topology, address, reach))
    return 0
