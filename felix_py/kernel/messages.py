"""The frame of every netlink message: header, attributes, acknowledgements; pure, so that bytes can be argued about.

Formats and numbers are those of include/uapi/linux/{netlink,rtnetlink}.h, netlink(7) and rtnetlink(7).
"""

import errno
import os
import struct
from collections.abc import Iterator
from typing import TypeAlias

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
RTMSG = struct.Struct("=BBBBBBBBI")  # family dst_len src_len tos table protocol scope type flags
ATTRIBUTE = struct.Struct("=HH")  # length, type
U32 = struct.Struct("=I")

ERROR, DONE = 2, 3
RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_DELADDR = 16, 17, 20, 21
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
REQUEST, ACK, DUMP, DUMP_INTERRUPTED = 0x1, 0x4, 0x300, 0x10
REPLACE, EXCLUSIVE, CREATE = 0x100, 0x200, 0x400
CAPPED, ACK_TLVS = 0x100, 0x200
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_TABLE = 1, 4, 5, 6, 7, 8, 15
RTAX_MTU = 2
RTNH_F_ONLINK = 4
SOL_NETLINK, EXT_ACK, CAP_ACK, STRICT_CHECK, ADD_MEMBERSHIP = 270, 11, 10, 12, 1
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
GROUP_LINK, GROUP_IPV4_ADDRESS, GROUP_IPV4_ROUTE = 1, 5, 7
GROUP_IPV6_ADDRESS, GROUP_IPV6_ROUTE = 9, 11
GROUP_IPV4_NETCONF, RTM_NEWNETCONF = 24, 80

BATCH = 24_000
"""Messages per send: Python can work while the kernel does, and loses up to 5 ms at each end of a send to get there."""

BUFFER = 4 << 20
"""Bytes of socket buffer; an event burst of 20,000 routes fits."""


def attribute(kind: int, payload: bytes) -> bytes:
    """Encode one attribute, padded to four bytes."""
    return ATTRIBUTE.pack(4 + len(payload), kind) + payload + b"\0" * (-len(payload) & 3)


def attributes(body: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """Walk the attributes of a message from offset `start`; a broken length ends the walk."""
    end = len(body)
    while start + 4 <= end:
        length, kind = ATTRIBUTE.unpack_from(body, start)
        if length < ATTRIBUTE.size or start + length > end:
            return
        yield kind & 0x3FFF, body[start + 4 : start + length]
        start += (length + 3) & ~3


def pieces(body: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """Walk the attributes like `attributes`, each whole with its header and padding; a broken rest comes last as -1."""
    for kind, payload in attributes(body, start):
        end = start + ((ATTRIBUTE.size + len(payload) + 3) & ~3)
        yield kind, body[start:end]
        start = end
    if start < len(body):
        yield -1, body[start:]


Message: TypeAlias = tuple[int, int, int, int, bytes]
"""Type, flags, sequence, port and body."""


def messages(data: bytes) -> Iterator[Message]:
    """Split what one receive brought; a broken length ends the walk."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, flags, sequence, port = HEADER.unpack_from(data, offset)
        if length < HEADER.size or offset + length > len(data):
            return
        yield kind, flags, sequence, port, data[offset + HEADER.size : offset + length]
        offset += (length + 3) & ~3


def refusal(flags: int, body: bytes) -> tuple[int, str]:
    """Decode an acknowledgement: the errno (0 is success) and the kernel's own sentence, where it gave one."""
    if len(body) < U32.size + (0 if flags & CAPPED else U32.size):
        return errno.EPROTO, "the kernel's answer is cut short"
    code = -struct.unpack_from("=i", body)[0]
    if not flags & ACK_TLVS:
        return code, os.strerror(code)
    skip = 4 + HEADER.size
    if not flags & CAPPED:
        skip = 4 + ((U32.unpack_from(body, 4)[0] + 3) & ~3)
    text = dict(attributes(body, skip)).get(1)
    return (
        code,
        f"{os.strerror(code)}: {text.rstrip(bytes(1)).decode(errors='replace')}" if text else os.strerror(code),
    )
