"""Attributes of a path as ExaBGP's text, whole: what is not said is filled in by ExaBGP as it likes."""

from collections.abc import Callable, Iterable
from itertools import groupby

from bgp import communities
from bgp.communities import Community
from bgp.types import AsHop, Attributes


def text(attributes: Attributes) -> str:
    """Return all attributes but the next hop."""
    said = ((name, value(attributes)) for name, value in WORDS)
    unrecognized = (
        f"attribute [ 0x{code:02x} 0x{flags:02x} 0x{value.hex()} ]" for flags, code, value in attributes.unrecognized
    )
    return " ".join((*(f"{name} {value}".rstrip() for name, value in said if value is not None), *unrecognized))


def as_path(hops: tuple[AsHop, ...]) -> str:
    """Return an AS path: sequences in square brackets, sets in round ones."""
    words: list[str] = []
    for is_sequence, run in groupby(hops, key=lambda hop: isinstance(hop, int)):
        if is_sequence:
            words.append(f"[ {' '.join(map(str, run))} ]")
        else:
            words += [f"( {' '.join(map(str, sorted(hop)))} )" for hop in run if not isinstance(hop, int)]
    return " ".join(words)


def _list(values: Iterable[str]) -> str | None:
    text = " ".join(values)
    return f"[ {text} ]" if text else None


def _communities(values: Iterable[Community]) -> str | None:
    return _list(map(communities.words, values))


def _number(value: int | None) -> str | None:
    return None if value is None else str(value)


def _aggregator(attributes: Attributes) -> str | None:
    return "({}:{})".format(*attributes.aggregator) if attributes.aggregator else None


WORDS: tuple[tuple[str, Callable[[Attributes], str | None]], ...] = (
    ("origin", lambda each: each.origin.name.lower()),
    ("as-path", lambda each: as_path(each.as_path) or None),
    ("med", lambda each: _number(each.med)),
    ("local-preference", lambda each: _number(each.local_preference)),
    ("atomic-aggregate", lambda each: "" if each.atomic_aggregate else None),
    ("aggregator", _aggregator),
    ("community", lambda each: _communities(each.communities)),
    ("large-community", lambda each: _communities(each.large_communities)),
    ("extended-community", lambda each: _list(f"0x{octets.hex()}" for octets in each.extended_communities)),
    ("originator-id", lambda each: str(each.originator_id) if each.originator_id else None),
    ("cluster-list", lambda each: _list(map(str, each.cluster_list))),
)
"""ExaBGP's word for each attribute, and its value in ExaBGP's text; None where the path does not have it."""
