"""Settings: default, file, environment, in that order; every fault at once."""

from pathlib import Path

import pytest

from felix_py.config import Config, ListenAddress, load
from felix_py.model import Invalid, NodeName


def test_defaults_name_the_node_after_the_host() -> None:
    assert load(None, {}, where="felix.yaml", host_name="a1") == Config(NodeName("a1"))


def test_environment_beats_file() -> None:
    config = load({"nodeName": "a1", "logLevel": "debug"}, {"FELIX_NODENAME": "a2"}, where="felix.yaml", host_name="h")
    assert (config.node_name, config.log_level) == ("a2", "debug")


def test_paths_are_paths() -> None:
    assert load({"runDirectory": "/run/x"}, {}, where="f", host_name="h").run_directory == Path("/run/x")


@pytest.mark.parametrize(("said", "kept"), [("Enabled", True), ("disabled", False)])
def test_the_packet_filter_is_switched(said: str, kept: bool) -> None:  # noqa: FBT001 - a case's expectation
    assert load({"netfilter": said}, {}, where="f", host_name="h").netfilter is kept


def test_every_fault_in_one_message() -> None:
    with pytest.raises(Invalid) as caught:
        load({"logLevel": "loud", "colour": "red"}, {"FELIX_RESYNCSECONDS": "-1"}, where="felix.yaml", host_name="h")
    assert [str(fault).split(";")[0] for fault in caught.value.faults] == [
        "felix.yaml: logLevel: is 'loud'",
        "felix.yaml: colour: is not a setting",
        "FELIX_RESYNCSECONDS: resyncSeconds: is '-1'",
    ]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9099", ListenAddress("127.0.0.1", 9099)),
        ("0.0.0.0:1", ListenAddress("0.0.0.0", 1)),  # noqa: S104 - an address to parse
        ("[::1]:65535", ListenAddress("::1", 65535)),
        ("none", None),
        (" None ", None),
    ],
)
def test_where_metrics_are_served(text: str, address: ListenAddress | None) -> None:
    config = load({}, {"FELIX_METRICSADDRESS": text}, where="felix.yaml", host_name="h")
    assert config.metrics_address == address
    assert load({}, {}, where="felix.yaml", host_name="h").metrics_address == ListenAddress("127.0.0.1", 9099)
    assert address is None or str(address) == text.strip()


@pytest.mark.parametrize(
    "raw",
    [
        9099, None, "", ":9099", "9099", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:+1",
        "127.0.0.1:9_0", "127.0.0.1:\u0669", "::1:9099", "[::1]", "[127.0.0.1]:9099", "localhost:9099",
    ],
)  # fmt: skip
def test_a_bad_address_is_refused_with_what_to_give(raw: object) -> None:
    with pytest.raises(Invalid) as caught:
        load({"metricsAddress": raw}, {}, where="felix.yaml", host_name="h")
    what = "an IP address and a port, as 127.0.0.1:9099 or [::1]:9099, or none"
    assert [str(fault) for fault in caught.value.faults] == [f"felix.yaml: metricsAddress: is {raw!r}; give {what}"]


@pytest.mark.parametrize(
    ("text", "driver"), [("auto", "auto"), ("kernel", "kernel"), ("ebpf", "ebpf"), ("Tun", "tun"), ("userspace", "tun")]
)
def test_tunnel_drivers_and_a_former_name(text: str, driver: str) -> None:
    assert load({"tunnelDriver": text}, {}, where="felix.yaml", host_name="h").tunnel_driver == driver


@pytest.mark.parametrize("raw", ["xdp", None, 7])
def test_another_tunnel_driver_is_refused_with_what_to_give(raw: object) -> None:
    with pytest.raises(Invalid) as caught:
        load({"tunnelDriver": raw}, {}, where="felix.yaml", host_name="h")
    assert [str(fault) for fault in caught.value.faults] == [
        f"felix.yaml: tunnelDriver: is {raw!r}; give auto, kernel, ebpf or tun"
    ]
