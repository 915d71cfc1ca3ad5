"""The bpf(2) system call: make maps and programs, find those that the kernel has, read and write maps.

Descriptors are plain numbers that the caller closes. The layouts are those of include/uapi/linux/bpf.h. Everything
raises OSError with the kernel's errno.
"""

import ctypes
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from ipip.bpf_object import MapShape

MAP_CREATE, LOOKUP, UPDATE, DELETE, NEXT_KEY, PROGRAM_LOAD = 0, 1, 2, 3, 4, 5
PROGRAM_BY_ID, MAP_BY_ID, INFORMATION = 13, 14, 15
SCHED_CLS = 3  # BPF_PROG_TYPE_SCHED_CLS: a program of traffic control

NUMBERS: Mapping[str, int] = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "ppc64le": 361,
    "armv7l": 386,
}
"""Of the system call, by machine: arch/*/entry/syscalls."""

NUMBER = NUMBERS.get(platform.machine())
"""On this one; None where it is not known."""

MAKE_MAP = Struct("=IIIIIII16s")  # type, key, value, entries, flags, inner map, NUMA node, name
ELEMENT = Struct("=IxxxxQQQ")  # descriptor, key, value or next key, flags
LOAD = Struct("=IIQQIIQII16s")  # type, instructions, code, licence, log level and size, log, version, flags, name
BY_ID = Struct("=III")
ABOUT = Struct("=IIQ")  # descriptor, length, information

PROGRAM_MAPS = Struct("=52xIQ")  # struct bpf_prog_info: how many maps, where their numbers go
PROGRAM_INFORMATION, MAP_INFORMATION = 232, 88
"""Bytes that the oldest kernel of interest writes; newer ones write no more than they are asked for."""

MAP_NAME = Struct("=24x16s")  # struct bpf_map_info

LICENCE = b"GPL\0"
LOG_SIZE = 1 << 20
POSSIBLE = Path("/sys/devices/system/cpu/possible")


class Refused(OSError):  # noqa: N818 - named for what happened
    """The kernel's verifier does not take a program; the last words of its log say why."""


@dataclass(frozen=True, slots=True)
class Map:
    """A map that is open here.

    Attributes:
        number: the kernel's, by which others find it.
    """

    descriptor: int
    number: int
    shape: MapShape


def _call(command: int, attributes: bytes | ctypes.Array[ctypes.c_char]) -> int:
    return _called(LIBC, command, attributes)


