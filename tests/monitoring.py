"""What deploy/monitoring asks Prometheus: every query of the dashboard and of the alerts, and the series in them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

FOLDER = Path(__file__).parents[1] / "deploy" / "monitoring"
ALERTS = FOLDER / "felix-alerts.yaml"
SELECTOR = re.compile(r"\b((?:felix|process)_[a-z_]+)(?:\{([^}]*)\})?")
LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
GROUPING = re.compile(r"\bby \(([^)]*)\)")
GIVEN = frozenset({"job", "instance"})
"""Labels that Prometheus adds to everything that it scrapes."""


class Selected(NamedTuple):
    """A series as a query asks for it: its name, and the labels that it has to have."""

    name: str
    labels: frozenset[str]


def dashboard() -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads((FOLDER / "felix-dashboard.json").read_text())
    return parsed


def panels() -> list[dict[str, Any]]:
    return [each for each in dashboard()["panels"] if each["type"] != "row"]


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def queries() -> Iterator[tuple[str, str]]:
    """Yield every query, with the panel or alert that asks it; Grafana's variables filled in."""
    for panel in panels():
        for target in panel["targets"]:
            filled = (
                target["expr"].replace("$__rate_interval", "5m").replace("$job", "felix").replace("$instance", ".*")
            )
            yield panel["title"], filled
    for rule in alerts():
        yield rule["alert"], rule["expr"]


def selected() -> set[Selected]:
    """Return every series that is asked for, with the labels by which it is chosen or summed."""
    found = set()
    for _, query in queries():
        grouped = {name.strip() for names in GROUPING.findall(query) for name in names.split(",")}
        names = SELECTOR.findall(query)
        for name, labels in names:
            asked = set(LABEL.findall(labels)) | (grouped if len({each for each, _ in names}) == 1 else set())
            found.add(Selected(name, frozenset(asked - GIVEN)))
    return found
