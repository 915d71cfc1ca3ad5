"""Best path selection (RFC 4271 section 9.1) as a table of named rules; every loser is told which rule it lost by."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Protocol

from bgp.types import AsHop, Attributes, IPAddress

DEFAULT_LOCAL_PREFERENCE = 100
"""For paths that carry none, which is all of eBGP; the value that every implementation uses."""

ONLY_PATH = "only path"


class Contender(Protocol):
    """What is compared of a path; the prefix is not, so one choice holds for all prefixes with the same contenders."""

    @property
    def peer(self) -> IPAddress:
        """Who told it."""

    @property
    def attributes(self) -> Attributes:
        """What it says of itself."""

    @property
    def external(self) -> bool:
        """Whether it was heard over eBGP."""

    @property
    def router_id(self) -> IPv4Address:
        """The BGP identifier of the peer."""

    @property
    def stale(self) -> bool:
        """Whether its session is gone."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One step of the selection: of the paths that are left, those with the lowest `rank` stay.

    Attributes:
        rank: lower is better.
        say: what was compared, in words.
        among: paths are only compared with those of the same group.
    """

    name: str
    rank: Callable[[Contender], Any]
    say: Callable[[Contender], str]
    among: Callable[[Contender], Any] = lambda _: None


def local_preference(path: Contender) -> int:
    """Return the degree of preference (RFC 4271 section 9.1.1)."""
    given = path.attributes.local_preference
    return DEFAULT_LOCAL_PREFERENCE if given is None else given


def neighbouring_as(path: Contender) -> AsHop | None:
    """Return the AS that gave the path to ours; None for one that began in our own."""
    return path.attributes.as_path[0] if path.attributes.as_path else None


def _identifier(path: Contender) -> int:
    # RFC 4456 section 9: a reflected path counts as heard from the router that brought it in.
    return int(path.attributes.originator_id or path.router_id)


MERITS: tuple[Rule, ...] = (
    Rule("local preference", lambda path: -local_preference(path), lambda path: str(local_preference(path))),
    Rule(
        "AS path length",
        lambda path: len(path.attributes.as_path),
        lambda path: str(len(path.attributes.as_path)),
    ),
    Rule("origin", lambda path: path.attributes.origin, lambda path: path.attributes.origin.name),
    # RFC 4271 section 9.1.2.2 c: MED ranks only paths from one neighbouring AS. Removing the worse ones from the whole
    # set, as the RFC words it, and not comparing pairs, is what makes the result independent of the order.
    Rule("MED", lambda path: path.attributes.med or 0, lambda path: str(path.attributes.med or 0), neighbouring_as),
    Rule("eBGP over iBGP", lambda path: not path.external, lambda path: "eBGP" if path.external else "iBGP"),
    # The interior cost (e) is left out: next hops of nodes are a hop away, whatever the underlay does.
)
"""What makes one path better than another. Paths that are left after these are equal: flows may be spread over them."""

TIE_BREAKS: tuple[Rule, ...] = (
    # A stale path is as good as a fresh one (RFC 4724 section 4.2), so it steps aside only where nothing else differs.
    Rule("fresh over stale", lambda path: path.stale, lambda path: "stale" if path.stale else "fresh"),
    Rule("router ID", _identifier, lambda path: str(path.attributes.originator_id or path.router_id)),
    Rule(
        "cluster list length",  # RFC 4456 section 9
        lambda path: len(path.attributes.cluster_list),
        lambda path: str(len(path.attributes.cluster_list)),
    ),
    Rule("peer address", lambda path: (path.peer.version, int(path.peer)), lambda path: str(path.peer)),
)
"""What chooses one of equal paths."""

RULES = MERITS + TIE_BREAKS
"""Read from top to bottom until one path is left."""

MOST_PATHS = 16
"""Paths over which the flows to one prefix are spread; as many as Junos takes by default (maximum-ecmp)."""


@dataclass(frozen=True, slots=True)
class Beaten:
    """A path that was not chosen.

    Attributes:
        rule: the name of the rule that it lost by.
        reason: what was compared, as `AS path length: 1 is better than 2`.
        to: the path that it was compared with there.
    """

    path: Contender
    rule: str
    reason: str
    to: Contender


@dataclass(frozen=True, slots=True)
class BestPath:
    """The path of the Loc-RIB for a prefix.

    Attributes:
        rule: the rule that beat the last competitor; "only path" where there was none.
        reason: the same with the values that were compared.
        beaten: all other candidates, the closest first.
        equal: those of the beaten that are as good by every rule of merit, are fresh, and have next hops of their own,
            the closest first; with `path` they are at most `MOST_PATHS`. All of them are external, or none is.
    """

    path: Contender
    rule: str = ONLY_PATH
    reason: str = ONLY_PATH
    beaten: tuple[Beaten, ...] = ()
    equal: tuple[Contender, ...] = ()


def best(candidates: Iterable[Contender]) -> BestPath | None:
    """Return the best of the paths to one prefix, with what decided against each other one; None of none.

    The order of the candidates does not matter. Of two paths from one peer the last counts, as in BGP itself.
    """
    left: Sequence[Contender] = tuple({path.peer: path for path in candidates}.values())
    beaten: list[Beaten] = []
    for rule in RULES:
        if len(left) > 1:
            left, lost = _apply(rule, left)
            beaten[:0] = lost
    if not left:
        return None
    if not beaten:
        return BestPath(left[0])
    return BestPath(left[0], beaten[0].rule, beaten[0].reason, tuple(beaten), _equal(left[0], beaten))


def _equal(chosen: Contender, beaten: Iterable[Beaten]) -> tuple[Contender, ...]:
    """Return the beaten paths that flows may be spread over besides the chosen one."""
    names = {rule.name for rule in TIE_BREAKS}
    by_next_hop: dict[IPAddress | None, Contender] = {}
    for each in beaten:
        if each.rule in names and not each.path.stale:
            by_next_hop.setdefault(each.path.attributes.next_hop, each.path)
    own = by_next_hop.keys() - {None, chosen.attributes.next_hop}
    return tuple(path for next_hop, path in by_next_hop.items() if next_hop in own)[: MOST_PATHS - 1]


def prefer(one: Contender, other: Contender) -> tuple[Contender, str]:
    """Return the better of two paths, and why."""
    chosen = best((one, other))
    assert chosen is not None  # noqa: S101 - there were two
    return chosen.path, chosen.reason


def _apply(rule: Rule, paths: Sequence[Contender]) -> tuple[Sequence[Contender], Sequence[Beaten]]:
    """Split paths into those that stay and those that lose by a rule."""
    lowest: dict[Any, Contender] = {}
    for path in paths:
        group = rule.among(path)
        # Of equals, the one that is named to losers must not depend on the order either.
        if group not in lowest or (rule.rank(path), _address(path)) < (
            rule.rank(lowest[group]),
            _address(lowest[group]),
        ):
            lowest[group] = path
    stay, lost = [], []
    for path in paths:
        winner = lowest[rule.among(path)]
        if rule.rank(path) == rule.rank(winner):
            stay.append(path)
        else:
            reason = f"{rule.name}: {rule.say(winner)} is better than {rule.say(path)}"
            lost.append(Beaten(path, rule.name, reason, winner))
    return stay, sorted(lost, key=lambda each: (rule.rank(each.path), _address(each.path)))


def _address(path: Contender) -> tuple[int, int]:
    return path.peer.version, int(path.peer)