def _called(libc: ctypes.CDLL, command: int, attributes: bytes | ctypes.Array[ctypes.c_char]) -> int:
    number = NUMBER
    if number is None:
        raise OSError(38, f"bpf(2) has no number known here for {platform.machine()}")
    result = int(libc.syscall(number, command, attributes, len(attributes)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


LIBC = ctypes.CDLL(None, use_errno=True)
HELD = ctypes.PyDLL(None, use_errno=True)
"""The same, without letting go of the interpreter: for what takes less time than to get it again."""


def make_map(name: str, shape: MapShape) -> Map:
    """Make a map."""
    wanted = MAKE_MAP.pack(shape.kind, shape.key, shape.value, shape.entries, shape.flags, 0, 0, name.encode())
    descriptor = _call(MAP_CREATE, wanted)
    return Map(descriptor, U32.unpack_from(_information(descriptor, bytes(MAP_INFORMATION)), 4)[0], shape)


def load(name: str, code: bytes) -> int:
    """Have the kernel take a program; return its descriptor.

    Raises:
        Refused: with the verifier's last words.
        OSError: EPERM without CAP_BPF and CAP_NET_ADMIN; ENOSYS or EINVAL where the kernel has no BPF.
    """
    try:
        return _load(name, code, None)
    except OSError as error:
        first = error
    log = ctypes.create_string_buffer(LOG_SIZE)
    try:
        return _load(name, code, log)
    except OSError as error:
        words = [line for line in log.value.decode(errors="replace").splitlines() if line.strip()]
        reason = next((line for line in reversed(words) if not line.startswith(("processed", "verification"))), "")
        if not reason:
            raise error from first
        raise Refused(error.errno, f"{name}: {reason.strip()}") from error


def _load(name: str, code: bytes, log: ctypes.Array[ctypes.c_char] | None) -> int:
    kept = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(LICENCE)
    at, licence = map(ctypes.addressof, kept)
    where = (1, len(log), ctypes.addressof(log)) if log is not None else (0, 0, 0)
    return _call(PROGRAM_LOAD, LOAD.pack(SCHED_CLS, len(code) // 8, at, licence, *where, 0, 0, name.encode()[:15]))


def program_maps(number: int) -> dict[str, Map]:
    """Return the maps of a program that the kernel has, open, by name.

    Raises:
        OSError: ENOENT when there is no such program.
    """
    descriptor = _call(PROGRAM_BY_ID, BY_ID.pack(number, 0, 0))
    try:
        (many, _) = PROGRAM_MAPS.unpack_from(_information(descriptor, bytes(PROGRAM_INFORMATION)))
        numbers = ctypes.create_string_buffer(4 * many)
        room = bytearray(PROGRAM_INFORMATION)
        PROGRAM_MAPS.pack_into(room, 0, many, ctypes.addressof(numbers))
        _information(descriptor, bytes(room))
    finally:
        os.close(descriptor)
    return dict(_open_map(each) for (each,) in U32.iter_unpack(numbers.raw))


def _open_map(number: int) -> tuple[str, Map]:
    descriptor = _call(MAP_BY_ID, BY_ID.pack(number, 0, 0))
    said = _information(descriptor, bytes(MAP_INFORMATION))
    kind, _, key, value, entries, flags = SIX.unpack_from(said)
    (name,) = MAP_NAME.unpack_from(said)
    return name.rstrip(b"\0").decode(), Map(descriptor, number, MapShape(kind, key, value, entries, flags))


def _information(descriptor: int, room: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(room, len(room))
    _call(INFORMATION, ctypes.create_string_buffer(ABOUT.pack(descriptor, len(room), ctypes.addressof(buffer)), 16))
    return buffer.raw


U32, SIX = Struct("=I"), Struct("=IIIIII")


def read(table: Map, key: bytes) -> bytes | None:
    """Return the value under a key, None where there is none."""
    value = ctypes.create_string_buffer(table.shape.value)
    return value.raw if _element(LOOKUP, table, key, value) else None


def read_per_cpu(table: Map, key: bytes) -> Iterator[bytes]:
    """Yield the value that each processor has under a key."""
    size = table.shape.value + 7 & ~7
    values = ctypes.create_string_buffer(size * processors())
    if _element(LOOKUP, table, key, values):
        yield from (values.raw[at : at + table.shape.value] for at in range(0, len(values), size))


def write(table: Map, key: bytes, value: bytes) -> None:
    """Put a value under a key; a packet sees the old one or the new one."""
    _element(UPDATE, table, key, ctypes.create_string_buffer(value, len(value)))


def remove(table: Map, key: bytes) -> None:
    """Remove a key; one that is gone already counts as done."""
    _element(DELETE, table, key, None)


def keys(table: Map) -> list[bytes]:
    """Return all keys."""
    found: list[bytes] = []
    before: bytes | None = None
    following = ctypes.create_string_buffer(table.shape.key)
    while _element(NEXT_KEY, table, before, following):
        before = following.raw
        found.append(before)
    return found


def _element(command: int, table: Map, key: bytes | None, other: ctypes.Array[ctypes.c_char] | None) -> bool:
    """Do something with one element; return False where there is none."""
    kept = None if key is None else ctypes.create_string_buffer(key, len(key))
    places = (0 if buffer is None else ctypes.addressof(buffer) for buffer in (kept, other))
    try:
        _called(HELD, command, ELEMENT.pack(table.descriptor, *places, 0))
    except FileNotFoundError:
        return False
    return True


def processors() -> int:
    """Return how many processors the kernel may ever have: so many values has an element of each."""
    last = POSSIBLE.read_text().strip().replace(",", "-").rpartition("-")[2]
    return int(last) + 1
