"""Alerts and dashboard of deploy/monitoring, as Prometheus itself judges them."""

import subprocess
from pathlib import Path

import pytest
import yaml
from monitoring import ALERTS, FOLDER, alerts, dashboard, panels, queries, selected


def promtool(*words: object) -> str:
    done = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, check=False, cwd=FOLDER)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.promtool
def test_prometheus_takes_the_alerts_and_they_fire_when_they_should() -> None:
    assert f"SUCCESS: {len(alerts())} rules found" in promtool("check", "rules", ALERTS)
    assert "SUCCESS" in promtool("test", "rules", FOLDER / "felix-alerts.test.yaml")


def test_every_alert_has_a_test_that_it_fires_and_one_that_it_does_not() -> None:
    text = (FOLDER / "felix-alerts.test.yaml").read_text()
    well = yaml.safe_load(text)["tests"][0]
    assert {each["alertname"] for each in well["alert_rule_test"]} == {rule["alert"] for rule in alerts()}
    assert all(each["exp_alerts"] == [] for each in well["alert_rule_test"])
    for rule in alerts():
        fires = f'alertname="{rule["alert"]}", alertstate="firing"' in text or text.count(f"{rule['alert']}\n") == 1
        assert fires, f"no test has {rule['alert']} fire"


@pytest.mark.promtool
def test_prometheus_understands_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, (_, query) in enumerate(queries())]
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", tmp_path / "queries.yaml")


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    found = dashboard()
    assert found["schemaVersion"] == 39, "that of Grafana 11.0, to which every 11 migrates by itself"
    numbers = [each["id"] for each in found["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: dict[tuple[int, int], str] = {}
    for panel in found["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert taken.setdefault(cell, panel["title"]) == panel["title"], f"{panel['title']} covers {taken[cell]}"
    for panel in panels():
        assert panel["targets"], panel["title"]
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"]), panel["title"]


@pytest.mark.parametrize(
    "subject",
    ["felix_bgp_session_state", "felix_routes", "felix_route_repairs_total", "felix_apply_seconds_bucket",
     "felix_cni_seconds_bucket", "felix_ipam_addresses", "felix_tunnel_remotes", "felix_netfilter_packets_total"],
)  # fmt: skip
def test_the_dashboard_shows(subject: str) -> None:
    assert subject in {each.name for each in selected()}
