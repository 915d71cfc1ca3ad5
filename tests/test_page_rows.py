"""What the agent and the lab put on a page: rows that say what felixctl says, under keys that last."""

import asyncio
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml
from agent_node import host, node
from told import ToldSpeaker

from felix_py import documents
from felix_py.agent import Agent
from felix_py.kernel.objects import RouteKey
from felix_py.kernel.wire import Mode, Verb
from felix_py.lab import document, page
from felix_py.model import NodeName
from felix_py.page import of_agent, rows

A1 = NodeName("a1")
STATUS: dict[str, Any] = {
    "version": "1",
    "inSync": True,
    "healthy": True,
    "problems": [],
    "routes": {"installed": 3},
    "routesLeftOut": 0,
    "bgp": {"established": 1, "configured": 2, "off": None},
    "podMTU": {"value": 1480},
    "tunnels": [{"device": "tunl0", "driver": "ebpf", "mtu": 1480}],
}


def turned() -> tuple[Agent, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return an agent after a turn, with its routes as felixctl and as a page have them, and its tunnels."""
    made, speaker = host(), ToldSpeaker()
    speaker.learn("10.65.1.0/26", "172.31.1.12")
    speaker.learn("10.65.2.0/26", "172.31.2.11")

    async def scenario() -> tuple[Agent, dict[str, Any], dict[str, Any], dict[str, Any]]:
        agent = node(made, speaker)
        await agent.turn()
        told = await agent.ask(partial(documents.routes, agent))
        keys = await agent.ask(of_agent._keys)
        shown = await agent.ask(partial(rows.routes, A1, keys, 0.0))
        tunnels = await agent.ask(lambda turns: rows.tunnels(A1, turns.wish.chosen, lambda name: f"by {name}"))
        return agent, {row["prefix"]: row for row in told["routes"]}, dict(shown), dict(tunnels)

    return asyncio.run(scenario())


def test_a_route_says_what_felixctl_says() -> None:
    _, told, shown, _ = turned()
    assert shown.keys() == {f"a1 {prefix}" for prefix in told}
    for row in shown.values():
        same = {name: row[name] for name in row.keys() - {"node", "since"}}
        assert same == {name: told[row["prefix"]][name] for name in same}
        assert isinstance(row["since"], int | None)


def test_what_is_not_as_it_should_be_goes_first_where_there_is_room_for_some_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, speaker = host(), ToldSpeaker()
    for number in range(20):
        speaker.learn(f"10.65.{number + 1}.0/26", "172.31.1.12")

    async def scenario() -> list[str]:
        agent = node(made, speaker)
        await agent.turn()
        key = RouteKey(IPv4Network("10.65.17.0/26"))
        made.foreign(Verb.DELETE_ROUTE, Mode.NONE, key, made.routes[key])
        await agent.ask(lambda turns: turns.kernel.catch_up(0.0))
        return [str(key) for key in await agent.ask(of_agent._keys)]

    monkeypatch.setattr(of_agent, "MOST_ROUTES", 3)
    found = asyncio.run(scenario())
    assert len(found) == 3
    assert found[0] == "10.65.17.0/26"


def test_a_tunnel_is_one_row_for_each_node_behind_it() -> None:
    _, _, _, tunnels = turned()
    assert {key: (row["remote"], row["driver"], row["prefixes"]) for key, row in tunnels.items()} == {
        "a1 172.31.2.11 ipip": ("172.31.2.11", "by ipip", 1)
    }


def test_an_agent_speaks_for_itself_and_names_the_others() -> None:
    agent, *_ = turned()
    found = rows.nodes(agent.cluster, A1, STATUS)
    assert found["a1"]["asked"]
    assert found["a1"]["rack"] == "172.31.1.0/24"
    assert found["a1"]["sessions"] == {"established": 1, "configured": 2, "off": None}
    assert not any(row["asked"] or "healthy" in row for name, row in found.items() if name != "a1")
    assert {row["rack"] for row in found.values()} == {"172.31.1.0/24", "172.31.2.0/24"}


def test_a_lab_knows_every_machine_with_its_place() -> None:
    path = Path(__file__).parents[1] / "deploy" / "lab" / "two-racks.yaml"
    topology = document.parse(yaml.safe_load(path.read_text()), "two-racks.yaml")
    found = page.machines(topology)
    assert {name: row["kind"] for name, row in found.items()} == {
        "tor": "router", "a1": "node", "a2": "node", "b1": "node", "b2": "node", "client": "host",
    }  # fmt: skip
    assert found["tor"]["addresses"] == ["172.31.1.1", "172.31.2.1", "172.31.9.1"]
    assert found["b1"]["rack"] == "rack-b · 172.31.2.0/24"
