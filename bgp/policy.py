"""Import policy: a table of checks, each with the reason that it gives for refusing a path.

There is no export policy to speak of: the speaker announces what it is told to announce, and passes nothing on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network

from bgp.types import AsHop, Path

DEFAULT_ROUTE = IPv4Network("0.0.0.0/0")

MARTIANS = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network, RFC 791
            "127.0.0.0/8",  # loopback, RFC 1122
            "169.254.0.0/16",  # link local, RFC 3927; every pod's gateway lies here
            "224.0.0.0/4",  # multicast, RFC 5771
            "240.0.0.0/4",  # reserved, RFC 1112
        ),
    )
)
"""Prefixes that no unicast route may lead to."""


class Reason(StrEnum):
    """Why a path is refused."""

    OWN_AS = "own AS in the AS path"
    OWN_ORIGINATOR = "we are its originator"
    OWN_CLUSTER = "our cluster ID is in its cluster list"
    NO_NEXT_HOP = "no usable next hop"
    OWN_NEXT_HOP = "we are its next hop"
    DEFAULT_ROUTE = "default route"
    MARTIAN = "martian prefix"
    OUTSIDE = "outside every IP pool"
    OWN_BLOCK = "inside our own block"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A path that was refused, why, and what in it gave the reason."""

    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else str(self.reason)


@dataclass(frozen=True, slots=True)
class ImportPolicy:
    """What a node needs to know in order to judge what peers tell it.

    Attributes:
        accept_within: prefixes must lie inside one of these.
        own: what we announce ourselves.
    """

    asn: int
    router_id: IPv4Address
    local_address: IPv4Address
    accept_within: tuple[IPv4Network, ...]
    own: frozenset[IPv4Network]

    def refusal(self, path: Path) -> Refusal | None:
        """Return the first objection of the table; None where there is none."""
        for check in IMPORT:
            detail = check.objection(self, path)
            if detail is not None:
                return Refusal(check.reason, detail)
        return None


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table: a reason, and what finds it; the finding is the detail, None for no objection."""

    reason: Reason
    objection: Callable[[ImportPolicy, Path], str | None]


def _own_as(policy: ImportPolicy, path: Path) -> str | None:
    hops = path.attributes.as_path
    return as_path_text(hops) if any(_contains(hop, policy.asn) for hop in hops) else None


def _own_originator(policy: ImportPolicy, path: Path) -> str | None:
    originator = path.attributes.originator_id
    return str(originator) if originator == policy.router_id else None


def _own_cluster(policy: ImportPolicy, path: Path) -> str | None:
    clusters = path.attributes.cluster_list
    return " ".join(map(str, clusters)) if policy.router_id in clusters else None


def _no_next_hop(_: ImportPolicy, path: Path) -> str | None:
    next_hop = path.attributes.next_hop
    if not isinstance(next_hop, IPv4Address):
        return str(next_hop or "")
    return str(next_hop) if any(next_hop in martian for martian in MARTIANS) else None


def _own_next_hop(policy: ImportPolicy, path: Path) -> str | None:
    return str(policy.local_address) if path.attributes.next_hop == policy.local_address else None


def _default_route(_: ImportPolicy, path: Path) -> str | None:
    return "" if path.prefix == DEFAULT_ROUTE else None


def _martian(_: ImportPolicy, path: Path) -> str | None:
    return next((str(martian) for martian in MARTIANS if path.prefix.overlaps(martian)), None)


def _outside(policy: ImportPolicy, path: Path) -> str | None:
    if any(path.prefix.subnet_of(network) for network in policy.accept_within):
        return None
    return ", ".join(map(str, policy.accept_within)) or "there is none"


def _own_block(policy: ImportPolicy, path: Path) -> str | None:
    return next((str(block) for block in policy.own if path.prefix.subnet_of(block)), None)


IMPORT: tuple[Check, ...] = (
    # Loops first: RFC 4271 section 9.1.2, RFC 4456 section 8.
    Check(Reason.OWN_AS, _own_as),
    Check(Reason.OWN_ORIGINATOR, _own_originator),
    Check(Reason.OWN_CLUSTER, _own_cluster),
    # RFC 4271 section 6.3: a next hop must be a host address, and not the receiver's own.
    Check(Reason.NO_NEXT_HOP, _no_next_hop),
    Check(Reason.OWN_NEXT_HOP, _own_next_hop),
    Check(Reason.DEFAULT_ROUTE, _default_route),
    Check(Reason.MARTIAN, _martian),
    Check(Reason.OUTSIDE, _outside),
    Check(Reason.OWN_BLOCK, _own_block),
)
"""Read from top to bottom; the first that objects decides."""


def as_path_text(hops: tuple[AsHop, ...]) -> str:
    """Return an AS path as routers print it: `64500 64512 {65001,65002}`."""
    return " ".join(
        str(hop) if isinstance(hop, int) else "{" + ",".join(str(number) for number in sorted(hop)) + "}"
        for hop in hops
    )


def _contains(hop: AsHop, asn: int) -> bool:
    return hop == asn if isinstance(hop, int) else asn in hop
