"""BGP filters, in Calico's shape: ordered rules that accept, reject or change what a peer tells, or what it is told.

The first rule that matches decides, over all filters of a peer in their order; what no rule matches is left to the
policy around them. What a rule asks of attributes is looked at once for all paths that share them (`narrowed`), so that
a path costs no more than a comparison of numbers for each rule that is left.

Priorities are Calico's: of routes to one prefix that with the lowest counts, and 1024 is normal. On the wire they are
local preferences, where the highest counts: see `local_preference`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple, TypeAlias, assert_never

from bgp import communities
from bgp.communities import Community
from bgp.decision import DEFAULT_LOCAL_PREFERENCE
from bgp.prefix_table import BITS, Version
from bgp.types import Attributes, IPNetwork, Path

Direction: TypeAlias = Literal["import", "export"]
PeerType: TypeAlias = Literal["eBGP", "iBGP"]

NORMAL_PRIORITY = 1024
"""Of a route that nobody gave one; the default of Calico's ipv4NormalRoutePriority."""

HIGHEST_LOCAL_PREFERENCE = 2147483647
"""What Calico subtracts a priority from to get the local preference that it sends."""

MOST_OPERATIONS = 10
"""In one rule; Calico's limit."""

NO_RULE = "no rule matches"


class Action(StrEnum):
    """What a rule does with a route that it matches."""

    ACCEPT = "Accept"
    REJECT = "Reject"


class Operator(StrEnum):
    """How a prefix is compared with the CIDR of a rule; the negations are of the length too."""

    EQUAL = "Equal"
    NOT_EQUAL = "NotEqual"
    IN = "In"
    NOT_IN = "NotIn"


@dataclass(frozen=True, slots=True)
class AddCommunity:
    """Tag the route."""

    community: Community

    def __str__(self) -> str:
        return f"community {communities.words(self.community)} added"


@dataclass(frozen=True, slots=True)
class PrependAsPath:
    """Make the AS path begin with these, in this order; our own AS still comes before them where it is told by eBGP."""

    numbers: tuple[int, ...]

    def __str__(self) -> str:
        return f"AS path prepended with {' '.join(map(str, self.numbers))}"


@dataclass(frozen=True, slots=True)
class SetPriority:
    """Give the route a priority: a local preference, and to an eBGP peer, whom none is told, a MED."""

    priority: int

    def __str__(self) -> str:
        return f"priority set to {self.priority}"


