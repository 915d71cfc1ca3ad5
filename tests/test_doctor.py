"""What `felixctl doctor` makes of a host: each check with what is well, what is wrong, and how it is put right."""

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest
from builders import link, links

from felix_py.ctl import doctor_checks
from felix_py.ctl.doctor_checks import CHECKS
from felix_py.ctl.doctor_facts import Facts
from felix_py.ctl.doctor_findings import Finding, State
from felix_py.ctl.probe_packets import TooLarge, Way
from felix_py.ctl.tunnel_probe import Probe
from felix_py.kernel import base_chains
from felix_py.kernel.base_chains import Chain

STATUS: dict[str, Any] = {
    "node": "a1",
    "problems": [],
    "tunnel": {
        "driver": "kernel",
        "why": "kernel: the ipip module is there",
        "device": "tunl0",
        "mtu": 1480,
        "overhead": 20,
    },
    "bgp": {"childPid": 42},
    "guard": {"kind": "ebpf", "why": "ebpf: this kernel takes our BPF programs"},
}
HERE = {"name": "a1", "addresses": ["172.31.1.11/24"], "blocks": ["10.65.0.0/26", "fd65::/122"], "here": True}
OTHER = {"name": "b2", "addresses": ["172.31.2.12/24"], "blocks": ["10.65.3.0/26"], "here": False}
TUNNEL = {"device": "tunl0", "state": "installed", "dropped": {"source_not_allowed": 0}, "remotes": []}
PROBE = Probe(IPv4Address("172.31.1.11"), IPv4Address("172.31.2.12"), "b2", frozenset(Way), 1500, 1500)
WELL = Facts(
    status=STATUS,
    parameters={
        "net/ipv4/ip_forward": "1",
        "net/ipv4/conf/all/rp_filter": "0",
        "net/ipv4/conf/cali1/proxy_arp": "1",
        "net/netfilter/nf_conntrack_count": "12",
        "net/netfilter/nf_conntrack_max": "262144",
        "net/ipv6/conf/all/forwarding": "1",
        "net/ipv4/neigh/default/gc_thresh3": "1024",
    },
    links=links(link("eth0", "172.31.1.11/24"), link("cali1", mtu=1480), link("tunl0", mtu=1480)),
    routed=frozenset({("00000000", "00000000")}),
    chains=(Chain("inet felix", "forward", "forward", "accept"),),
    table=True,
    listeners={42: "process 42 (exabgp)"},
    programs={"exabgp": 42},
    nodes=(HERE, OTHER),
    tunnels=(TUNNEL,),
    probes=(PROBE,),
    drivers=frozenset({"kernel", "tun"}),
    neighbours=12,
    descriptors=(28, 1024),
    free={"/etc/felix/resources": 1 << 30, "/var/lib/felix": 1 << 30},
    cni=(("00-felix.conflist", ("felix-cni", "portmap")), ("10-flannel.conflist", ("flannel",))),
    plugin=True,
)
NO_AGENT = replace(
    WELL,
    status=None,
    nodes=(),
    tunnels=(),
    probes=(),
    unreachable="no agent runs here: /run/felix/agent.sock does not exist",
)
DOCKER = Chain("ip filter", "FORWARD", "forward", "drop", "jump DOCKER-USER")
STRICT = Chain("inet firewall", "input", "input", "drop", "tcp dport 22 accept")


def status(**changed: Any) -> Facts:
    return replace(WELL, status={**STATUS, **changed})


def tunnel(**changed: Any) -> Facts:
    return replace(WELL, tunnels=({**TUNNEL, **changed},))


