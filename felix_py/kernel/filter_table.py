"""Our nftables table as a value: the rules as `nft` prints them, the sets beside; and what turns one into another."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Network, ip_network

NAME = "inet felix"
"""Family and name of the only table of ours: one for IPv4 and IPv6 together."""

ELEMENTS = re.compile(r"\n\t\telements = \{ (.*?) \}", re.DOTALL)
SET = re.compile(r"\n\tset (\S+) \{(.*?)\n\t\}", re.DOTALL)
"""What `nft` makes of the sets of a table."""

OF_PODS = "\tchain from-pod {"
"""In the rules of a table that guards pods."""

WORDS_SHOWN = 3
"""Elements of one set that a plan names; of more it tells the number."""


@dataclass(frozen=True, slots=True)
class FilterTable:
    """What the table holds, or should hold.

    Attributes:
        rules: the whole table as `nft --stateless list table inet felix` prints it, but for the elements of its sets.
        elements: of each set, each as `nft` writes it; sets without elements are left out.
    """

    rules: str
    elements: Mapping[str, frozenset[str]] = field(default_factory=dict)


def parse(listing: str) -> FilterTable:
    """Make a value of what `nft --stateless --numeric-protocol list table inet felix` printed."""
    elements = {}
    for name, body in SET.findall(listing):
        found = ELEMENTS.search("\n" + body)
        if found is not None:
            elements[name] = frozenset(_spelt(word) for word in found[1].split(","))
    return FilterTable(ELEMENTS.sub("", listing), elements)


def _spelt(element: str) -> str:
    """Write an element as we do: the C library and Python differ about some IPv6 addresses."""
    words = element.split()
    return " ".join(_address(word) if ":" in word and '"' not in word else word for word in words)


def _address(word: str) -> str:
    network = ip_network(word)
    whole = isinstance(network, IPv6Network) and network.prefixlen == network.max_prefixlen
    return str(network.network_address) if whole else str(network)


def commands(want: FilterTable | None, have: FilterTable | None) -> str:
    """Return what makes one of the other: one transaction, of which packets see all or nothing.

    Other rules mean a new table, whose counters start from zero; other elements change sets in place.
    """
    if want is None:
        return f"delete table {NAME}\n" if have is not None else ""
    if have is not None and have.rules == want.rules:
        return "".join(_changes(want, have))
    # `add` first: `delete` of a table that is not there would refuse everything.
    return f"add table {NAME}\ndelete table {NAME}\n{want.rules}\n" + "".join(_changes(want, FilterTable("")))


def _changes(want: FilterTable, have: FilterTable) -> Iterator[str]:
    for verb, first, second in (("delete", have, want), ("add", want, have)):
        for name, elements in first.elements.items():
            changed = elements - second.elements.get(name, frozenset())
            if changed:
                yield f"{verb} element {NAME} {name} {{ {', '.join(sorted(changed))} }}\n"


def difference(want: FilterTable, have: FilterTable | None) -> str:
    """Say in one line what has to change: rules, and elements of sets."""
    if have is None:
        return "the table is not there"
    parts = [] if have.rules == want.rules else ["the rules differ"]
    for sign, first, second in (("without", have, want), ("with", want, have)):
        for name, elements in first.elements.items():
            changed = sorted(elements - second.elements.get(name, frozenset()))
            if changed:
                more = f" and {len(changed) - WORDS_SHOWN} more" if len(changed) > WORDS_SHOWN else ""
                parts.append(f"{name} {sign} {', '.join(changed[:WORDS_SHOWN])}{more}")
    return "; ".join(parts) or "nothing"
