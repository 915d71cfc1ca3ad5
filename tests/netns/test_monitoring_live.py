"""What alerts and dashboard ask for is there: a running agent serves every metric with every label, and its probes."""

import subprocess
from collections.abc import Iterator

import pytest
from labs import eventually, lab_name, on_machine, standing
from monitoring import selected
from prometheus_client.parser import text_string_to_metric_families

from felix_py.lab import machines
from felix_py.lab.state import Lab

pytestmark = pytest.mark.netns

GET = (
    "import sys, urllib.request, urllib.error\ntry: print(urllib.request.urlopen(sys.argv[1]).read().decode(), end='')"
)
GET += "\nexcept urllib.error.HTTPError as error: print(error.read().decode(), end='')"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with standing(lab_name("watch")) as lab:
        yield lab


def asked(lab: Lab, path: str) -> str:
    words = [*machines.enter(lab, "a1"), "python3", "-c", GET, f"http://127.0.0.1:9099{path}"]
    return subprocess.run(words, capture_output=True, text=True, check=True, env=machines.environment()).stdout


def test_every_series_that_is_asked_for_is_served_with_its_labels(lab: Lab) -> None:
    # So that a repair has been counted; sessions, and so the route, may just be coming back after the other test.
    assert eventually(lambda: on_machine(lab.name, "a1", "ip", "route", "del", "10.65.2.0/26").status == 0)
    assert eventually(lambda: 'felix_route_repairs_total{cause="route deleted"}' in asked(lab, "/metrics"))
    families = list(text_string_to_metric_families(asked(lab, "/metrics")))
    served: dict[str, set[frozenset[str]]] = {}
    for family in families:
        for sample in family.samples:
            served.setdefault(sample.name, set()).add(frozenset(sample.labels))
        names = (family.name, f"{family.name}_total", *(f"{family.name}_{part}" for part in ("bucket", "sum", "count")))
        for name in names[:2] if family.type in ("counter", "gauge") else names:
            served.setdefault(name, set())
    for name, labels in selected():
        assert name in served, f"{name} is not served"
        # A counter of which nothing has happened has no series yet, and only its name is known.
        assert not served[name] or any(labels <= each for each in served[name]), f"{name} has not {sorted(labels)}"


def test_probes_name_the_check_that_fails_and_so_does_its_series(lab: Lab) -> None:
    assert asked(lab, "/livez?verbose").splitlines()[0] == "[+]loop ok"
    assert "[+]bgp ok" in asked(lab, "/readyz?verbose")
    peers = ("172.31.1.1", "172.31.1.12", "172.31.2.11", "172.31.2.12")
    for peer in peers:
        assert on_machine(lab.name, "a1", "felixctl", "bgp", "disable", peer).status == 0
    try:
        assert eventually(lambda: "[-]bgp failed:" in asked(lab, "/readyz"))
        assert "readyz check failed" in asked(lab, "/readyz")
        assert 'felix_health_check{check="bgp",probe="ready"} 0.0' in asked(lab, "/metrics")
    finally:
        for peer in peers:
            on_machine(lab.name, "a1", "felixctl", "bgp", "enable", peer)
    assert eventually(lambda: asked(lab, "/readyz") == "ok\n", 30)
