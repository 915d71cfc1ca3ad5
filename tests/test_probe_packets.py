"""Probes as bytes: what is asked in each way, and what of the wire is an answer."""

from ipaddress import IPv4Address

import pytest

from felix_py.ctl import probe_packets
from felix_py.ctl.probe_packets import Answered, Ends, Request, TooLarge, Way, checksum, header, packet, read

HERE, TUNNEL, THERE = IPv4Address("172.31.1.11"), IPv4Address("10.65.0.0"), IPv4Address("172.31.2.12")
ENDS = Ends(HERE, TUNNEL, THERE)


@pytest.mark.parametrize(
    ("way", "protocol", "inner_source"),
    [
        pytest.param(Way.PLAIN, 1, HERE, id="plain, answered plain"),
        pytest.param(Way.THERE, 4, HERE, id="wrapped, answered plain"),
        pytest.param(Way.BACK, 1, TUNNEL, id="plain, answered wrapped"),
        pytest.param(Way.BOTH, 4, TUNNEL, id="wrapped, answered wrapped"),
    ],
)
def test_a_request_is_wrapped_and_addressed_as_its_way_asks(way: Way, protocol: int, inner_source: IPv4Address) -> None:
    data = packet(Request(ENDS, way, 200), 7, 9)
    assert len(data) == 200
    assert data[9] == protocol
    inner = data[20:] if protocol == 4 else data
    assert data[:20] == header(inner_source if data is inner else HERE, THERE, protocol, 180)
    assert inner[12:20] == inner_source.packed + THERE.packed
    assert (checksum(data[:20]), checksum(inner[:20]), checksum(inner[20:])) == (0, 0, 0)
    assert int.from_bytes(data[6:8], "big") == 0x4000  # don't fragment


def reply(number: int, identifier: int = 7) -> bytes:
    return probe_packets.ECHO.pack(0, 0, 0, identifier, number) + bytes(56)


PLAIN = header(THERE, HERE, 1, 64) + reply(9)
WRAPPED = header(THERE, HERE, 4, 84) + header(THERE, TUNNEL, 1, 64) + reply(9)
NEEDED = header(IPv4Address("172.31.1.1"), HERE, 1, 36) + probe_packets.ECHO.pack(3, 4, 0, 0, 1400)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(PLAIN, Answered(9, wrapped=False, source=THERE), id="a plain answer"),
        pytest.param(WRAPPED, Answered(9, wrapped=True, source=THERE), id="a wrapped answer"),
        pytest.param(
            NEEDED + header(HERE, THERE, 4, 1480) + bytes(8),
            TooLarge(IPv4Address("172.31.1.1"), THERE, 1400),
            id="a router's complaint",
        ),
        pytest.param(NEEDED, None, id="a complaint about nothing"),
        pytest.param(header(THERE, HERE, 1, 64) + reply(9, 8), None, id="another program's answer"),
        pytest.param(packet(Request(ENDS, Way.BOTH), 7, 9), None, id="our own request"),
        pytest.param(PLAIN[:6] + b"\x00\x10" + PLAIN[8:], None, id="a later fragment"),
        pytest.param(header(THERE, HERE, 17, 64) + reply(9), None, id="another protocol"),
        pytest.param(PLAIN[:19], None, id="too short for a header"),
        pytest.param(PLAIN[:24], None, id="too short for an echo"),
        pytest.param(WRAPPED[:30], None, id="too short inside"),
        pytest.param(b"\x60" + bytes(60), None, id="IPv6"),
        pytest.param(b"", None, id="nothing"),
    ],
)
def test_what_comes_in_is_read(data: bytes, said: Answered | TooLarge | None) -> None:
    assert read(data, 7) == said
