"""What only a parser can get wrong: tunnels' packets that pods hide behind headers are found by the program."""

import struct

import pytest
from crafted import IPIP, UDP, dropped, ip, send, udp
from guarded import ROUTER, WEB, WEB6, Guarded
from route_node import CLUSTER, lab

pytestmark = pytest.mark.netns


def hidden(*headers: int, carried: int = IPIP) -> bytes:
    """Return a packet of IPv6 that hides a tunnel's packet behind extension headers (RFC 8200 section 4)."""
    following = [*headers[1:], carried]
    chain = b"".join(struct.pack(">BB6x", each, 0) for each in following)
    inner = udp("10.65.9.9", "172.31.1.1", b"hidden")
    payload = inner if carried == IPIP else struct.pack(">HHHH", 4000, 4789, 8 + len(inner), 0) + inner
    return ip(WEB6, "fd31:1::1", headers[0], chain + payload)


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(hidden(60), id="behind destination options"),
        pytest.param(hidden(60, 60, 43), id="behind three headers"),
        pytest.param(hidden(60, carried=UDP), id="VXLAN behind destination options"),
        pytest.param(hidden(*[60] * 7), id="behind more headers than anybody has"),
    ],
)
def test_a_tunnels_packet_is_found_behind_extension_headers(packet: bytes) -> None:
    with lab() as made:
        guarded = Guarded(made, *CLUSTER)
        arrives = guarded.listener(guarded.router, 6)
        send(guarded.web.space, packet)
        send(guarded.web.space, udp(WEB6, "fd31:1::1", b"own"))
        assert arrives.next() == (b"own", WEB6)
        assert dropped(guarded.host) == {"pod-encapsulated": 1}


def test_a_tunnels_packet_is_found_behind_options_of_ipv4() -> None:
    with lab() as made:
        guarded = Guarded(made, *CLUSTER)
        arrives = guarded.listener(guarded.router)
        plain = udp(WEB, ROUTER, b"hidden", port=4789)
        head = struct.pack(">BBH", 0x46, 0, len(plain) + 4) + plain[4:10] + bytes(2) + plain[12:20] + b"\1\1\1\0"
        send(guarded.web.space, head + plain[20:])  # the kernel fills the checksum in
        send(guarded.web.space, udp(WEB, ROUTER, b"own"))
        assert arrives.next() == (b"own", WEB)
        assert dropped(guarded.host) == {"pod-encapsulated": 1}
