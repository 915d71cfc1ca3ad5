"""Neighbours as bytes: where an address of a link is found, or for which addresses the host answers itself.

Formats and numbers are those of include/uapi/linux/neighbour.h.
"""

import struct
from collections.abc import Mapping
from ipaddress import ip_address

from felix_py.kernel import hop_codec
from felix_py.kernel.messages import attribute, attributes
from felix_py.kernel.objects import Neighbour
from felix_py.kernel.wire import Family

NDMSG = struct.Struct("=BxxxiHBB")  # family index state flags type
NDA_DST, NDA_LLADDR = 1, 2

NTF_PROXY = 8
"""The host answers for the address; such an entry has no state and no MAC."""

MAC_BYTES = 6
"""Of an Ethernet address; tunnels have longer ones, which are no MACs."""


def encode(neighbour: Neighbour, indexes: Mapping[str, int]) -> bytes:
    """Encode the body of a neighbour message.

    Raises:
        NoDevice: when the interface does not exist.
    """
    family = Family.IPV4 if neighbour.address.version == 4 else Family.IPV6  # noqa: PLR2004 - IP versions
    index = hop_codec.index_of(neighbour.device, indexes)
    state, flags = (0, NTF_PROXY) if neighbour.proxy else (neighbour.state, 0)
    mac = b"" if neighbour.mac is None else attribute(NDA_LLADDR, bytes.fromhex(neighbour.mac.replace(":", "")))
    return NDMSG.pack(family, index, state, flags, 0) + attribute(NDA_DST, neighbour.address.packed) + mac


def decode(body: bytes, names: Mapping[int, str]) -> Neighbour | None:
    """Decode the body of a neighbour message; None for what is not IP, for tunnels' own addresses and for rubbish.

    Args:
        body: the message after its netlink header.
        names: interface names by index; an unknown index is named `if<number>`.
    """
    if len(body) < NDMSG.size:
        return None
    family, index, state, flags, _ = NDMSG.unpack_from(body)
    found = dict(attributes(body, NDMSG.size))
    dst, mac = found.get(NDA_DST, b""), found.get(NDA_LLADDR)
    if family not in tuple(Family) or index <= 0 or (mac is not None and len(mac) != MAC_BYTES):
        return None
    if len(dst) != (4 if family == Family.IPV4 else 16):
        return None
    device = hop_codec.name_of(index, names)
    text = None if mac is None else mac.hex(":")
    if flags & NTF_PROXY:
        return Neighbour(ip_address(dst), device, text, proxy=True)
    return Neighbour(ip_address(dst), device, text, state)
