"""Reads the fields of one document: each is parsed into a real type, and every fault is gathered with its path."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_network
from pathlib import PurePosixPath
from typing import Any

from felix_py import selectors
from felix_py.model import Fault, IPNetwork
from felix_py.selectors import Selector

MAXIMUM_AS = 4294967295
"""RFC 6793: AS numbers have four octets."""

AS_NUMBER = f"an AS number from 1 to {MAXIMUM_AS}"
TRUTH = "true or false"


class Explained(ValueError):  # noqa: N818 - named for what it adds: the reason stands in the message
    """A value that cannot be used, with a reason that says more than what is expected."""


@dataclass(slots=True)
class Reader:
    """Reads the fields of one document, gathering every fault instead of stopping at the first.

    Attributes:
        labels: those of the document's metadata.
    """

    where: str
    faults: list[Fault] = field(default_factory=list)
    labels: Mapping[str, str] = field(default_factory=dict)

    def fault(self, path: str, message: str) -> None:
        """Note that the value at `path` cannot be used."""
        self.faults.append(Fault(self.where, path, message))

    def mapping(self, document: Mapping[str, Any], name: str, path: str, *, required: bool = True) -> Mapping[str, Any]:
        """Return a nested mapping, empty where there is none."""
        value = document.get(name)
        if value is None:
            if required:
                self.fault(path, "is missing")
            return {}
        if not isinstance(value, Mapping):
            self.fault(path, f"must be a mapping, not {value!r}")
            return {}
        return value

    def each(self, document: Mapping[str, Any], name: str, path: str, expected: str) -> Iterator[tuple[str, Any]]:
        """Yield the items of a list, each with its path."""
        value = document.get(name)
        if value is None:
            return
        if not isinstance(value, list):
            self.fault(f"{path}.{name}", f"is {value!r}; give {expected}")
            return
        for position, item in enumerate(value):
            yield f"{path}.{name}[{position}]", item

    def mappings(
        self, document: Mapping[str, Any], name: str, path: str, expected: str
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the items of a list that are mappings, each with its path; the others are noted and left out."""
        for where, item in self.each(document, name, path, expected):
            if isinstance(item, Mapping):
                yield where, item
            else:
                self.fault(where, f"must be a mapping, not {item!r}")

    def items(
        self,
        document: Mapping[str, Any],
        name: str,
        path: str,
        parse: Callable[[Any], Any],
        expected: str,
    ) -> tuple[Any, ...]:
        """Return the parsed items of a list; those that cannot be used are noted and left out."""
        parsed = (
            self.parsed(item, where, parse, expected)
            for where, item in self.each(document, name, path, f"a list, each item {expected}")
        )
        return tuple(item for item in parsed if item is not None)

    def known(self, document: Mapping[str, Any], path: str, supported: set[str]) -> None:
        """Refuse by name each field that is not supported."""
        for name in document:
            if name not in supported:
                listed = ", ".join(sorted(supported))
                self.fault(f"{path}.{name}", f"is not supported; remove it (supported here: {listed})")

    def value(
        self,
        document: Mapping[str, Any],
        name: str,
        path: str,
        parse: Callable[[Any], Any],
        expected: str,
        default: Any = ...,
    ) -> Any:
        """Return the parsed field; on a fault note it and return None."""
        raw = document.get(name)
        if raw is None:
            if default is ...:
                self.fault(f"{path}.{name}", f"is missing; give {expected}")
                return None
            return default
        return self.parsed(raw, f"{path}.{name}", parse, expected)

    def parsed(self, raw: object, path: str, parse: Callable[[Any], Any], expected: str) -> Any:
        """Return the parsed value; on a fault note it and return None."""
        try:
            return parse(raw)
        except Explained as reason:
            self.fault(path, f"is {raw!r}: {reason}")
        except (ValueError, TypeError):
            self.fault(path, f"is {raw!r}; give {expected}")
        return None


# --- parsers: the value, or ValueError or TypeError


def text(raw: object) -> str:
    """Return a text that is not empty."""
    if not isinstance(raw, str) or not raw:
        raise ValueError
    return raw


def boolean(raw: object) -> bool:
    """Return true or false, as YAML writes them."""
    if not isinstance(raw, bool):
        raise TypeError
    return raw


def within(low: int, high: int) -> Callable[[Any], int]:
    """Return a parser of whole numbers between two, both included."""

    def parse(raw: Any) -> int:
        number = int(raw)
        if isinstance(raw, bool | float) or not low <= number <= high:
            raise ValueError
        return number

    return parse


def one_of(*choices: str) -> Callable[[Any], str]:
    """Return a parser of these words."""

    def parse(raw: Any) -> str:
        if raw not in choices:
            raise ValueError
        return str(raw)

    return parse


def network(raw: object) -> IPNetwork:
    """Return a network of either version of IP, without host bits."""
    return ip_network(text(raw))


def ipv4_address(raw: object) -> IPv4Address:
    """Return an IPv4 address."""
    return IPv4Address(text(raw))


def ipv6_address(raw: object) -> IPv6Address:
    """Return an IPv6 address."""
    return IPv6Address(text(raw))


def ipv4_interface(raw: object) -> IPv4Interface:
    """Return an IPv4 address with its mask."""
    return IPv4Interface(_with_mask(raw))


def ipv6_interface(raw: object) -> IPv6Interface:
    """Return an IPv6 address with its mask."""
    return IPv6Interface(_with_mask(raw))


def _with_mask(raw: object) -> str:
    if "/" not in text(raw):
        raise ValueError
    return text(raw)


def as_number(raw: Any) -> int:
    """Return 64512, or RFC 5396's dotted form 0.64512."""
    if isinstance(raw, str) and raw.count(".") == 1:
        high, low = (within(0, 65535)(part) for part in raw.split("."))
        return within(1, MAXIMUM_AS)((high << 16) + low)
    return within(1, MAXIMUM_AS)(raw)


def selector(raw: object) -> Selector:
    """Return a label selector."""
    try:
        return selectors.parse(text(raw))
    except selectors.SelectorError as error:
        raise Explained(str(error)) from error


def absolute_path(raw: object) -> str:
    """Return a path from the root, without `..`."""
    path = PurePosixPath(text(raw))
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError
    return str(path)


HARDWARE = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)
GROUP = 1
"""The bit of the first byte that marks the address of many interfaces (IEEE 802)."""


def mac(raw: object) -> str:
    """Return the hardware address of one Ethernet interface, in lower case."""
    written = text(raw).lower().replace("-", ":")
    if not HARDWARE.fullmatch(written) or int(written[:2], 16) & GROUP or not written.strip("0:"):
        raise ValueError
    return written


UNITS = {"h": Fraction(3600), "m": Fraction(60), "s": Fraction(1), "ms": Fraction(1, 1000)}
"""Seconds in each unit of Go's durations that somebody may mean here."""

PIECE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|h|m|s)", re.ASCII)


def seconds(low: int, high: int) -> Callable[[Any], int]:
    """Return a parser of durations, as `90s` or `1m30s`, of whole seconds between two; a number is seconds, too."""

    def parse(raw: Any) -> int:
        if not isinstance(raw, str) or raw.isdigit():
            return within(low, high)(raw)
        pieces = PIECE.findall(raw)
        if "".join(number + unit for number, unit in pieces) != raw or not pieces:
            raise ValueError
        total = sum((Fraction(number) * UNITS[unit] for number, unit in pieces), Fraction(0))
        if total.denominator != 1:
            raise ValueError
        return within(low, high)(int(total))

    return parse
