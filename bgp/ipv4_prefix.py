"""IPv4 prefixes as numbers: each is the `IPv4Network` that it says, and C compares, sorts and hashes it.

A table of 100,000 prefixes goes through a dozen dicts and sets on its way to the kernel, and what `ipaddress` does in
Python at each of them took most of the time. What many prefixes share is worked out here for all of them at once.
"""

import struct
import sys
from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from itertools import chain, repeat
from operator import add, floordiv, mul
from typing import Self

BITS = 32
"""Of an address."""

MASKS = tuple(IPv4Network((0, length)).netmask for length in range(BITS + 1))
"""Netmasks by their length."""

# Every `IPv4Network` hashes its address XOR its mask, and an int its remainder by this modulus. So the number of a
# prefix is a multiple of the modulus, by which prefixes are told apart and sorted, plus what its hash has to be.
_STRIDE = sys.hash_info.modulus * (1 + (1 << BITS) // sys.hash_info.modulus)

# That multiple in octets, most significant first: a one, so that no number is 0, which is false; address; length.
_PLACE = struct.Struct(">3x4sx")
_ONE = 1 << 40
_PER_ADDRESS = _STRIDE * 256 - 1
_PER_LENGTH = tuple(_STRIDE * (_ONE + length) + int(mask) for length, mask in enumerate(MASKS))


class IPv4Prefix(int, IPv4Network):
    """A prefix that is a number as well, in the order and with the hash of any other `IPv4Network` of the same."""

    def __new__(cls, address: object, strict: bool = True) -> Self:  # noqa: FBT001, FBT002 - as IPv4Network has it
        """Take what `IPv4Network` takes; `from_numbers` makes many at once."""
        plain = address if isinstance(address, IPv4Network) else IPv4Network(address, strict)
        return int.__new__(cls, number(int(plain.network_address), plain.prefixlen))

    def __init__(self, address: object, strict: bool = True) -> None:  # noqa: FBT001, FBT002 - same
        """Do nothing: the number is all that there is."""

    @property
    def _place(self) -> int:
        return self // _STRIDE - _ONE

    @property
    def network_address(self) -> IPv4Address:  # type: ignore[override]  # IPv4Network keeps these
        """The lowest address."""
        return IPv4Address(self._place >> 8)

    @property
    def netmask(self) -> IPv4Address:  # type: ignore[override]
        """Ones where the prefix says something."""
        return MASKS[self._prefixlen]

    @property
    def _prefixlen(self) -> int:
        return self._place & 0xFF

    def hosts(self) -> Iterator[IPv4Address]:
        """Iterate over the addresses that hosts may have; IPv4Network knows which those of a /31 are."""
        return IPv4Network(str(self)).hosts()

    def subnets(self, prefixlen_diff: int = 1, new_prefix: int | None = None) -> Iterator[IPv4Network]:  # type: ignore[override]
        """Iterate over the subnets of some length."""
        return IPv4Network(str(self)).subnets(prefixlen_diff, new_prefix)

    def __repr__(self) -> str:
        return f"IPv4Network({str(self)!r})"

    def __format__(self, form: str) -> str:
        # Whoever asks for the form of a number has been told that this is one.
        return format(int(self), form) if form.endswith("d") else object.__format__(self, form)

    def __reduce__(self) -> tuple[type[IPv4Network], tuple[str]]:
        """Be an IPv4Network to whoever unpickles or copies it."""
        return IPv4Network, (str(self),)


def number(address: int, length: int) -> int:
    """Return what a prefix is as a number; no bit of the address behind the length may be set."""
    # The mask is all ones where the address may have any, so XOR is subtraction; with that, all of it is linear.
    return address * _PER_ADDRESS + _PER_LENGTH[length]


def from_numbers(addresses: Collection[int], length: int) -> list[IPv4Prefix]:
    """Return the prefixes of one length with these addresses, in which no bit behind the length is set."""
    return made_of(numbers(addresses, length))


def numbers(addresses: Collection[int], length: int) -> Iterator[int]:
    """Return `number` of each of many addresses, in a quarter of the time."""
    return map(add, map(mul, addresses, repeat(_PER_ADDRESS)), repeat(_PER_LENGTH[length]))


def made_of(several: Iterable[int]) -> list[IPv4Prefix]:
    """Return the prefixes that are these numbers."""
    return list(map(int.__new__, repeat(IPv4Prefix), several))


def taken_apart(prefixes: Collection[IPv4Prefix]) -> tuple[Iterator[bytes], bytes]:
    """Return the addresses of prefixes, as four bytes each, and their lengths, as one byte each."""
    places = struct.pack(f">{len(prefixes)}Q", *map(floordiv, prefixes, repeat(_STRIDE)))
    return chain.from_iterable(_PLACE.iter_unpack(places)), places[7::8]