Operation: TypeAlias = AddCommunity | PrependAsPath | SetPriority


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: it matches a route for which everything holds that it asks for, and any if it asks for nothing.

    Attributes:
        cidr: compared with the prefix by `operator`; one is given with the other.
        prefix_length: shortest and longest that the prefix may be, None for no bound; only with `cidr`.
        source: only what peers told us, and not what is our own.
        interface: only routes that leave by it; `*` stands for any characters, `?` for one.
        communities: it must carry all of them.
        as_path_prefix: what its AS path must begin with, nearest AS first.
        priority: Calico's; see `local_preference`.
        operations: what is changed in a route that is accepted, in this order.
    """

    action: Action
    cidr: IPNetwork | None = None
    operator: Operator | None = None
    prefix_length: tuple[int | None, int | None] = (None, None)
    source: Literal["RemotePeers"] | None = None
    interface: str | None = None
    peer_type: PeerType | None = None
    communities: tuple[Community, ...] = ()
    as_path_prefix: tuple[int, ...] = ()
    priority: int | None = None
    operations: tuple[Operation, ...] = ()

    def __str__(self) -> str:
        """Return what it asks for, in words."""
        shortest, longest = self.prefix_length
        asked = (
            f"{self.operator} {self.cidr}" if self.cidr else "",
            f"at least /{shortest}" if shortest is not None else "",
            f"at most /{longest}" if longest is not None else "",
            "told by peers" if self.source else "",
            f"by interface {self.interface}" if self.interface else "",
            self.peer_type or "",
            *(f"community {communities.words(each)}" for each in self.communities),
            f"AS path {' '.join(map(str, self.as_path_prefix))} ..." if self.as_path_prefix else "",
            f"priority {self.priority}" if self.priority is not None else "",
        )
        return ", ".join(filter(None, asked)) or "everything"


@dataclass(frozen=True, slots=True)
class Filter:
    """A named list of rules for each direction and IP version.

    Attributes:
        exists: False stands for one that a peer names and nobody has written; it rejects everything, for what was
            meant to be kept out or in must not pass because of a name.
    """

    name: str
    import_v4: tuple[Rule, ...] = ()
    export_v4: tuple[Rule, ...] = ()
    import_v6: tuple[Rule, ...] = ()
    export_v6: tuple[Rule, ...] = ()
    exists: bool = True

    @property
    def asks_for_interface(self) -> bool:
        """Say whether a rule asks by which interface packets to the next hop leave."""
        lists = (self.import_v4, self.export_v4, self.import_v6, self.export_v6)
        return any(rule.interface is not None for rules in lists for rule in rules)

    def rules(self, direction: Direction, version: Version) -> Iterator[tuple[str, Rule]]:
        """Yield the rules of one list, each with the words that name it for people and hit counts."""
        if not self.exists:
            yield f"filter {self.name}: it does not exist", Rule(Action.REJECT)
            return
        lists = {
            ("import", 4): self.import_v4,
            ("export", 4): self.export_v4,
            ("import", 6): self.import_v6,
            ("export", 6): self.export_v6,
        }
        for number, rule in enumerate(lists[direction, version], 1):
            yield f"filter {self.name}, {direction}V{version} rule {number}: {rule}", rule


@dataclass(frozen=True, slots=True)
class Facts:
    """What a rule may ask that is neither in the prefix nor in the attributes.

    Attributes:
        learned: a peer told it; False for our own.
        interface: by which packets to its next hop leave; None where there is none, or nobody knows.
    """

    peer_type: PeerType
    learned: bool = True
    interface: str | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """What filters say to a route.

    Attributes:
        accepted: None where no rule matches.
        attributes: after the operations of the rule.
        rule: which one decided; the same words for as long as it is the same rule in the same place. Empty for none.
        operations: those of the rule.
    """

    accepted: bool | None
    attributes: Attributes
    rule: str = ""
    operations: tuple[Operation, ...] = ()

    @property
    def reason(self) -> str:
        """Return what was decided, by which rule, and what was changed, in words."""
        if self.accepted is None:
            return NO_RULE
        verdict = "accepted" if self.accepted else "rejected"
        return "; ".join((f"{verdict} by {self.rule}", *map(str, self.operations)))


class Term(NamedTuple):
    """A rule, and what it asks of a prefix in numbers.

    Attributes:
        words: which rule of which filter it is, and what it asks for.
        network: the number of the CIDR; 0 with a mask of 0 where any prefix matches.
        inverted: it matches what the other fields do not.
    """

    words: str
    rule: Rule
    network: int
    mask: int
    shortest: int
    longest: int
    inverted: bool

    def matches(self, number: int, length: int) -> bool:
        """Answer for one prefix."""
        return (self.shortest <= length <= self.longest and number & self.mask == self.network) is not self.inverted


def decide(filters: Iterable[Filter], direction: Direction, path: Path, facts: Facts) -> Judged:
    """Return what the filters say to one path.

    Whoever asks for many keeps what `terms` and `narrowed` return, as the policies do.
    """
    number, length = int(path.prefix.network_address), path.prefix.prefixlen
    for term in narrowed(terms(filters, direction, path.prefix.version), path.attributes, facts):
        if term.matches(number, length):
            return judged(term, path.attributes, to_ebgp=direction == "export" and facts.peer_type == "eBGP")
    return Judged(None, path.attributes)


def terms(filters: Iterable[Filter], direction: Direction, version: Version) -> tuple[Term, ...]:
    """Return all rules for one direction and IP version, in order."""
    return tuple(_term(words, rule, version) for each in filters for words, rule in each.rules(direction, version))


def narrowed(rules: tuple[Term, ...], attributes: Attributes, facts: Facts) -> tuple[Term, ...]:
    """Return those rules that can match a path with these attributes, whatever its prefix."""
    return tuple(term for term in rules if _may_match(term.rule, attributes, facts))


def judged(term: Term, attributes: Attributes, *, to_ebgp: bool) -> Judged:
    """Return what a rule makes of a path that it matches, and that may be about to be told to an eBGP peer."""
    for operation in term.rule.operations:
        attributes = _changed(attributes, operation, to_ebgp=to_ebgp)
    return Judged(term.rule.action is Action.ACCEPT, attributes, term.words, term.rule.operations)


def hits(filters: Iterable[Filter], counted: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Yield every rule of the filters with how often it decided, those that never did too."""
    for each in filters:
        for version in BITS:
            for direction in ("import", "export"):
                for words, _ in each.rules(direction, version):
                    yield words, counted.get(words, 0)


