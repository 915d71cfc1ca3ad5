"""What `felixctl doctor` makes of a host: each check with what is well, what is wrong, and how it is put right."""

from dataclasses import replace
from typing import Any

import pytest
from builders import link, links

from felix_py.ctl import doctor_checks
from felix_py.ctl.doctor_checks import CHECKS, Finding, State
from felix_py.ctl.doctor_facts import Facts
from felix_py.kernel import base_chains
from felix_py.kernel.base_chains import Chain

STATUS: dict[str, Any] = {
    "node": "a1",
    "problems": [],
    "tunnel": {"driver": "kernel", "why": "kernel: the ipip module is there", "device": "tunl0", "mtu": 1480},
    "bgp": {"childPid": 42},
}
WELL = Facts(
    status=STATUS,
    parameters={
        "net/ipv4/ip_forward": "1",
        "net/ipv4/conf/all/rp_filter": "0",
        "net/ipv4/conf/cali1/proxy_arp": "1",
        "net/netfilter/nf_conntrack_count": "12",
        "net/netfilter/nf_conntrack_max": "262144",
    },
    links=links(link("eth0", "172.31.1.11/24"), link("cali1", mtu=1480), link("tunl0", mtu=1480)),
    routed=frozenset({("00000000", "00000000")}),
    chains=(Chain("inet felix", "forward", "forward", "accept"),),
    table=True,
    listeners={42: "process 42 (exabgp)"},
    programs={"exabgp": 42},
)
NO_AGENT = replace(WELL, status=None, unreachable="no agent runs here: /run/felix/agent.sock does not exist")
DOCKER = Chain("ip filter", "FORWARD", "forward", "drop", "jump DOCKER-USER")
STRICT = Chain("inet firewall", "input", "input", "drop", "tcp dport 22 accept")


def status(**changed: Any) -> Facts:
    return replace(WELL, status={**STATUS, **changed})


def found(name: str, facts: Facts) -> Finding:
    return dict(doctor_checks.examine(facts))[name]


def test_a_host_as_it_should_be_needs_nothing() -> None:
    assert {finding.state for _, finding in doctor_checks.examine(WELL)} == {State.OK}
    assert [finding.fix for _, finding in doctor_checks.examine(WELL) if finding.fix] == []


