"""Scenarios and drivers stand outside test modules, and say as much as these when they fail."""

import pytest

pytest.register_assert_rewrite(
    "daemons", "felix_node", "interop_lab", "scenarios", "daemon_bird", "daemon_frr", "daemon_gobgp", "pings"
)