def local_preference(priority: int) -> int:
    """Return the local preference that stands for one of Calico's priorities.

    More urgent than normal is what Calico sends for it, 2147483647 - priority. Normal is the default local preference,
    which every other router takes for granted. Less urgent has to be below that, and only 100 values are left there:
    priorities above 1024 keep their order, and some that are close fall together.
    """
    if priority < NORMAL_PRIORITY:
        return HIGHEST_LOCAL_PREFERENCE - priority
    return DEFAULT_LOCAL_PREFERENCE * NORMAL_PRIORITY // priority


def _may_match(rule: Rule, attributes: Attributes, facts: Facts) -> bool:
    """Say whether everything holds that a rule asks for, the prefix aside."""
    return (
        (rule.source is None or facts.learned)
        and (rule.peer_type is None or rule.peer_type == facts.peer_type)
        and (rule.interface is None or (facts.interface is not None and fnmatchcase(facts.interface, rule.interface)))
        and all(communities.carries(attributes, each) for each in rule.communities)
        and attributes.as_path[: len(rule.as_path_prefix)] == rule.as_path_prefix
        and (rule.priority is None or _has_priority(attributes, rule.priority))
    )


def _has_priority(attributes: Attributes, priority: int) -> bool:
    given = attributes.local_preference
    # Calico's own nodes send 2147483647 - priority for every priority.
    return (DEFAULT_LOCAL_PREFERENCE if given is None else given) in (
        local_preference(priority),
        HIGHEST_LOCAL_PREFERENCE - priority,
    )


def _changed(attributes: Attributes, operation: Operation, *, to_ebgp: bool) -> Attributes:
    match operation:
        case AddCommunity(community):
            return communities.tagged(attributes, (community,))
        case PrependAsPath(numbers):
            return replace(attributes, as_path=numbers + attributes.as_path)
        case SetPriority(priority) if to_ebgp:
            return replace(attributes, med=priority)
        case SetPriority(priority):
            return replace(attributes, local_preference=local_preference(priority))
        case _:
            assert_never(operation)


def _term(words: str, rule: Rule, version: Version) -> Term:
    bits = BITS[version]
    if rule.cidr is None:
        return Term(words, rule, network=0, mask=0, shortest=0, longest=bits, inverted=False)
    shortest, longest = rule.prefix_length
    least = max(rule.cidr.prefixlen, shortest or 0)
    most = bits if longest is None else longest
    if rule.operator in (Operator.EQUAL, Operator.NOT_EQUAL):
        most = min(most, rule.cidr.prefixlen)
    inverted = rule.operator in (Operator.NOT_EQUAL, Operator.NOT_IN)
    return Term(words, rule, int(rule.cidr.network_address), int(rule.cidr.netmask), least, most, inverted=inverted)
