"""Programs of ours at an interface's two ends of traffic control, over rtnetlink: attach, find, detach.

An interface has room for filters where it has a `clsact` queueing discipline, which queues nothing. The formats are
those of include/uapi/linux/{pkt_sched,pkt_cls}.h. Everything raises OSError with the kernel's errno.
"""

import contextlib
import errno
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import TypeAlias

from ipip.netlink import (
    CREATE,
    DUMP,
    EXCLUSIVE,
    U32,
    ask,
    attribute,
    attributes,
    do,
    packed,
    require_done,
    text,
    word,
)

TCMSG = Struct("=BxxxiIII")  # family, interface, handle, parent, information
NEWQDISC, DELQDISC, NEWTFILTER, DELTFILTER, GETTFILTER = 36, 37, 44, 45, 46
TCA_KIND, TCA_OPTIONS = 1, 2
FOR_FILTERS = text(TCA_KIND, "clsact")
TCA_BPF_FD, TCA_BPF_NAME, TCA_BPF_FLAGS, TCA_BPF_ID = 6, 7, 8, 11
DIRECT_ACTION = 1  # TCA_BPF_FLAG_ACT_DIRECT: what the program returns is what happens
CLSACT, CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000

INGRESS, EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
"""Where packets arrive, and where they leave."""

PRIORITY = 80
"""Between others' filters, those with lower numbers run before ours. Nobody else's filter is replaced: a priority is a
list of its own."""

HANDLE = 1

Exchange: TypeAlias = Callable[[bytes, int], bytes]


@dataclass(frozen=True, slots=True)
class Filter:
    """A program that is attached.

    Attributes:
        program: the kernel's number of it.
    """

    name: str
    program: int


def attach(index: int, end: int, name: str, descriptor: int) -> None:
    """Have a program see the packets of an interface; one of ours that stands there is replaced in one step."""
    try:
        do(*_room(index))
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
    do(*_program(index, end, name, descriptor))


def attach_first(indexes: Sequence[int], end: int, name: str, descriptor: int, exchange: Exchange) -> bool:
    """Have a program see the packets of interfaces where nobody else has anything; False where somebody may have.

    Then the program may be there or not, at each of them, and `attach` comes next. At interfaces that are up and have
    no carrier the kernel waits, before it runs a program, until every processor has passed a point of rest since there
    was room for it, and does that once for all whose room is there by then (`mini_qdisc_pair_swap`,
    net/sched/sch_generic.c): so all rooms come first.

    Args:
        indexes: of the interfaces.
        end: which of their two.
        name: of the filter.
        descriptor: of the program.
        exchange: sends messages and returns the answers, up to that of the message with this number.

    Raises:
        OSError: of the first request that was refused for another reason.
    """
    requests = [*map(_room, indexes), *(_program(index, end, name, descriptor) for index in indexes)]
    try:
        require_done(exchange(packed(requests), len(requests) - 1))
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
        return False
    return True


def _room(index: int) -> tuple[int, int, bytes]:
    """Return the request that makes room for filters where there is none."""
    return NEWQDISC, CREATE | EXCLUSIVE, TCMSG.pack(0, index, CLSACT_HANDLE, CLSACT, 0) + FOR_FILTERS


def _program(index: int, end: int, name: str, descriptor: int) -> tuple[int, int, bytes]:
    return NEWTFILTER, CREATE, _ours(index, end) + _holding(name, descriptor)


@lru_cache
def _holding(name: str, descriptor: int) -> bytes:
    """Return the attributes of a filter that holds a program; pods' interfaces all have the same."""
    options = attribute(TCA_BPF_FD, U32.pack(descriptor)) + text(TCA_BPF_NAME, name)
    options += attribute(TCA_BPF_FLAGS, U32.pack(DIRECT_ACTION))
    return text(TCA_KIND, "bpf") + attribute(TCA_OPTIONS, options)


def find(index: int, end: int) -> Filter | None:
    """Return what stands at our place; None where there is nothing."""
    return next((each for place, each in _filters(index, end) if place == (PRIORITY, HANDLE)), None)


def detach(index: int, end: int) -> None:
    """Remove what stands at our place, and the queueing discipline when nobody else uses it."""
    with contextlib.suppress(FileNotFoundError):
        do(DELTFILTER, 0, _ours(index, end))
    if not any(_filters(index, each) for each in (INGRESS, EGRESS)):
        with contextlib.suppress(FileNotFoundError):
            do(DELQDISC, 0, TCMSG.pack(0, index, CLSACT_HANDLE, CLSACT, 0))


def _ours(index: int, end: int) -> bytes:
    return TCMSG.pack(0, index, HANDLE, end, PRIORITY << 16 | socket.htons(3))  # ETH_P_ALL


def _filters(index: int, end: int) -> list[tuple[tuple[int, int], Filter]]:
    """Return priority, handle and program of every filter there; others' kinds have no program."""
    found = []
    for kind, body in ask(GETTFILTER, DUMP, TCMSG.pack(0, index, 0, end, 0)):
        _, _, handle, _, information = TCMSG.unpack_from(body)
        values = attributes(body, TCMSG.size)
        if kind != NEWTFILTER or handle == 0:  # 0: the head of the list, which the kernel lists too
            continue
        options = attributes(values.get(TCA_OPTIONS, b""))
        program = U32.unpack(options[TCA_BPF_ID])[0] if TCA_BPF_ID in options else 0
        found.append(((information >> 16, handle), Filter(word(options.get(TCA_BPF_NAME, b"")), program)))
    return found
