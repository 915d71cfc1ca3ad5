"""All drivers speak the same protocol: each in one rack, each in the other; those with the module in the guest."""

from collections.abc import Iterator

import ipip_lab
import pytest
from ipip_lab import Racks, until

pytestmark = pytest.mark.netns


def pair(one: str, two: str) -> object:
    marks = [pytest.mark.ipip_module] if "kernel" in (one, two) else []
    return pytest.param((one, two), id=f"{one} asks {two}", marks=marks)


@pytest.fixture(
    scope="module", params=[pair(one, two) for one in ("kernel", "ebpf", "tun") for two in ("kernel", "ebpf", "tun")]
)
def shared(request: pytest.FixtureRequest) -> Iterator[Racks]:
    with ipip_lab.racks(*request.param) as made:
        yield made


@pytest.fixture
def racks(shared: Racks) -> Racks:
    return shared.reset()


@pytest.mark.parametrize("size", [pytest.param(0, id="empty"), pytest.param(1452, id="full")])
def test_packets_pass_both_ways(racks: Racks, size: int) -> None:
    assert racks.ping("-M", "do", "-s", size).returncode == 0


def test_congestion_marks_pass(racks: Racks) -> None:
    assert racks.ping("-Q", "3").returncode == 0


def test_outer_fragments_are_put_together(racks: Racks) -> None:
    racks.tor.mtu("rack2", 1400)
    racks.b1.namespace.mtu("eth0", 1400)
    assert until(lambda: racks.ping("-M", "dont", "-s", 1452).returncode == 0, "fragments arrive")


def test_strangers_are_dropped_on_either_side(racks: Racks) -> None:
    racks.b1.put(allowed=frozenset())
    before = racks.b1.counters()["dropped_source_not_allowed"]
    assert racks.ping().returncode == 1
    assert racks.b1.counters()["dropped_source_not_allowed"] == before + 1
