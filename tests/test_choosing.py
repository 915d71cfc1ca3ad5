"""Where an address comes from, in tables: which pool serves whom, and which block is next, each with the reason."""

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from builders import block, node, pod, pool, with_blocks
from hypothesis import given
from hypothesis import strategies as st

from felix_py import choosing, selectors
from felix_py.calc import routes, sessions
from felix_py.calc.next_hops import View
from felix_py.choosing import Chosen, Client, NoneLeft
from felix_py.ipam import Block
from felix_py.model import (
    BlockAffinity,
    Claim,
    IPAMConfiguration,
    IPPool,
    IPReservation,
    Key,
    Namespace,
    Node,
    NodeName,
    Use,
)
from felix_py.state import ClusterState, Event, InSync, Present

A1, A2 = map(NodeName, ("a1", "a2"))
WEB = Client(A1, Use.WORKLOAD, "web")


def known(*events: Event) -> ClusterState:
    return ClusterState().after_all((*events, InSync()))


def rules(**settings: object) -> Present:
    return Present(Key("IPAMConfiguration", "default"), IPAMConfiguration(**settings))  # type: ignore[arg-type]


def changed(**fields: object) -> Present:
    given_pool = pool().value
    assert isinstance(given_pool, IPPool)
    return Present(Key("IPPool", "default"), replace(given_pool, **fields))  # type: ignore[arg-type]


LABELLED = Present(Key("Node", "a1"), Node(A1, labels={"rack": "a"}))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        pytest.param({}, None, id="serves everybody"),
        pytest.param({"disabled": True}, "it is disabled", id="disabled"),
        pytest.param({"uses": frozenset({Use.TUNNEL})}, "its allowedUses lack Workload", id="for tunnels"),
        pytest.param({"node_selector": "rack == 'a'"}, None, id="selects the node"),
        pytest.param(
            {"node_selector": "rack == 'b'"},
            "its nodeSelector rack == 'b' does not select node a1",
            id="selects other nodes",
        ),
        pytest.param({"namespace_selector": "tier == 'front'"}, None, id="selects the namespace"),
        pytest.param({"namespace_selector": "projectcalico.org/name == 'web'"}, None, id="selects it by name"),
        pytest.param(
            {"namespace_selector": "tier == 'back'"},
            "its namespaceSelector tier == 'back' does not select namespace web",
            id="selects other namespaces",
        ),
    ],
)
def test_whether_a_pool_serves_a_pod(fields: dict[str, object], why: str | None) -> None:
    parsed = {key: selectors.parse(value) if isinstance(value, str) else value for key, value in fields.items()}
    front = Present(Key("Namespace", "web"), Namespace("web", {"tier": "front"}))
    cluster = known(LABELLED, front, changed(**parsed))
    pools, refusals = choosing.serving(cluster, WEB)
    assert refusals == (() if why is None else (f"IPPool default does not serve: {why}",))
    assert len(pools) == (why is None)


def test_pools_that_select_namespaces_go_before_pools_for_everybody() -> None:
    chosen = replace(pool("10.66.0.0/16", name="web").value, namespace_selector=selectors.parse("has(tier)"))  # type: ignore[type-var]
    front = Present(Key("Namespace", "web"), Namespace("web", {"tier": "front"}))
    cluster = known(pool(), front, Present(Key("IPPool", "web"), chosen))
    assert [each.name for each in choosing.serving(cluster, WEB)[0]] == ["web", "default"]


SMALL = pool("10.65.0.0/30", size=32)
FOUR = [IPv4Network(f"10.65.0.{number}/32") for number in range(4)]


def test_every_node_begins_at_its_own_place_and_takes_the_first_that_is_free() -> None:
    cluster = known(pool())
    pools = choosing.serving(cluster, WEB)[0]
    first = choosing.next_block(cluster, pools, A1, (), ())
    assert first == Chosen(
        IPv4Network("10.65.8.192/26"), "default", "the first free block of IPPool default from number 35 on"
    )
    second = choosing.next_block(cluster, pools, A1, (), [IPv4Network("10.65.8.192/26")])
    assert isinstance(second, Chosen)
    assert second.cidr == IPv4Network("10.65.9.0/26")
    other = choosing.next_block(cluster, pools, A2, (), ())
    assert isinstance(other, Chosen)
    assert other.cidr not in (first.cidr, second.cidr)


@pytest.mark.parametrize(
    ("events", "own", "taken", "why"),
    [
        pytest.param((SMALL,), [], FOUR, "no block is left in IPPool default (10.65.0.0/30)", id="all are taken"),
        pytest.param((), [], [], "there is no IPPool to claim a block from", id="no pool"),
        pytest.param(
            (SMALL,),
            [],
            [IPv4Network("10.65.0.0/24")],
            "no block is left in IPPool default (10.65.0.0/30)",
            id="somebody has all of it as one block",
        ),
        pytest.param(
            (SMALL, rules(max_blocks=2)),
            FOUR[:2],
            FOUR[:2],
            "node a1 has 2 blocks already (maxBlocksPerHost is 2)",
            id="as many as it may have",
        ),
        pytest.param(
            (SMALL, rules(claims_blocks=False)),
            [],
            [],
            "node a1 may claim no block (autoAllocateBlocks is false); add a BlockAffinity for it",
            id="by hand only",
        ),
        pytest.param(
            (SMALL, Present(Key("IPReservation", "r"), IPReservation("r", (IPv4Network("10.65.0.0/30"),)))),
            [],
            [],
            "no block is left in IPPool default (10.65.0.0/30)",
            id="all of it is reserved",
        ),
    ],
)
def test_why_no_block_is_claimed(
    events: tuple[Event, ...], own: list[IPv4Network], taken: list[IPv4Network], why: str
) -> None:
    cluster = known(*events)
    assert choosing.next_block(cluster, cluster.of(IPPool), A1, own, taken) == NoneLeft(why)


