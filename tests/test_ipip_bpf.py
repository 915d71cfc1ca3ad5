"""What is read out of a compiled BPF object, how code and maps are tied together, and what refusals are called."""

import errno
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipip import bpf_object, ebpf
from ipip.bpf_object import MapShape, Program, Unreadable

OBJECT = ebpf.OBJECT.read_bytes()
SOURCE = ebpf.OBJECT.with_name("tunnel.bpf.c")


def test_the_object_offers_both_programs_and_all_maps() -> None:
    found = bpf_object.parse(OBJECT)
    assert set(found.programs) == {"encapsulate", "decapsulate"}
    assert found.maps == {
        "settings": MapShape(kind=2, key=4, value=8, entries=1, flags=0),
        "peers": MapShape(kind=1, key=4, value=16, entries=65536, flags=1),
        "counters": MapShape(kind=6, key=4, value=16, entries=10, flags=0),
        "halves": MapShape(kind=6, key=4, value=2072, entries=17, flags=0),
    }


def test_layouts_are_those_of_the_source() -> None:
    maps = bpf_object.parse(OBJECT).maps
    assert (ebpf.SETTINGS.size, ebpf.PEER.size, ebpf.COUNT.size) == tuple(
        maps[name].value for name in ("settings", "peers", "counters")
    )
    assert len(ebpf.COUNTERS) == maps["counters"].entries


def test_the_order_of_the_counters_is_that_of_the_source() -> None:
    words = SOURCE.read_text().partition("enum reason {")[2].partition("REASONS")[0].replace(",", " ").split()
    assert [name.removeprefix("dropped_") for name in ebpf.COUNTERS] == [word.lower() for word in words]


def test_both_programs_refer_to_every_map_that_they_share() -> None:
    for program in bpf_object.parse(OBJECT).programs.values():
        assert set(ebpf.SHARED) <= {name for _, name in program.references}


def test_a_reference_gets_the_descriptor_and_the_mark_of_one() -> None:
    load, other = bytes.fromhex("18010000000000000000000000000000"), bytes.fromhex("9500000000000000")
    program = Program(other + load, ((8, "peers"),))
    assert program.linked({"peers": 0x1234}) == other + bytes.fromhex("18110000341200000000000000000000")


@given(st.integers(0, len(OBJECT) - 1))
def test_a_file_that_is_cut_short_is_refused_in_a_sentence(length: int) -> None:
    with pytest.raises(Unreadable, match="build the package"):
        bpf_object.parse(OBJECT[:length])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x7fELF" + bytes(60), id="a header of zeros"),
        pytest.param(Path("/bin/true").read_bytes(), id="a program of this machine"),
        pytest.param(OBJECT[:5] + b"\x02" + OBJECT[6:], id="big-endian"),
    ],
)
def test_what_is_no_bpf_object_is_refused(data: bytes) -> None:
    with pytest.raises(Unreadable, match=r"build the package (again|on this machine)$"):
        bpf_object.parse(data)


@pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang: apt-get install clang")
@pytest.mark.slow
def test_constant_data_is_refused_with_the_section(tmp_path: Path) -> None:
    source, made = tmp_path / "data.c", tmp_path / "data.o"
    source.write_text(
        "static const volatile int table[4] = {1, 2, 3, 4};\n"
        'struct { unsigned each[5]; } m __attribute__((section("maps"), used)) = {{2, 4, 4, 1, 0}};\n'
        '__attribute__((section("tc/reads"), used)) int reads(int *context) { return table[*context & 3]; }\n'
    )
    subprocess.run(["clang", "-target", "bpf", "-O2", "-c", source, "-o", made], check=True)
    with pytest.raises(Unreadable, match=r"^tc/reads refers to .*, which is no map; "):
        bpf_object.parse(made.read_bytes())


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (errno.ENOENT, "tunnel.bpf.o was not built: apt-get install clang, then install felix-py again"),
        (errno.EPERM, "BPF is forbidden here; give CAP_BPF and CAP_NET_ADMIN, before Linux 5.8 CAP_SYS_ADMIN"),
        (errno.ENOSYS, "this kernel has no BPF"),
        (errno.EINVAL, "this kernel does not take our BPF programs (Invalid argument)"),
    ],
)
def test_why_the_driver_is_of_no_use_is_a_sentence(code: int, sentence: str) -> None:
    assert ebpf.reason(OSError(code, os.strerror(code))) == sentence


def test_the_mac_is_that_of_the_source() -> None:
    head, tail = struct.unpack(">IH", ebpf.MAC)
    text = SOURCE.read_text()
    assert f"__builtin_bswap32(0x{head:08x})" in text
    assert f"BE16(0x{tail:04x})" in text
