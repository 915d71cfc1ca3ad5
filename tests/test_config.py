"""Settings: default, file, environment, in that order; every fault at once."""

from pathlib import Path

import pytest

from felix_py.config import Config, load
from felix_py.model import Invalid, NodeName


def test_defaults_name_the_node_after_the_host() -> None:
    assert load(None, {}, where="felix.yaml", host_name="a1") == Config(NodeName("a1"))


def test_environment_beats_file() -> None:
    config = load({"nodeName": "a1", "logLevel": "debug"}, {"FELIX_NODENAME": "a2"}, where="felix.yaml", host_name="h")
    assert (config.node_name, config.log_level) == ("a2", "debug")


def test_paths_are_paths() -> None:
    assert load({"runDirectory": "/run/x"}, {}, where="f", host_name="h").run_directory == Path("/run/x")


def test_every_fault_in_one_message() -> None:
    with pytest.raises(Invalid) as caught:
        load({"logLevel": "loud", "colour": "red"}, {"FELIX_RESYNCSECONDS": "-1"}, where="felix.yaml", host_name="h")
    assert [str(fault).split(";")[0] for fault in caught.value.faults] == [
        "felix.yaml: logLevel: is 'loud'",
        "felix.yaml: colour: is not a setting",
        "FELIX_RESYNCSECONDS: resyncSeconds: is '-1'",
    ]