def probed(*ways: Way) -> Facts:
    return replace(WELL, probes=(replace(PROBE, ways=frozenset(ways), largest=0),))


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
    ("pod guard", replace(WELL, unguarded=None), State.SKIPPED, "only to root", ""),
    (
        "pod guard",
        replace(WELL, unguarded=("cali1", "cali2")),
        State.FAILED,
        "what pods send by cali1 and 1 more interfaces",
        "start the agent, with netfilter: Enabled",
    ),
    (
        "pod guard",
        replace(WELL, cni=(("00-felix.conflist", ("felix-cni", "bandwidth")),)),
        State.WARNING,
        "plugin bandwidth cannot limit",
        "give podGuard: nftables",
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
    ("tunnel drivers", replace(WELL, drivers=frozenset()), State.FAILED, "no tunnel can be made", "modprobe tun"),
    ("tunnel drivers", replace(WELL, drivers=frozenset({"tun"})), State.WARNING, "a process would", "modules-extra"),
    ("tunnel device", tunnel(state="differs: mtu"), State.FAILED, "tunl0 is differs: mtu", "felixctl status"),
    ("tunnel device", replace(WELL, tunnels=()), State.SKIPPED, "no tunnel", ""),
    (
        "tunnel drops",
        tunnel(dropped={"source_not_allowed": 7}),
        State.WARNING,
        "dropped 7 packets",
        "externalNodesList",
    ),
    (
        "tunnel rules",
        replace(
            WELL, chains=(replace(STRICT, policy="accept", rules="meta l4proto 4 counter packets 1 bytes 9 drop"),)
        ),
        State.FAILED,
        "chain inet firewall input drops tunnel packets",
        "nft delete rule inet firewall input",
    ),
    ("tunnel rules", replace(WELL, nftables="no library"), State.SKIPPED, "could not be asked", ""),
    (
        "protocol 4",
        probed(Way.PLAIN, Way.THERE),
        State.FAILED,
        "protocol 4 from b2 (172.31.2.12) to this node is filtered",
        "from 172.31.2.12 to 172.31.1.11",
    ),
    (
        "protocol 4",
        probed(Way.PLAIN, Way.BACK),
        State.FAILED,
        "protocol 4 from this node to b2 (172.31.2.12) is filtered",
        "from 172.31.1.11 to 172.31.2.12",
    ),
    ("protocol 4", probed(Way.PLAIN), State.FAILED, "both from this node to b2 (172.31.2.12) and back", "protocol 4"),
    ("protocol 4", probed(), State.WARNING, "b2 (172.31.2.12) does not answer a plain echo", "felixctl trace 172.31.2"),
    ("protocol 4", replace(WELL, unprobed="run as root"), State.SKIPPED, "run as root", ""),
    ("protocol 4", replace(WELL, probes=()), State.SKIPPED, "no node is reached through a tunnel", ""),
    (
        "path MTU",
        replace(WELL, probes=(replace(PROBE, largest=1400),)),
        State.FAILED,
        "packets of 1500 bytes do not reach b2 (172.31.2.12), those of 1400 do; and nobody says so: an MTU black hole",
        "ip link set dev UPLINK mtu 1400",
    ),
    (
        "path MTU",
        replace(
            WELL,
            probes=(
                replace(PROBE, largest=1400, told=(TooLarge(IPv4Address("172.31.1.1"), PROBE.there, 1410),)),
                replace(PROBE, name="b1", largest=0),
            ),
        ),
        State.FAILED,
        "172.31.1.1 says that it passes on 1410 bytes; and 1 more nodes like that",
        "ip link set dev UPLINK mtu 1410",
    ),
    ("node address", replace(WELL, links={}), State.FAILED, "no interface has 172.31.1.11/24", "ip address add"),
    (
        "node address",
        replace(WELL, links=links(link("eth0", "172.31.1.11/16"))),
        State.WARNING,
        "172.31.1.11/24 by its resource and 172.31.1.11/16 here",
        "the mask that the interface has",
    ),
    ("node address", replace(WELL, nodes=({**HERE, "addresses": []},)), State.FAILED, "has no address", "ipv4Address"),
    ("node address", NO_AGENT, State.SKIPPED, "no agent says", ""),
    (
        "overlaps",
        replace(WELL, links=links(link("eth1", "10.65.3.9/24"))),
        State.FAILED,
        "10.65.3.0/24 of eth1 and 10.65.3.0/26, a block of pods, overlap",
        "renumber the interface",
    ),
    ("IPv6 forwarding", replace(WELL, parameters={}), State.FAILED, "routes IPv6 for nobody", "forwarding=1"),
    ("IPv6 forwarding", replace(WELL, nodes=(OTHER,)), State.SKIPPED, "no block of IPv6", ""),
    ("neighbours", replace(WELL, neighbours=900), State.FAILED, "900 of 1024 neighbours", "gc_thresh3=4096"),
    ("neighbours", replace(WELL, parameters={}), State.SKIPPED, "does not tell the limit", ""),
    ("files", replace(WELL, descriptors=(900, 1024)), State.FAILED, "900 of 1024 files", "LimitNOFILE"),
    ("files", replace(WELL, descriptors=None), State.SKIPPED, "no agent runs here", ""),
    (
        "disk",
        replace(WELL, free={"/etc/felix/resources": 1 << 20}),
        State.FAILED,
        "kB left: no pod can be",
        "du -x /etc/f",
    ),
    (
        "disk",
        replace(WELL, free={"/var/lib/felix": 1 << 20}),
        State.FAILED,
        "1024 kB left: events",
        "journalctl --vacuum",
    ),
    ("disk", replace(WELL, free={}), State.SKIPPED, "are not there", ""),
    (
        "CNI",
        replace(WELL, cni=(("00-cilium.conflist", ("cilium-cni",)),)),
        State.FAILED,
        "00-cilium.conflist comes first and names cilium-cni",
        "00-felix.conflist",
    ),
    ("CNI", replace(WELL, plugin=False), State.FAILED, "/opt/cni/bin/felix-cni is not there", "copy felix-cni"),
    ("CNI", replace(WELL, cni=()), State.SKIPPED, "no configuration", ""),
    (
        "NetworkManager",
        replace(WELL, programs={"NetworkManager": 7}),
        State.WARNING,
        "was not told to leave",
        "unmanaged-devices=interface-name:cali*",
    ),
    ("networkd", replace(WELL, programs={"systemd-network": 7}), State.WARNING, "removes routes", "Routes=no"),
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


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        (
            "NetworkManager",
            replace(
                WELL,
                programs={"NetworkManager": 7},
                network_manager=("[keyfile]", "unmanaged-devices=interface-name:cali*;interface-name:tunl0"),
            ),
        ),
        (
            "networkd",
            replace(WELL, programs={"systemd-network": 7}, networkd=("[Network]", "ManageForeignRoutes = no")),
        ),
        ("path MTU", replace(WELL, probes=(replace(PROBE, full=1480, largest=1480),))),
    ],
)
def test_what_was_told_to_leave_us_alone_is_well(name: str, facts: Facts) -> None:
    assert found(name, facts).state is State.OK


@pytest.mark.parametrize("device", ["cali1", "tunl0", "vxlan.calico"])
def test_addresses_of_our_own_interfaces_overlap_by_intention(device: str) -> None:
    assert found("overlaps", replace(WELL, links=links(link(device, "10.65.0.0/32")))).state is State.OK


def test_nodes_that_were_not_probed_are_counted() -> None:
    remotes = [{"node": f"172.31.2.{number}", "prefixes": ["10.65.3.0/26"][: number % 2]} for number in range(80)]
    assert found("protocol 4", tunnel(remotes=remotes)).detail == (
        "protocol 4 passes to 1 nodes and back; 39 more were not asked"
    )


def test_there_are_thirty_checks_at_least_each_of_another_name() -> None:
    assert len({name for name, _ in CHECKS}) == len(CHECKS) >= 30


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
