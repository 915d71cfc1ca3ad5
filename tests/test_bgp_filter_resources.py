"""BGPFilter: documents in, filters or every fault out."""

from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest

from bgp.filters import Action, AddCommunity, Filter, Operator, PrependAsPath, Rule, SetPriority
from felix_py import resources
from felix_py.model import Invalid, Resource


def document(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "BGPFilter",
        "metadata": {"name": "f"},
        "spec": spec,
    }


def parsed(given: dict[str, Any]) -> Resource:
    return resources.parse(given, "f.yaml")[1]


def complaints(*rules: object, to: str = "importV4") -> list[str]:
    with pytest.raises(Invalid) as caught:
        resources.parse(document(**{to: list(rules)}), "f.yaml")
    return [f"{fault.path}: {fault.message}" for fault in caught.value.faults]


def test_a_filter_without_rules() -> None:
    assert parsed(document()) == Filter("f")


def test_each_list_has_its_place() -> None:
    given = document(
        importV4=[{"action": "Accept"}],
        exportV4=[{"action": "Reject"}],
        importV6=[{"action": "Accept", "interface": "eth*"}],
        exportV6=[{"action": "Reject", "peerType": "eBGP"}],
    )
    assert parsed(given) == Filter(
        "f",
        import_v4=(Rule(Action.ACCEPT),),
        export_v4=(Rule(Action.REJECT),),
        import_v6=(Rule(Action.ACCEPT, interface="eth*"),),
        export_v6=(Rule(Action.REJECT, peer_type="eBGP"),),
    )


def test_a_rule_with_everything() -> None:
    given = {
        "action": "Accept",
        "cidr": "10.65.0.0/16",
        "matchOperator": "In",
        "prefixLength": {"min": 24, "max": 28},
        "source": "RemotePeers",
        "interface": "eth0",
        "peerType": "iBGP",
        "communities": {"values": ["64512:1", "64512:2:3"]},
        "asPathPrefix": [64500, "1.10"],
        "priority": 512,
        "operations": [
            {"addCommunity": {"value": "65535:65281"}},
            {"prependASPath": {"prefix": [64999, 64999]}},
            {"setPriority": {"value": 100}},
        ],
    }
    assert parsed(document(exportV4=[given])) == Filter(
        "f",
        export_v4=(
            Rule(
                Action.ACCEPT,
                IPv4Network("10.65.0.0/16"),
                Operator.IN,
                (24, 28),
                "RemotePeers",
                "eth0",
                "iBGP",
                ((64512, 1), (64512, 2, 3)),
                (64500, 65546),
                512,
                (AddCommunity((65535, 65281)), PrependAsPath((64999, 64999)), SetPriority(100)),
            ),
        ),
    )


def test_rules_keep_their_order() -> None:
    given = [{"action": "Accept", "cidr": f"fd00:{number}::/32", "matchOperator": "Equal"} for number in (3, 1, 2)]
    found = parsed(document(importV6=given))
    assert isinstance(found, Filter)
    assert [rule.cidr for rule in found.import_v6] == [IPv6Network(f"fd00:{number}::/32") for number in (3, 1, 2)]


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ({}, "spec.importV4[0].action: is missing; give Accept or Reject"),
        ({"action": "Allow"}, "spec.importV4[0].action: is 'Allow'; give Accept or Reject"),
        ("Accept", "spec.importV4[0]: must be a mapping, not 'Accept'"),
        (
            {"action": "Accept", "cidr": "10.65.0.0/16"},
            "spec.importV4[0].matchOperator: is missing; cidr needs it",
        ),
        (
            {"action": "Accept", "matchOperator": "In"},
            "spec.importV4[0].cidr: is missing; matchOperator needs it",
        ),
        (
            {"action": "Accept", "prefixLength": {"min": 24}},
            "spec.importV4[0].cidr: is missing; prefixLength needs it",
        ),
        (
            {"action": "Accept", "cidr": "fd00::/8", "matchOperator": "In"},
            "spec.importV4[0].cidr: is 'fd00::/8'; give an IPv4 network without host bits, as 10.65.0.0/16",
        ),
        (
            {"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"max": 33}},
            "spec.importV4[0].prefixLength.max: is 33; give a prefix length from 0 to 32",
        ),
        (
            {"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"min": 9, "max": 8}},
            "spec.importV4[0].prefixLength.min: is 9, longer than max 8, so no prefix matches; give at most 8",
        ),
        (
            {"action": "Accept", "communities": {"values": ["64512"]}},
            ("spec.importV4[0].communities.values[0]: is '64512'; give a community, as 64512:100 or 64512:100:7"),
        ),
        (
            {"action": "Reject", "operations": [{"setPriority": {"value": 1}}]},
            ("spec.importV4[0].operations: changes routes that are rejected; remove it, or give action Accept"),
        ),
        (
            {"action": "Accept", "operations": [{"setMED": {"value": 1}}]},
            (
                "spec.importV4[0].operations[0].setMED: is not supported; remove it "
                "(supported here: addCommunity, prependASPath, setPriority)"
            ),
        ),
        (
            {"action": "Accept", "operations": [{}]},
            ("spec.importV4[0].operations[0]: has 0 operations; give one of addCommunity, prependASPath, setPriority"),
        ),
        (
            {"action": "Accept", "operations": [{"prependASPath": {"prefix": []}}]},
            "spec.importV4[0].operations[0].prependASPath.prefix: is missing; give AS numbers, as [64512]",
        ),
        (
            {"action": "Accept", "operations": [{"setPriority": {"value": 0}}]},
            ("spec.importV4[0].operations[0].setPriority.value: is 0; give a priority from 1 to 2147483646"),
        ),
        (
            {"action": "Accept", "operations": [{"setPriority": {"value": 1}}] * 11},
            "spec.importV4[0].operations: has 11 operations; give at most 10",
        ),
        ({"action": "Accept", "source": "Self"}, "spec.importV4[0].source: is 'Self'; give RemotePeers"),
    ],
)
def test_each_fault_is_one_sentence(rule: object, sentence: str) -> None:
    assert complaints(rule) == [sentence]


def test_all_faults_of_all_rules_come_in_one_message() -> None:
    assert [each.partition(":")[0] for each in complaints({"action": "x"}, {"action": "Accept", "peerType": "y"})] == [
        "spec.importV4[0].action",
        "spec.importV4[1].peerType",
    ]


def test_ipv6_lists_take_ipv6_networks_only() -> None:
    assert complaints({"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In"}, to="exportV6") == [
        "spec.exportV6[0].cidr: is '10.0.0.0/8'; give an IPv6 network without host bits, as fd00:65::/48"
    ]
