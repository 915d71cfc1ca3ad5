"""The mirror of interfaces: what events and listings change, and what that means for routes."""

from dataclasses import replace

import pytest
from builders import link
from hypothesis import given
from hypothesis import strategies as st

from felix_py.kernel.interfaces import Interfaces, LinkChange
from felix_py.kernel.objects import Link
from felix_py.kernel.wire import AddressEvent, LinkEvent

ETH0 = link("eth0", "172.31.1.11/24")


@pytest.mark.parametrize(
    ("before", "after", "news"),
    [
        pytest.param(None, ETH0, ["added"], id="new"),
        pytest.param(ETH0, None, ["gone"], id="gone"),
        pytest.param(ETH0, replace(ETH0, name="wan"), ["renamed"], id="renamed"),
        pytest.param(ETH0, replace(ETH0, up=False, running=False), ["down"], id="down, and with it the carrier"),
        pytest.param(replace(ETH0, up=False, running=False), ETH0, ["up"], id="up"),
        pytest.param(ETH0, replace(ETH0, running=False), ["no carrier"], id="cable out"),
        pytest.param(ETH0, replace(ETH0, mtu=1400, addresses=frozenset()), ["MTU changed", "addresses changed"]),
    ],
)
def test_news(before: Link | None, after: Link | None, news: list[str]) -> None:
    assert list(LinkChange(before, after).news()) == news


def test_routes_are_lost_with_going_down_and_with_the_interface_but_not_with_the_carrier() -> None:
    down = replace(ETH0, up=False, running=False)
    assert LinkChange(ETH0, down).lost_routes
    assert LinkChange(ETH0, None).lost_routes
    assert not LinkChange(ETH0, replace(ETH0, running=False)).lost_routes
    assert not LinkChange(down, None).lost_routes, "it had lost them already"


def test_an_address_that_goes_may_take_routes_along() -> None:
    assert LinkChange(ETH0, replace(ETH0, addresses=frozenset())).lost_address
    assert not LinkChange(replace(ETH0, addresses=frozenset()), ETH0).lost_address


def test_events_keep_the_mirror() -> None:
    mirror = Interfaces()
    mirror.replace([ETH0])
    mirror.see(AddressEvent(ETH0.index, "172.31.1.99/24"))
    mirror.see(LinkEvent(replace(ETH0, mtu=1400, addresses=frozenset())))
    expected = replace(ETH0, mtu=1400, addresses=frozenset({"172.31.1.11/24", "172.31.1.99/24"}))
    assert mirror.by_name == {"eth0": expected}
    mirror.see(AddressEvent(ETH0.index, "172.31.1.11/24", gone=True))
    assert mirror.by_name["eth0"].addresses == {"172.31.1.99/24"}
    assert mirror.see(AddressEvent(99, "10.0.0.1/8")) == (), "an interface that was never seen"
    mirror.see(LinkEvent(ETH0, gone=True))
    assert mirror.by_name == {}


def test_the_view_by_name_is_the_same_object_until_something_changes() -> None:
    mirror = Interfaces()
    mirror.replace([ETH0])
    view = mirror.by_name
    assert mirror.see(LinkEvent(replace(ETH0, addresses=frozenset()))) == ()
    assert mirror.by_name is view
    mirror.see(LinkEvent(replace(ETH0, mtu=9000)))
    assert mirror.by_name is not view


LINKS = st.builds(
    Link,
    name=st.sampled_from(["eth0", "cali1", "cali2", "tunl0"]),
    index=st.integers(1, 5),
    mtu=st.sampled_from([1400, 1500]),
    up=st.booleans(),
    running=st.booleans(),
    addresses=st.frozensets(st.sampled_from(["10.0.0.1/8", "10.0.0.2/8"])),
)


@given(st.lists(LINKS, max_size=6), st.lists(LINKS, unique_by=lambda each: each.index, max_size=5))
def test_a_listing_wins_over_everything_before(events: list[Link], listing: list[Link]) -> None:
    mirror = Interfaces()
    for each in events:
        mirror.see(LinkEvent(each))
    mirror.replace(listing)
    assert dict(mirror.by_index) == {each.index: each for each in listing}
    assert mirror.replace(listing) == ()
