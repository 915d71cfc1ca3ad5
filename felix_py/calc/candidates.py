"""Who gets a prefix that several want: candidates, a table of named rules, and for every loser the rule it lost by."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

from felix_py.calc import encap
from felix_py.kernel.objects import Route, RouteKey
from felix_py.model import IPAddress


class Kind(StrEnum):
    """What a route of ours is for."""

    BLACKHOLE = "blackhole"
    WORKLOAD = "workload"
    REMOTE = "remote"
    HOST = "host"


class Rank(IntEnum):
    """Who goes first where several candidates want one prefix and nothing better decides; the lowest."""

    WORKLOAD = 0
    HOST = 1
    REMOTE_BLOCK = 2
    REMOTE_DIRECT = 3
    REMOTE_TUNNEL = 4
    BLACKHOLE = 5
    KEPT = 6
    DEFERRED = 7


RANKS_IN_WORDS = {
    Rank.WORKLOAD: "a pod of this node",
    Rank.HOST: "what this host itself needs",
    Rank.REMOTE_BLOCK: "the node that has the block by the datastore",
    Rank.REMOTE_DIRECT: "another node that is reached without a tunnel",
    Rank.REMOTE_TUNNEL: "another node that is reached through the tunnel",
    Rank.BLACKHOLE: "the blackhole of a block of this node",
    Rank.KEPT: "what was kept from before the restart",
    Rank.DEFERRED: "what some peers say while others have not spoken yet",
}
"""For sentences: `a pod of this node goes before the blackhole of a block of this node`."""


class Candidate(NamedTuple):
    """A route that somebody wants, with its reason; the same one for all prefixes that it is wanted for.

    Attributes:
        route: the plain route, which people read; the kernel may be given the same way through a next-hop object.
        obstacle: why it cannot be installed now, as `cali1 is down`; such a candidate steps aside.
        carrier: whether its interface has carrier; None where there is no interface to ask, or nobody asked.
        interface: index of the workload's interface; 0 for all that are no workloads.
        next_hop: the BGP next hop that the route leads to, where it is exactly one.
        notes: further sentences, as which equal next hops are used and which are not.
    """

    route: Route
    kind: Kind
    rank: Rank
    origin: str
    rule: str
    encapsulation: encap.Choice | None = None
    stale: bool = False
    obstacle: str | None = None
    carrier: bool | None = None
    interface: int = 0
    next_hop: IPAddress | None = None
    notes: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        """The interface that it leaves by, for sentences; the first of several."""
        return next(iter(self.route.devices), "no interface")


@dataclass(frozen=True, slots=True)
class Rule:
    """One step of the choice: of the candidates that are left, those with the lowest `rank` stay.

    Attributes:
        rank: lower is better.
        say: why the second lost to the first, as a sentence without its full stop.
        among: candidates are only compared with those of the same group.
    """

    name: str
    rank: Callable[[Candidate], Any]
    say: Callable[[Candidate, Candidate], str]
    among: Callable[[Candidate], Any] = lambda _: None


RULES: tuple[Rule, ...] = (
    # Whoever cannot be installed steps aside for the next that can, and comes back with its interface.
    Rule(
        "can be installed",
        lambda each: each.obstacle is not None,
        lambda _, loser: f"it cannot be installed: {loser.obstacle}",
    ),
    # The kernel takes a route out of an interface without carrier, and its packets go nowhere; so a pod that has left
    # its veth behind must not hide the same address on another node. What has no interface is not judged by carrier.
    Rule(
        "carrier",
        lambda each: each.carrier is False,
        lambda winner, loser: f"{loser.device} has no carrier and {winner.device} has",
        lambda each: each.carrier is not None,
    ),
    Rule(
        "rank",
        lambda each: each.rank,
        lambda winner, loser: f"{RANKS_IN_WORDS[winner.rank]} goes before {RANKS_IN_WORDS[loser.rank]}",
    ),
    # Two pods with one address: the kernel numbers interfaces upwards, so the higher index is the younger pod, and the
    # elder is on its way out (an address is given again only after its pod was deleted).
    Rule(
        "newest interface",
        lambda each: -each.interface,
        lambda winner, loser: (
            f"{winner.device} (index {winner.interface}) is newer than {loser.device} (index {loser.interface})"
        ),
    ),
    # Only so that the answer does not depend on who came first.
    Rule(
        "origin",
        lambda each: (each.origin, each.rule),
        lambda winner, loser: f"{winner.origin} comes before {loser.origin} in the alphabet",
    ),
)
"""Read from top to bottom until one candidate is left."""


class Lost(NamedTuple):
    """A candidate that was not chosen.

    Attributes:
        rule: the name of the rule that it lost by.
        reason: what decided, as `it cannot be installed: cali1 is down`.
    """

    candidate: Candidate
    rule: str
    reason: str


Winners = dict[RouteKey, Candidate]
Losers = dict[RouteKey, tuple[Lost, ...]]


def by_key(wanted: Iterable[tuple[RouteKey, Candidate]]) -> dict[RouteKey, list[Candidate]]:
    """Return the candidates for each key."""
    groups: dict[RouteKey, list[Candidate]] = {}
    for key, candidate in wanted:
        groups.setdefault(key, []).append(candidate)
    return groups


def decide(group: Iterable[Candidate]) -> tuple[Candidate, tuple[Lost, ...]]:
    """Choose one of the candidates for one key, of which there is at least one."""
    left: Sequence[Candidate] = sorted(group, key=RULES[-1].rank)
    lost: list[Lost] = []
    for rule in RULES:
        left, beaten = _apply(rule, left)
        lost[:0] = beaten
    # Still left besides the winner is only what equals it word for word.
    return left[0], tuple(lost)


def _apply(rule: Rule, candidates: Sequence[Candidate]) -> tuple[Sequence[Candidate], Sequence[Lost]]:
    """Split candidates into those that stay and those that lose by a rule."""
    best: dict[Any, Candidate] = {}
    for each in candidates:
        leader = best.setdefault(rule.among(each), each)
        if rule.rank(each) < rule.rank(leader):
            best[rule.among(each)] = each
    stay, lost = [], []
    for each in candidates:
        leader = best[rule.among(each)]
        if rule.rank(each) == rule.rank(leader):
            stay.append(each)
        else:
            lost.append(Lost(each, rule.name, rule.say(leader, each)))
    return stay, sorted(lost, key=lambda each: rule.rank(each.candidate))
