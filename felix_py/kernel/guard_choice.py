"""Which of two guards pods' interfaces: our BPF programs where the kernel takes them, else the nftables table."""

import ctypes
import errno
import os
import threading
from typing import Literal, NamedTuple

from felix_py.kernel import guard_maps
from felix_py.kernel.guard_programs import NAME, OBJECT
from ipip import bpf, bpf_object, traffic


class Choice(NamedTuple):
    """Who guards pods' interfaces, `none` for nobody, and one sentence about why."""

    kind: Literal["ebpf", "nftables", "none"]
    why: str


NEW_NETWORK = 0x40000000
"""CLONE_NEWNET, include/uapi/linux/sched.h."""

LOOPBACK = 1
"""Index of `lo`, the first interface of every network namespace."""


def choose(asked: Literal["auto", "ebpf", "nftables"], *, filtered: bool) -> Choice:
    """Decide who guards pods' interfaces; to find out, `auto` loads and attaches programs, where nobody is.

    Args:
        asked: by the settings.
        filtered: this node has a packet filter of ours.
    """
    if not filtered:
        return Choice("none", "none: the settings say netfilter: Disabled")
    if asked != "auto":
        return Choice(asked, f"{asked}: the settings say so")
    lacking = unusable()
    if lacking is None:
        return Choice("ebpf", "ebpf: this kernel takes our BPF programs")
    return Choice("nftables", f"nftables: ebpf cannot do it: {lacking}")


def unusable() -> str | None:
    """Say what keeps the programs from working here; None where nothing does."""
    found: list[OSError | bpf_object.Unreadable] = []

    def attempt() -> None:
        try:
            _attempt()
        except (OSError, bpf_object.Unreadable) as error:
            found.append(error)

    # A thread of its own, since it moves into a network namespace of its own, which goes when the thread ends.
    thread = threading.Thread(target=attempt, name="guard-probe")
    thread.start()
    thread.join()
    return reason(found[0]) if found else None


def _attempt() -> None:
    """Attach every program to an interface that nobody uses."""
    read = bpf_object.parse(OBJECT.read_bytes())
    maps = guard_maps.make(read.maps)
    programs = []
    try:
        descriptors = {name: each.descriptor for name, each in maps.items()}
        programs += [bpf.load(name, each.linked(descriptors)) for name, each in read.programs.items()]
        if bpf.LIBC.unshare(NEW_NETWORK):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        for program, end in zip(programs, (traffic.INGRESS, traffic.EGRESS), strict=True):
            traffic.attach(LOOPBACK, end, NAME, program)
    finally:
        for each in programs:
            os.close(each)
        guard_maps.close(maps)


def reason(error: OSError | bpf_object.Unreadable) -> str:
    """Return a sentence about why programs could not be loaded or attached, with the remedy."""
    if isinstance(error, bpf_object.Unreadable):
        return str(error)
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"{OBJECT.name} was not built: apt-get install clang, then install felix-py again"
    match error.errno:
        case errno.EPERM:
            return "BPF is forbidden here; give CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN"
        case errno.ENOSYS:
            return "this kernel has no BPF"
        case errno.ENOENT | errno.EOPNOTSUPP:
            return "this kernel has no clsact or no BPF filters (NET_SCH_INGRESS, NET_CLS_BPF)"
    return f"this kernel does not take our BPF programs ({error.strerror})"
