"""What offload.c does to packets: cut up they join to the same again, and nothing else is ever joined."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipip import batch, header
from ipip.batch import BATCH, BEFORE, SLOT, Incoming, Library, Outgoing
from ipip.header import Outer
from ipip.messages import Memory

A1, B1 = bytes([172, 31, 1, 11]), bytes([172, 31, 2, 11])
POD_1, POD_2 = bytes([10, 65, 1, 5]), bytes([10, 65, 2, 5])
TCP, UDP, ACK, PSH, FIN, CWR = 6, 17, 0x10, 0x08, 0x01, 0x80
NEEDS_CHECKSUM, GSO_TCP4, GSO_UDP = 1, 1, 5


@dataclass(frozen=True)
class Segment:
    """A TCP segment or a UDP datagram between two pods."""

    payload: bytes
    protocol: int = TCP
    sequence: int = 1000
    flags: int = ACK
    options: bytes = b""
    port: int = 4000
    service: int = 0
    fragment: int = header.DONT_FRAGMENT
    identification: int = 7
    window: int = 500

    def upper(self, checksum: int) -> bytes:
        sum_ = checksum.to_bytes(2, "big")
        if self.protocol == UDP:
            return bytes(self.port_bytes() + (8 + len(self.payload)).to_bytes(2, "big") + sum_ + self.payload)
        words = self.sequence.to_bytes(4, "big") + b"\0\0\0\x09" + bytes([(20 + len(self.options)) // 4 << 4])
        words += bytes([self.flags]) + self.window.to_bytes(2, "big") + sum_ + b"\0\0"
        return self.port_bytes() + words + self.options + self.payload

    def port_bytes(self) -> bytes:
        return self.port.to_bytes(2, "big") + b"\x1f\x90"

    def pseudo(self) -> bytes:
        return POD_1 + POD_2 + bytes([0, self.protocol]) + len(self.upper(0)).to_bytes(2, "big")

    def packet(self) -> bytes:
        return self.head() + self.upper(header.checksum(self.pseudo() + self.upper(0)) or 0xFFFF)

    def unfinished(self) -> bytes:
        """As the kernel gives it to a device that computes checksums."""
        return self.head() + self.upper(0xFFFF - header.checksum(self.pseudo()))

    def head(self) -> bytes:
        size = 20 + len(self.upper(0))
        bare = header.IPV4.pack(
            0x45, self.service, size, self.identification, self.fragment, 64, self.protocol, 0, POD_1, POD_2
        )
        return bare[:10] + header.checksum(bare).to_bytes(2, "big") + bare[12:]

    def headers(self) -> int:
        return 20 + len(self.upper(0)) - len(self.payload)


@pytest.fixture(scope="module")
def functions() -> Library:
    found = batch.library()
    assert found is not None, "`make setup` compiles ipip/offload.so, and needs a C compiler"
    return found


def route() -> Memory:
    made = Memory(1, batch.ROUTE)
    made.view[: header.SIZE] = header.encode(Outer(A1, B1))
    return made


def sent(functions: Library | None, *packets: tuple[bytes, bytes]) -> list[bytes]:
    """Return the inner packets of the messages that these become, each given with what the device puts before it."""
    outgoing, way, found = Outgoing(functions), route(), []
    for at, (before, packet) in enumerate(packets):
        outgoing.bytes[at * SLOT : at * SLOT + BEFORE + len(packet)] = before + packet
        outgoing.jobs[3 * at + 1], outgoing.jobs[3 * at + 2] = BEFORE + len(packet), way.address
    first = 0
    while first < len(packets):
        made, first = outgoing.encapsulate(first, len(packets))
        found += [outgoing.inner(message) for message in range(made)]
    return found


def large(segment: Segment, step: int) -> tuple[bytes, bytes]:
    """A packet that is to be cut up, as a TUN device gives it."""
    tcp = segment.protocol == TCP
    numbers = (segment.headers(), step, 20, 16 if tcp else 6)
    before = bytes([NEEDS_CHECKSUM, GSO_TCP4 if tcp else GSO_UDP])
    return before + b"".join(number.to_bytes(2, "little") for number in numbers), segment.unfinished()


def written(functions: Library | None, *packets: bytes, datagrams: bool = True) -> list[bytes]:
    """Return what is written to the device for packets that arrived."""
    incoming = Incoming(functions)
    for at, packet in enumerate(packets):
        incoming.bytes[at * SLOT : at * SLOT + len(packet)] = packet
        incoming.take(at, 0, len(packet))
    return [incoming.content(vectors, count) for vectors, count, _, _ in incoming.writes(datagrams=datagrams)]


FINISHED = bytes(BEFORE)


def cut(segment: Segment, step: int) -> list[Segment]:
    """What a sender would have sent, had it made the pieces itself: the oracle."""
    starts = range(0, len(segment.payload), step)
    return [
        replace(
            segment,
            payload=segment.payload[start : start + step],
            sequence=(segment.sequence + start) % 2**32,
            identification=(segment.identification + at) % 2**16,
            flags=segment.flags & ~((PSH | FIN) * (start != starts[-1]) | CWR * (at > 0)),
        )
        for at, start in enumerate(starts)
    ]


segments = st.builds(
    Segment,
    payload=st.binary(min_size=1, max_size=4000),
    protocol=st.sampled_from((TCP, UDP)),
    sequence=st.integers(0, 2**32 - 1),
    flags=st.sampled_from((ACK, ACK | PSH, ACK | FIN, ACK | CWR)),
    options=st.sampled_from((b"", b"\x01\x01\x08\x0a" + b"timetime")),
    service=st.integers(0, 255),
    identification=st.integers(0, 2**16 - 1),
)


@given(segment=segments, step=st.integers(100, 1500))
def test_a_large_packet_is_cut_as_its_sender_would_have(functions: Library, segment: Segment, step: int) -> None:
    assert sent(functions, large(segment, step)) == [piece.packet() for piece in cut(segment, step)]


@given(segment=segments)
def test_a_checksum_that_is_left_to_us_is_computed(functions: Library, segment: Segment) -> None:
    at = 16 if segment.protocol == TCP else 6
    before = bytes([NEEDS_CHECKSUM, 0, 0, 0, 0, 0, 20, 0, at, 0])
    assert sent(functions, (before, segment.unfinished())) == [segment.packet()]


@pytest.mark.parametrize("compiled", [True, False])
@given(payloads=st.lists(st.binary(max_size=99), min_size=1, max_size=BATCH))
def test_finished_packets_are_sent_as_they_are(functions: Library, payloads: list[bytes], *, compiled: bool) -> None:
    packets = [Segment(payload).packet() for payload in payloads]
    assert sent(functions if compiled else None, *[(FINISHED, packet) for packet in packets]) == packets


def test_more_pieces_than_there_is_room_for_are_sent_in_turns(functions: Library) -> None:
    segment = Segment(bytes(range(250)) * 200)
    expected = [piece.packet() for piece in cut(segment, 100)]
    assert sent(functions, *[large(segment, 100)] * 3) == expected * 3


def test_pieces_of_no_sensible_size_are_dropped(functions: Library) -> None:
    assert sent(functions, large(Segment(bytes(2000)), 0), large(Segment(bytes(2000)), 1)) == []


@given(segment=segments.filter(lambda made: made.flags in (ACK, ACK | PSH)), step=st.integers(100, 1500))
def test_what_was_cut_is_joined_again(functions: Library, segment: Segment, step: int) -> None:
    pieces = [piece.packet() for piece in cut(segment, step)]
    (found,) = written(functions, *pieces)
    assert found == (
        FINISHED + pieces[0] if len(pieces) == 1 else b"".join(large(segment, min(step, len(segment.payload))))
    )


FIRST, SECOND = Segment(bytes(100)), Segment(bytes(100), sequence=1100)
DATAGRAM = Segment(bytes(100), protocol=UDP)


def damaged(packet: bytes, at: int) -> bytes:
    return packet[:at] + bytes([packet[at] ^ 4]) + packet[at + 1 :]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        pytest.param(FIRST.packet(), replace(SECOND, sequence=1101).packet(), id="a gap"),
        pytest.param(SECOND.packet(), FIRST.packet(), id="out of order"),
        pytest.param(FIRST.packet(), replace(SECOND, port=4001).packet(), id="another connection"),
        pytest.param(FIRST.packet(), replace(SECOND, service=3).packet(), id="marked by congestion"),
        pytest.param(FIRST.packet(), replace(SECOND, window=501).packet(), id="another window"),
        pytest.param(FIRST.packet(), replace(SECOND, payload=bytes(101)).packet(), id="longer than the first"),
        pytest.param(FIRST.packet(), replace(SECOND, payload=b"").packet(), id="without payload"),
        pytest.param(FIRST.packet(), replace(SECOND, flags=ACK | FIN).packet(), id="the end of a connection"),
        pytest.param(replace(FIRST, flags=ACK | PSH).packet(), SECOND.packet(), id="after a push"),
        pytest.param(replace(FIRST, fragment=0).packet(), replace(SECOND, fragment=0).packet(), id="may be fragmented"),
        pytest.param(FIRST.packet(), replace(SECOND, options=b"\x01" * 4).packet(), id="other options"),
        pytest.param(FIRST.packet(), damaged(SECOND.packet(), 90), id="payload damaged"),
        pytest.param(FIRST.packet(), damaged(SECOND.packet(), 5), id="IP header damaged"),
        pytest.param(damaged(FIRST.packet(), 90), SECOND.packet(), id="first one damaged"),
        pytest.param(DATAGRAM.packet(), damaged(DATAGRAM.packet(), 90), id="datagram damaged"),
        pytest.param(DATAGRAM.packet(), replace(DATAGRAM, payload=bytes(101)).packet(), id="longer datagram"),
        pytest.param(FIRST.packet(), SECOND.packet() + b"x", id="padded"),
        pytest.param(FIRST.packet(), SECOND.packet()[:-1], id="cut short"),
    ],
)
def test_what_does_not_belong_together_stays_apart(functions: Library, one: bytes, two: bytes) -> None:
    assert written(functions, one, two) == [FINISHED + one, FINISHED + two]


@given(segment=segments)
def test_what_a_neighbour_on_this_machine_left_to_a_network_card_is_left_to_the_kernel(
    functions: Library, segment: Segment
) -> None:
    tcp = segment.protocol == TCP
    several = tcp and len(segment.payload) > 536
    numbers = (segment.headers() * several, 536 * several, 20, 16 if tcp else 6)
    before = bytes([NEEDS_CHECKSUM, GSO_TCP4 * several]) + b"".join(each.to_bytes(2, "little") for each in numbers)
    assert written(functions, segment.unfinished()) == [before + segment.unfinished()]


@pytest.mark.parametrize("fragment", [0x2000, 0x0005], ids=["first piece", "later piece"])
def test_a_fragment_is_never_taken_for_unfinished(functions: Library, fragment: int) -> None:
    packet = replace(FIRST, fragment=fragment).unfinished()
    assert written(functions, packet) == [FINISHED + packet]


def test_packets_and_bytes_are_counted_as_they_arrived(functions: Library) -> None:
    packets = [FIRST.packet(), SECOND.packet(), DATAGRAM.packet()]
    incoming = Incoming(functions)
    for at, packet in enumerate(packets):
        incoming.bytes[at * SLOT : at * SLOT + len(packet)] = packet
        incoming.take(at, 0, len(packet))
    counts = [numbers for _, _, *numbers in incoming.writes(datagrams=True)]
    assert counts == [[2, 280], [1, 128]]


def test_a_device_that_knows_no_large_datagrams_gets_none(functions: Library) -> None:
    packet = DATAGRAM.packet()
    assert written(functions, packet, packet, datagrams=False) == [FINISHED + packet] * 2
    assert len(written(functions, packet, packet)) == 1


def test_connections_are_joined_each_for_itself(functions: Library) -> None:
    other = [replace(piece, port=4001) for piece in (FIRST, SECOND)]
    mixed = [piece.packet() for piece in (FIRST, other[0], SECOND, other[1])]
    found = written(functions, *mixed)
    assert found == [b"".join(large(replace(one, payload=bytes(200)), 100)) for one in (FIRST, other[0])]


def test_a_segment_does_not_overtake_one_that_could_not_be_joined(functions: Library) -> None:
    empty = replace(SECOND, payload=b"").packet()
    third = replace(SECOND, sequence=1100).packet()
    assert written(functions, FIRST.packet(), empty, third) == [
        FINISHED + packet for packet in (FIRST.packet(), empty, third)
    ]


@given(packets=st.lists(st.binary(min_size=1, max_size=120) | st.binary(max_size=90).map(b"\x45".__add__), max_size=64))
def test_rubbish_is_passed_on_as_it_is(functions: Library, packets: list[bytes]) -> None:
    assert written(functions, *packets) == [FINISHED + packet for packet in packets]


@given(before=st.binary(min_size=BEFORE, max_size=BEFORE), packet=st.binary(min_size=20, max_size=2000))
def test_rubbish_from_the_device_is_survived(functions: Library, before: bytes, packet: bytes) -> None:
    assert len(sent(functions, (before, packet))) <= batch.ROOM


@pytest.mark.parametrize("compiled", [True, False])
def test_without_the_library_packets_are_written_one_by_one(functions: Library, *, compiled: bool) -> None:
    packets = [FIRST.packet(), SECOND.packet()]
    assert len(written(functions if compiled else None, *packets)) == 2 - compiled


def test_where_it_was_not_compiled_there_are_no_functions() -> None:
    assert batch.library("/nonexistent/offload.so") is None
