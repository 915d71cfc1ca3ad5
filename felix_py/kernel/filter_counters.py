"""Reads the counters of our nftables table by a netlink dump of their own: cheap enough to be asked at every scrape.

libnftables would read the whole table for them, in the one thread that may use it. Formats are those of
include/uapi/linux/netfilter/nf_tables.h.
"""

import errno
import socket
import struct
from collections.abc import Iterator

from felix_py.kernel import filter_table
from felix_py.kernel.messages import DONE, DUMP, ERROR, HEADER, REQUEST, attribute, attributes, messages

NETLINK_NETFILTER, NFNL_SUBSYS_NFTABLES, NFPROTO_INET = 12, 10, 1
NEW_OBJECT, GET_OBJECT = NFNL_SUBSYS_NFTABLES << 8 | 18, NFNL_SUBSYS_NFTABLES << 8 | 19
OBJECT_TABLE, OBJECT_NAME, OBJECT_TYPE, OBJECT_DATA, COUNTER_PACKETS = 1, 2, 3, 4, 2
COUNTER = struct.pack(">I", 1)
NFGENMSG = struct.pack("=BBH", NFPROTO_INET, 0, 0)
"""NFT_MSG_..., NFTA_OBJ_..., NFTA_COUNTER_..., NFT_OBJECT_COUNTER."""

ANSWER_SECONDS = 1.0
"""The kernel answers at once; this is for one that does not answer at all."""

TABLE = filter_table.NAME.partition(" ")[2].encode() + b"\0"


def read() -> dict[str, int]:
    """Return the packets of each counter by its name; nothing where there is no table, or no nftables."""
    body = NFGENMSG + attribute(OBJECT_TABLE, TABLE) + attribute(OBJECT_TYPE, COUNTER)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as sock:
            sock.settimeout(ANSWER_SECONDS)
            sock.bind((0, 0))
            sock.send(HEADER.pack(HEADER.size + len(body), GET_OBJECT, REQUEST | DUMP, 1, 0) + body)
            return dict(_counters(sock))
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.ENOENT) or isinstance(error, TimeoutError):
            return {}
        raise


def _counters(sock: socket.socket) -> Iterator[tuple[str, int]]:
    while True:
        for kind, _, _, _, body in messages(sock.recv(1 << 16)):
            if kind in (DONE, ERROR):
                return
            if kind == NEW_OBJECT:
                found = dict(attributes(body, len(NFGENMSG)))
                yield found[OBJECT_NAME].rstrip(b"\0").decode(), packets(found[OBJECT_DATA])


def packets(counter: bytes) -> int:
    """Return the packets of a counter as the kernel describes it."""
    return int.from_bytes(dict(attributes(counter, 0)).get(COUNTER_PACKETS, b""), "big")
