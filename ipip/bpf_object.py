"""What clang made of tunnel.bpf.c: programs and maps read out of its ELF file; bytes in, values out.

Only as much of ELF as that file uses: code in sections `tc/NAME`, maps in `maps`, references from one to the other.
Formats: the ELF-64 object file format, and Documentation/bpf/standardization/instruction-set.rst.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from struct import error as StructError  # noqa: N812 - the standard library's own name says too little

HEADER = Struct("<4sBBB9xHHIQQQIHHHHHH")
SECTION = Struct("<IIQQQQIIQQ")
SYMBOL = Struct("<IBBHQQ")
RELOCATION = Struct("<QII")  # offset, type, symbol
MAP = Struct("<IIIII")
INSTRUCTION = 8
"""Bytes; a load of a 64-bit number takes two."""

LITTLE_ENDIAN_64, MACHINE_BPF = (2, 1), 247
R_BPF_64_64 = 1
LOAD_64 = 0x18
PSEUDO_MAP = 1 << 4
"""BPF_PSEUDO_MAP_FD in the source register: the number is a map's descriptor."""

PREFIX = "tc/"


class Unreadable(Exception):  # noqa: N818 - named for what it is: a file that another compiler made, or nobody
    """The file is not what our source compiles to; one sentence says why."""


@dataclass(frozen=True, slots=True)
class MapShape:
    """What a map is to be like, as bpf(2) has it: type, sizes in bytes, flags."""

    kind: int
    key: int
    value: int
    entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class Program:
    """Code, and where in it which map is meant.

    Attributes:
        references: byte offset of an instruction, and the name of the map whose descriptor belongs there.
    """

    code: bytes
    references: tuple[tuple[int, str], ...]

    def linked(self, descriptors: Mapping[str, int]) -> bytes:
        """Return the code with the descriptors of maps in their places."""
        code = bytearray(self.code)
        for offset, name in self.references:
            code[offset + 1] = code[offset + 1] & 0x0F | PSEUDO_MAP
            code[offset + 4 : offset + 8] = descriptors[name].to_bytes(4, "little")
        return bytes(code)


@dataclass(frozen=True, slots=True)
class Object:
    """Everything that a file offers, by name."""

    programs: Mapping[str, Program]
    maps: Mapping[str, MapShape]


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    data: bytes
    target: int


def parse(data: bytes) -> Object:
    """Read an object file.

    Raises:
        Unreadable: when it is not one that this loader understands.
    """
    try:
        return _parse(data)
    except (IndexError, ValueError, KeyError, StructError) as error:
        raise Unreadable(
            f"the compiled programs are cut short or damaged ({error}); build the package again"
        ) from error


def _parse(data: bytes) -> Object:
    magic, width, order, *rest = HEADER.unpack_from(data)
    machine, start, count, names = rest[2], rest[6], rest[12], rest[13]
    if magic != b"\x7fELF" or (width, order) != LITTLE_ENDIAN_64 or machine != MACHINE_BPF:
        raise Unreadable("the compiled programs are no little-endian BPF object; build the package on this machine")
    sections = _sections(data, start, count, names)
    symbols_at = next(index for index, each in enumerate(sections) if each.name == ".symtab")
    strings = next(each.data for each in sections if each.name == ".strtab")
    symbols = [
        (_text(strings, name), section, value)
        for name, _, _, section, value, _ in SYMBOL.iter_unpack(sections[symbols_at].data)
    ]
    maps_at = next(index for index, each in enumerate(sections) if each.name == "maps")
    map_names = {value: name for name, section, value in symbols if section == maps_at and name}
    maps = {name: MapShape(*MAP.unpack_from(sections[maps_at].data, at)) for at, name in sorted(map_names.items())}
    programs = {}
    for index, section in enumerate(sections):
        if section.name.startswith(PREFIX):
            relocations = b"".join(
                each.data for each in sections if each.name.startswith(".rel") and each.target == index
            )
            references = tuple(
                _reference(section, symbols[symbol], maps_at, kind, offset)
                for offset, kind, symbol in RELOCATION.iter_unpack(relocations)
            )
            programs[section.name.removeprefix(PREFIX)] = Program(section.data, references)
    return Object(programs, maps)


def _sections(data: bytes, start: int, count: int, names: int) -> list[_Section]:
    heads = [SECTION.unpack_from(data, start + number * SECTION.size) for number in range(count)]
    texts = data[heads[names][4] : heads[names][4] + heads[names][5]]
    found = [_Section(_text(texts, head[0]), data[head[4] : head[4] + head[5]], head[7]) for head in heads]
    if any(len(each.data) != head[5] for each, head in zip(found, heads, strict=True)):
        raise ValueError("a section ends beyond the file")
    return found


def _reference(
    section: _Section, symbol: tuple[str, int, int], maps_at: int, kind: int, offset: int
) -> tuple[int, str]:
    name, where, _ = symbol
    if where != maps_at or kind != R_BPF_64_64 or section.data[offset] != LOAD_64:
        raise Unreadable(
            f"{section.name} refers to {name or 'data'}, which is no map; the source must not use constant arrays"
        )
    return offset, name


def _text(strings: bytes, offset: int) -> str:
    return strings[offset : strings.index(b"\0", offset)].decode()
