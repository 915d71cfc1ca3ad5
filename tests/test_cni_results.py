"""Results in the form of each spec version."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from felix_py.cni import results
from felix_py.cni.spec import CniError, Code
from felix_py.ledger import Attachment

POD = Attachment(
    "c1",
    "eth0",
    "default/web-0",
    "cali0d7763386da",
    (IPv4Address("10.65.0.5"),),
    mac="02:00:0a:41:00:05",
    netns="/run/netns/p1",
)
HOST_END = {"name": "cali0d7763386da", "mac": "ee:ee:ee:ee:ee:ee"}
POD_END = {"name": "eth0", "mac": "02:00:0a:41:00:05", "sandbox": "/run/netns/p1"}
ADDRESS = {"address": "10.65.0.5/32", "gateway": "169.254.1.1", "interface": 1}
DEFAULT = {"dst": "0.0.0.0/0", "gw": "169.254.1.1"}


@pytest.mark.parametrize(
    ("version", "interfaces", "ips", "routes"),
    [
        ("0.3.1", [HOST_END, POD_END], [{"version": "4", **ADDRESS}], [{"dst": "169.254.1.1/32"}, DEFAULT]),
        ("0.4.0", [HOST_END, POD_END], [{"version": "4", **ADDRESS}], [{"dst": "169.254.1.1/32"}, DEFAULT]),
        ("1.0.0", [HOST_END, POD_END], [ADDRESS], [{"dst": "169.254.1.1/32"}, DEFAULT]),
        (
            "1.1.0",
            [{**HOST_END, "mtu": 1480}, {**POD_END, "mtu": 1480}],
            [ADDRESS],
            [{"dst": "169.254.1.1/32", "scope": 253}, DEFAULT],
        ),
    ],
)
def test_the_form_of_each_version(version: str, interfaces: list[Any], ips: list[Any], routes: list[Any]) -> None:
    assert results.added(version, POD, 1480) == {
        "cniVersion": version,
        "interfaces": interfaces,
        "ips": ips,
        "routes": routes,
        "dns": {},
    }


@pytest.mark.parametrize(
    ("version", "family4", "family6"),
    [("0.4.0", {"version": "4"}, {"version": "6"}), ("1.0.0", {}, {})],
)
def test_a_pod_with_an_address_of_each_version_of_ip(
    version: str, family4: dict[str, str], family6: dict[str, str]
) -> None:
    both = replace(POD, addresses=(*POD.addresses, IPv6Address("fd65::5")))
    found = results.added(version, both, 1480)
    gateway = "fe80::ecee:eeff:feee:eeee"
    assert found["ips"] == [
        {**family4, **ADDRESS},
        {**family6, "address": "fd65::5/128", "gateway": gateway, "interface": 1},
    ]
    assert found["routes"] == [{"dst": "169.254.1.1/32"}, DEFAULT, {"dst": "::/0", "gw": gateway}]


def test_a_pod_with_an_ipv6_address_alone_has_no_ipv4_route() -> None:
    found = results.added("1.0.0", replace(POD, addresses=(IPv6Address("fd65::5"),)), 1480)
    assert found["routes"] == [{"dst": "::/0", "gw": "fe80::ecee:eeff:feee:eeee"}]


def test_the_plugins_before_us_stay_in_the_result_and_indexes_fit() -> None:
    before = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "x0"}, {"name": "x1"}, {"name": "x2"}],
        "ips": [{"address": "192.0.2.1/24", "interface": 2}],
        "routes": [{"dst": "198.51.100.0/24"}],
        "dns": {"nameservers": ["192.0.2.53"]},
    }
    found = results.added("1.0.0", POD, 1480, before)
    assert found["interfaces"][3:] == [HOST_END, POD_END]
    assert [each["interface"] for each in found["ips"]] == [2, 4]
    assert found["interfaces"][found["ips"][1]["interface"]] == POD_END
    assert found["routes"][0] == {"dst": "198.51.100.0/24"}
    assert found["dns"] == {"nameservers": ["192.0.2.53"]}


def test_a_previous_result_with_odd_parts_does_no_harm() -> None:
    assert len(results.added("1.0.0", POD, 1480, {"interfaces": 5, "ips": None})["interfaces"]) == 2


def test_errors() -> None:
    assert results.error("0.4.0", CniError(Code.TRY_AGAIN_LATER, "block 10.65.0.0/26 is full")) == {
        "cniVersion": "0.4.0",
        "code": 11,
        "msg": "block 10.65.0.0/26 is full",
    }
    assert results.error("0.4.0", CniError(Code.DECODING_FAILURE, "no JSON", "at column 5"))["details"] == "at column 5"


def test_versions_are_sorted() -> None:
    found = results.versions("0.4.0")
    assert found == {"cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]}
