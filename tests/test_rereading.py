"""Which parameters are read again: those to which something may have happened, and those that nobody has read yet."""

from collections.abc import Iterable

import pytest

from felix_py.kernel import rereading

FORWARD = "net/ipv4/ip_forward"
ONE, TWO = (f"net/ipv4/conf/{name}/rp_filter" for name in ("cali1", "cali2"))
WANT = {FORWARD: "1", ONE: "1", TWO: "1"}


@pytest.mark.parametrize(
    ("have", "stale", "known", "read"),
    [
        pytest.param(WANT, set(), {}, [], id="nothing has happened"),
        pytest.param(WANT, {"cali1"}, {}, [ONE], id="something at one interface"),
        pytest.param(WANT, {"cali"}, {}, [], id="something at another one with such a name"),
        pytest.param({FORWARD: "1"}, set(), {}, [ONE, TWO], id="two pods have come"),
        pytest.param({FORWARD: "1"}, set(), {"cali1": {ONE: "1"}}, [TWO], id="one of them is known"),
        pytest.param({**WANT, "net/ipv4/conf/cali3/rp_filter": "1"}, set(), {}, [], id="a pod has gone"),
        pytest.param(
            WANT, set(), {"cali3": {"net/ipv4/conf/cali3/rp_filter": "1"}}, [], id="a known one is not wanted"
        ),
        pytest.param({}, set(), {}, [FORWARD, ONE, TWO], id="nothing was read yet"),
    ],
)
def test_only_that_is_read(
    have: dict[str, str], stale: set[str], known: dict[str, dict[str, str]], read: list[str]
) -> None:
    asked: list[str] = []

    def reader(paths: Iterable[str]) -> dict[str, str]:
        asked.extend(paths)
        return dict.fromkeys(asked, "1")

    assert rereading.parameters(WANT, have, stale, known, reader) == WANT
    assert asked == read


def test_what_does_not_exist_is_not_there() -> None:
    assert rereading.parameters(WANT, {FORWARD: "1"}, set(), {}, lambda _: {ONE: "0"}) == {FORWARD: "1", ONE: "0"}