FAULTS = [
    ("agent", NO_AGENT, State.FAILED, "no agent runs here", "felix-agent run"),
    ("agent", status(problems=["p", "q"]), State.FAILED, "p, and 1 more", "felixctl status"),
    (
        "forwarding",
        replace(WELL, parameters={"net/ipv4/ip_forward": "0"}),
        State.FAILED,
        "is 0",
        "net.ipv4.ip_forward=1",
    ),
    (
        "pod interfaces",
        replace(WELL, parameters={"net/ipv4/conf/cali1/proxy_arp": "0"}),
        State.FAILED,
        "net/ipv4/conf/cali1/proxy_arp is not 1",
        "sysctl -w net/ipv4/conf/cali1/proxy_arp=1",
    ),
    ("gateway", replace(WELL, routed=frozenset()), State.FAILED, "proxy ARP is silent", "ip route add 169.254.1.1/32"),
    (
        "reverse path",
        replace(WELL, parameters={"net/ipv4/conf/all/rp_filter": "2"}, table=False),
        State.FAILED,
        "pods may send from any address",
        "rp_filter=1",
    ),
    ("packet filter", replace(WELL, table=False), State.FAILED, "not there", "netfilter: Enabled"),
    ("packet filter", replace(WELL, nftables="no library"), State.FAILED, "no library", "libnftables1"),
    (
        "FORWARD policy",
        replace(WELL, chains=(DOCKER,)),
        State.FAILED,
        "chain ip filter FORWARD drops",
        "iptables -I FORWARD -i cali+ -j ACCEPT; iptables -I FORWARD -o cali+ -j ACCEPT",
    ),
    (
        "FORWARD policy",
        replace(WELL, chains=(replace(STRICT, name="fwd", hook="forward"),)),
        State.FAILED,
        "chain inet firewall fwd drops",
        "nft insert rule inet firewall fwd 'iifname \"cali*\" accept'",
    ),
    ("FORWARD policy", replace(WELL, nftables="no library"), State.SKIPPED, "could not be asked", ""),
    ("INPUT policy", replace(WELL, chains=(STRICT,)), State.FAILED, "inet firewall input", "tcp dport 179 accept"),
    ("old iptables", replace(WELL, legacy=("nat", "filter")), State.WARNING, "old iptables", "iptables-legacy -S"),
    ("firewall", replace(WELL, programs={"firewalld": 7}), State.WARNING, "firewalld runs", "--add-interface=cali+"),
    (
        "tunnel",
        status(tunnel={**STATUS["tunnel"], "driver": "tun", "why": "no module"}),
        State.WARNING,
        "a process: no module",
        "modprobe ipip",
    ),
    ("tunnel", status(tunnel=None), State.SKIPPED, "no tunnel", ""),
    ("MTU", status(tunnel={**STATUS["tunnel"], "mtu": 1490}), State.FAILED, "the 1510 bytes", "raise the MTU"),
    (
        "MTU",
        replace(WELL, links=links(link("eth0"), link("cali1", mtu=1500))),
        State.WARNING,
        "cali1 has MTU 1500, and the tunnel 1480",
        "restart the pod",
    ),
    ("MTU", NO_AGENT, State.SKIPPED, "no agent", ""),
    (
        "BGP port",
        replace(WELL, listeners={7: "process 7 (bird)"}),
        State.FAILED,
        "in use by process 7 (bird)",
        "listenPort",
    ),
    ("BGP port", replace(WELL, listeners={}), State.WARNING, "nobody listens", "listenPort"),
    (
        "other networking",
        replace(WELL, programs={"kube-router": 9}),
        State.FAILED,
        "kube-router runs here too (process 9",
        "only one program",
    ),
    (
        "conntrack",
        replace(
            WELL,
            parameters={"net/netfilter/nf_conntrack_count": "95", "net/netfilter/nf_conntrack_max": "100"},
        ),
        State.FAILED,
        "95 of 100",
        "nf_conntrack_max=200",
    ),
]


@pytest.mark.parametrize(("name", "facts", "state", "detail", "fix"), FAULTS)
def test_what_is_wrong_is_named_with_its_fix(name: str, facts: Facts, state: State, detail: str, fix: str) -> None:
    finding = found(name, facts)
    assert finding.state is state
    assert detail in finding.detail
    assert fix in finding.fix
    assert bool(finding.fix) is (state is not State.SKIPPED)


def test_every_check_is_seen_failing_or_warning() -> None:
    assert {name for name, *_ in FAULTS} == {name for name, _ in CHECKS}


@pytest.mark.parametrize(
    "chain",
    [
        pytest.param(replace(DOCKER, policy="accept"), id="it accepts by default"),
        pytest.param(replace(DOCKER, rules='iifname "cali*" counter accept\noifname "cali*" accept'), id="pods pass"),
    ],
)
def test_a_forward_chain_that_lets_pods_pass_is_well(chain: Chain) -> None:
    assert found("FORWARD policy", replace(WELL, chains=(chain,))).state is State.OK


def test_a_free_port_is_well_while_no_agent_runs() -> None:
    assert found("BGP port", replace(NO_AGENT, listeners={})).state is State.OK


def test_base_chains_are_found_in_a_ruleset() -> None:
    ruleset = (
        "table ip filter {\n\tchain DOCKER-USER {\n\t\treturn\n\t}\n\n\tchain FORWARD {\n"
        "\t\ttype filter hook forward priority filter; policy drop;\n\t\tjump DOCKER-USER\n\t}\n}\n"
        "table inet felix {\n\tset pods {\n\t\ttype ifname\n\t}\n\n\tchain input {\n"
        "\t\ttype filter hook input priority filter - 5; policy accept;\n\t}\n}\n"
    )
    assert [(str(each), each.hook, each.policy) for each in base_chains.chains_of(ruleset)] == [
        ("ip filter FORWARD", "forward", "drop"),
        ("inet felix input", "input", "accept"),
    ]
