"""What `felixctl tunnels` is told: how a tunnel stands, whom it reaches, what it dropped."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from felix_py import tunnel_documents
from ipip.tunnel import Tunnel

B1, B2 = IPv4Address("172.31.2.11"), IPv4Address("172.31.2.12")
WANT = Tunnel(
    IPv4Address("172.31.1.11"),
    1480,
    routes=frozenset({(IPv4Network("10.65.3.0/26"), B1), (IPv4Network("10.65.2.0/26"), B1)}),
    allowed=frozenset({B2, B1}),
)


def test_remotes_counters_and_drops() -> None:
    counters = {"sent_packets": 3, "dropped_too_big": 1, "dropped_no_route": 0}
    assert tunnel_documents.tunnel(WANT, WANT, counters, {}) == {
        "device": "tunl0",
        "local": "172.31.1.11",
        "address": None,
        "mtu": 1480,
        "state": "installed",
        "remotes": [
            {"node": "172.31.2.11", "prefixes": ["10.65.2.0/26", "10.65.3.0/26"]},
            {"node": "172.31.2.12", "prefixes": []},
        ],
        "counters": {"sent_packets": 3},
        "dropped": {"too_big": 1, "no_route": 0},
    }


@pytest.mark.parametrize(
    ("have", "state"),
    [
        pytest.param(None, "missing: no such device", id="gone"),
        pytest.param(Tunnel(WANT.local, 1400, None, WANT.routes, up=False), "differs: allowed, mtu, up", id="other"),
    ],
)
def test_how_it_stands(have: Tunnel | None, state: str) -> None:
    assert tunnel_documents.tunnel(WANT, have, {}, {})["state"] == state
