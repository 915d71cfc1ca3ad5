"""BGP communities: the tags of a path, standard (RFC 1997) and large (RFC 8092), and how people write them."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeAlias, TypeGuard

from bgp.types import Attributes

Standard: TypeAlias = tuple[int, int]
Large: TypeAlias = tuple[int, int, int]
Community: TypeAlias = Standard | Large
"""Two numbers of 16 bits, or three of 32."""

GRACEFUL_SHUTDOWN: Standard = (65535, 0)
"""Whoever tells the path is about to go; use another one if there is one (RFC 8326)."""

NO_EXPORT: Standard = (65535, 65281)
"""Not beyond this AS (RFC 1997)."""

NO_ADVERTISE: Standard = (65535, 65282)
"""Not to anybody (RFC 1997)."""

NO_EXPORT_SUBCONFED: Standard = (65535, 65283)
"""Not to any external peer, members of our own confederation included (RFC 1997)."""

NAMES: dict[Community, str] = {
    GRACEFUL_SHUTDOWN: "graceful-shutdown",
    NO_EXPORT: "no-export",
    NO_ADVERTISE: "no-advertise",
    NO_EXPORT_SUBCONFED: "no-export-subconfed",
}
"""Of the well-known ones (IANA's registry of well-known BGP communities)."""

_LARGEST = {2: 0xFFFF, 3: 0xFFFF_FFFF}
"""By how many numbers there are: how large each may be."""


def parse(text: str) -> Community:
    """Return the community that `64512:100` or `64512:100:7` means.

    Raises:
        ValueError: it is neither; the message says what would be.
    """
    parts = text.split(":")
    largest = _LARGEST.get(len(parts))
    if largest is None or not all(part.isascii() and part.isdigit() and int(part) <= largest for part in parts):
        raise ValueError(f"{text!r} is no community: write 64512:100 (16 bits each) or 64512:100:7 (32 bits each)")
    numbers = tuple(map(int, parts))
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == len(("aa", "nn", "mm")) else (numbers[0], numbers[1])


def words(community: Community) -> str:
    """Return a community as people write it."""
    return ":".join(map(str, community))


def is_large(community: Community) -> TypeGuard[Large]:
    """Say whether it is one of RFC 8092."""
    return len(community) == len(("aa", "nn", "mm"))


def carries(attributes: Attributes, community: Community) -> bool:
    """Say whether a path is tagged with it."""
    return community in attributes.communities or community in attributes.large_communities


def tagged(attributes: Attributes, communities: Iterable[Community]) -> Attributes:
    """Return the attributes with these communities besides those that they have, each once."""
    missing = [each for each in dict.fromkeys(communities) if not carries(attributes, each)]
    if not missing:
        return attributes
    return replace(
        attributes,
        communities=attributes.communities + tuple((each[0], each[1]) for each in missing if not is_large(each)),
        large_communities=attributes.large_communities + tuple(each for each in missing if is_large(each)),
    )