@given(st.text(min_size=1, max_size=9), st.sets(st.sampled_from(FOUR)))
def test_a_free_block_is_found_whoever_asks_and_whatever_is_taken(name: str, taken: set[IPv4Network]) -> None:
    cluster = known(SMALL)
    choice = choosing.next_block(cluster, cluster.of(IPPool), NodeName(name), (), taken)
    assert isinstance(choice, Chosen) == (len(taken) < 4)
    assert not isinstance(choice, Chosen) or choice.cidr in set(FOUR) - taken


def test_a_block_of_another_size_keeps_its_neighbourhood() -> None:
    cluster = known(pool("10.65.0.0/24", size=26))
    taken = [IPv4Network("10.65.0.0/25"), IPv4Network("10.65.0.128/27")]
    choice = choosing.next_block(cluster, cluster.of(IPPool), A1, (), taken)
    assert isinstance(choice, Chosen)
    assert choice.cidr == IPv4Network("10.65.0.192/26")


@pytest.mark.parametrize(
    ("events", "own", "versions"),
    [
        pytest.param((node("a1", "172.31.1.11/24"), pool()), (), (4,), id="a pool of IPv4"),
        pytest.param(
            (node("a1", "172.31.1.11/24"), pool(), pool("fd65::/48", name="six", size=122)),
            (),
            (4,),
            id="a node without an IPv6 address",
        ),
        pytest.param(
            (node("a1", "172.31.1.11/24", "fd31::11/64"), pool(), pool("fd65::/48", name="six", size=122)),
            (),
            (4, 6),
            id="both",
        ),
        pytest.param((rules(claims_blocks=False), pool()), (IPv6Network("fd65::/122"),), (6,), id="by hand"),
        pytest.param((), (), (4,), id="nothing at all: the refusal speaks of IPv4"),
    ],
)
def test_of_which_versions_of_ip_a_pod_has_an_address(
    events: tuple[Event, ...], own: tuple[IPv6Network, ...], versions: tuple[int, ...]
) -> None:
    assert choosing.versions(known(*events), WEB, own) == versions


def test_lenders_are_other_nodes_blocks_of_the_pools_that_serve() -> None:
    blocks = [Block(ip_network(f"10.65.{number}.0/26"), NodeName(f"a{number}")) for number in range(1, 4)]
    stranger = Block(IPv4Network("10.9.0.0/26"), A2)
    pools = known(pool()).of(IPPool)
    assert set(choosing.lenders(pools, A1, [*blocks, stranger])) == {blocks[1], blocks[2]}


# --- what of it reaches the network


def state_of(claim: Claim) -> Present:
    affinity = BlockAffinity("a1-b", A1, IPv4Network("10.65.0.0/26"), claim)
    return Present(Key("BlockAffinity", "a1-b"), affinity)


@pytest.mark.parametrize("claim", list(Claim))
def test_only_a_confirmed_claim_is_announced_and_has_a_blackhole(claim: Claim) -> None:
    cluster = known(node("a1", "172.31.1.11/24"), pool(), state_of(claim))
    settings = sessions.settings(cluster, A1)
    assert settings is not None
    announced = claim is Claim.CONFIRMED
    assert bool(settings.announcements) == announced
    view = View(cluster.node(A1) or Node(A1), {}, None, {}, None)
    assert bool(list(routes.blackholes(view, cluster.of(BlockAffinity)))) == announced


def test_a_borrowed_address_is_announced_by_itself_and_one_of_an_own_block_is_not() -> None:
    cluster = known(
        node("a1", "172.31.1.11/24"),
        pool(),
        block("a1", "10.65.0.0/26"),
        pod("default/own", "a1", "cali1", "10.65.0.5/32"),
        pod("default/borrower", "a1", "cali2", "10.65.1.7/32"),
        pod("default/elsewhere", "a2", "cali3", "10.65.1.8/32"),
        pod("default/foreign", "a1", "cali4", "192.0.2.1/32"),
    )
    settings = sessions.settings(cluster, A1)
    assert settings is not None
    assert settings.announcements == {IPv4Network("10.65.0.0/26"), IPv4Network("10.65.1.7/32")}
    assert settings.lends


def test_strict_affinity_lends_nothing() -> None:
    cluster = known(node("a1", "172.31.1.11/24"), pool(), rules(strict_affinity=True))
    settings = sessions.settings(cluster, A1)
    assert settings is not None
    assert not settings.lends


def test_the_tunnels_block_is_one_of_a_pool_that_allows_it() -> None:
    cluster = with_blocks("a1", "10.65.0.0/26", "10.66.0.0/26")
    assert sessions.tunnel_blocks(cluster, A1) == (IPv4Network("10.65.0.0/26"),)
    first = cluster.of(IPPool)[0]
    closed = Present(Key("IPPool", first.name), replace(first, uses=frozenset({Use.WORKLOAD})))
    assert sessions.tunnel_blocks(cluster.after_all([closed]), A1) == (IPv4Network("10.66.0.0/26"),)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        pytest.param((4, "default"), None, id="by name"),
        pytest.param((4, "10.65.0.0/16"), None, id="by range"),
        pytest.param((6, "six"), None, id="of the other version of IP"),
        pytest.param((4, "red"), "IPPool default does not serve: the pod asks for red", id="another one"),
    ],
)
def test_a_pod_may_ask_for_pools(asked: tuple[int, str], why: str | None) -> None:
    found = changed().value
    assert isinstance(found, IPPool)
    assert choosing.refusal(known(LABELLED), found, replace(WEB, pools=(asked,))) == why
