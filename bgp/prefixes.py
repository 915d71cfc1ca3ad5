"""Prefixes read from their bytes; sessions say the same again and again, so that each is kept once.

A table of 100,000 is all about them. Its prefixes stand there length by length, and those of one length are read by one
step for all of them.
"""

import struct
from ipaddress import IPv6Network

from bgp.ipv4_prefix import IPv4Prefix, made_of, number, numbers
from bgp.types import Family, IPNetwork

KNOWN = 1 << 18
"""Prefixes of a family that are remembered; more are only slower."""

AT_ONCE = 512
"""Prefixes that are looked at to find those of one length."""

LENGTHS = {Family.IPV4_UNICAST: 32, Family.IPV6_UNICAST: 128}
"""Bits of an address of each family."""


class Prefixes:
    """Prefixes of all sessions."""

    def __init__(self) -> None:
        self._ipv4: dict[IPv4Prefix, IPv4Prefix] = {}
        self._ipv6: dict[bytes, IPv6Network] = {}

    def read(self, family: Family, field: bytes) -> tuple[IPNetwork, ...]:
        """Return the prefixes of a field.

        Raises:
            ValueError: it is no list of prefixes (RFC 7606 section 5.3).
        """
        return self._read_ipv4(field) if family is Family.IPV4_UNICAST else self._read_ipv6(field)

    def _read_ipv4(self, field: bytes) -> tuple[IPv4Prefix, ...]:
        read: list[int] = []
        at = 0
        while at < len(field):
            length = field[at]
            size = _size(Family.IPV4_UNICAST, length)
            if field[at + size : at + size + 1] == field[at : at + 1]:
                count = _alike(field, at, size)
                end = _end(Family.IPV4_UNICAST, field, at + count * size)
                read += numbers(_addresses(field[at:end], count), length)
            else:
                end = _end(Family.IPV4_UNICAST, field, at + size)
                address = int.from_bytes(field[at + 1 : end].ljust(4, b"\0"), "big")
                read.append(number(address >> 32 - length << 32 - length, length))
            at = end
        found, known = made_of(read), self._ipv4
        if len(known) + len(found) > KNOWN:
            known.clear()
        return tuple(map(known.setdefault, found, found))

    def _read_ipv6(self, field: bytes) -> tuple[IPv6Network, ...]:
        known, found = self._ipv6, []
        at = 0
        while at < len(field):
            end = _end(Family.IPV6_UNICAST, field, at + _size(Family.IPV6_UNICAST, field[at]))
            octets, at = field[at:end], end
            prefix = known.get(octets)
            if prefix is None:
                if len(known) >= KNOWN:
                    known.clear()
                # RFC 4271 section 4.3: trailing bits mean nothing, so they may be anything.
                network = octets[1:].ljust(16, b"\0"), octets[0]
                prefix = known[octets] = IPv6Network(network, strict=False)
            found.append(prefix)
        return tuple(found)


def _size(family: Family, length: int) -> int:
    """Return how many octets a prefix of this length has, the one that says so among them."""
    if length > LENGTHS[family]:
        raise ValueError(f"a prefix of {family} is /{length}")
    return 1 + (length + 7 >> 3)


def _end(family: Family, field: bytes, end: int) -> int:
    if end > len(field):
        raise ValueError(f"the last prefix of {family} is cut off")
    return end


def _alike(field: bytes, at: int, size: int) -> int:
    """Return how many prefixes of the same length, hence of this size, follow each other."""
    lengths = field[at : at + size * AT_ONCE : size]
    return len(lengths) - len(lengths.lstrip(lengths[:1]))


def _addresses(octets: bytes, count: int) -> tuple[int, ...]:
    """Return the addresses of prefixes that have one length, as numbers."""
    length, size = octets[0], len(octets) // count
    column = bytearray(4 * count)
    for place in range(size - 1):
        column[place::4] = octets[place + 1 :: size]
    if length & 7:  # RFC 4271 section 4.3: trailing bits mean nothing, so they may be anything
        column[size - 2 :: 4] = column[size - 2 :: 4].translate(CLEARED[length & 7])
    return struct.unpack(f">{count}I", column)


CLEARED = tuple(bytes(octet & (0xFF00 >> bits) for octet in range(256)) for bits in range(8))
"""By the number of bits that count: what is left of each octet."""
