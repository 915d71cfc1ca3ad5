"""Every scenario with every daemon; `docs/interop.md` is written from what this finds."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from interop_lab import KINDS, Lab
from scenarios import families, restarts, routes, sessions
from scenarios.registry import SCENARIOS, Scenario

assert all((families, restarts, routes, sessions)), "importing them fills the list"

AT_ONCE = 3
"""Cells that are played together: nearly all of their time is waiting for somebody's timer."""

Properties = list[tuple[str, object]]


def _cells() -> Iterator[Any]:
    for kind in KINDS:
        for each in SCENARIOS:
            reason = each.pending.get(kind) or each.pending.get("all")
            marks = [pytest.mark.interop, pytest.mark.matrix, getattr(pytest.mark, kind)]
            marks += [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
            yield pytest.param(kind, each, marks=marks, id=f"{each.number}-{each.play.__name__}-{kind}")


@pytest.fixture(scope="module")
def played(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Future[tuple[BaseException | None, Properties]]]]:
    """Play the chosen cells in their order, a few at a time, and give what comes of each by the test's ID."""
    chosen = [
        item for item in request.session.items if isinstance(item, pytest.Function) and "played" in item.fixturenames
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {}
        for item in chosen:
            kind, each = str(item.callspec.params["kind"]), item.callspec.params["each"]
            assert isinstance(each, Scenario)
            lab = Lab(kind, tmp_path_factory.mktemp(f"{each.number}-{kind}"))
            futures[item.nodeid] = pool.submit(_play, lab, each)
        yield futures
        pool.shutdown(cancel_futures=True)


def _play(lab: Lab, each: Scenario) -> tuple[BaseException | None, Properties]:
    start = time.monotonic()
    properties: Properties = [("number", each.number), ("title", each.title), ("kind", lab.kind)]
    try:
        if lab.kind in each.cannot:
            assert each.refuse is not None
            properties.append(("cannot", each.cannot[lab.kind]))
            each.refuse(lab)
        else:
            each.play(lab)
    except BaseException as failure:  # noqa: BLE001 - the test raises it
        return failure, properties
    finally:
        properties.append(("seconds", f"{time.monotonic() - start:.1f}"))
        properties += [("note", note) for note in lab.notes] + [("version", lab.version())]
        lab.down()
    return None, properties


@pytest.mark.parametrize(("kind", "each"), list(_cells()))
def test_cell(
    kind: str,
    each: Scenario,
    played: Mapping[str, Future[tuple[BaseException | None, Properties]]],
    record_property: Callable[[str, object], None],
    request: pytest.FixtureRequest,
) -> None:
    failure, properties = played[request.node.nodeid].result()
    for name, value in properties:
        record_property(name, value)
    if failure is not None:
        raise failure
    assert ("kind", kind) in properties
    assert ("number", each.number) in properties
