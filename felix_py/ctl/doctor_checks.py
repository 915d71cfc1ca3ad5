"""The table of checks of `felixctl doctor`: each looks at facts and says what it found and how it is put right."""

from collections.abc import Callable, Iterator

from felix_py.ctl import doctor_host_checks, doctor_tunnel_checks
from felix_py.ctl.doctor_facts import Facts
from felix_py.ctl.doctor_findings import Finding, State, ok
from felix_py.kernel.base_chains import Chain

GATEWAY = "0101FEA9"
"""169.254.1.1 as /proc/net/route writes it: proxy ARP answers only for what the host has a route to."""

CONNTRACK_FULL = 0.9
"""Share of the table of tracked connections above which new ones may soon be dropped."""

OTHERS = {
    "calico-node": "Calico",
    "calico-felix": "Calico",
    "kube-router": "kube-router",
    "flanneld": "flannel",
    "cilium-agent": "Cilium",
    "antrea-agent": "Antrea",
    "weaver": "Weave Net",
}
"""Programs that program pods' routes as we do, by the name of the process."""

FIREWALLS = {"firewalld": "firewalld"}


def _agent(facts: Facts) -> Finding:
    if facts.status is None:
        return Finding(State.FAILED, facts.unreachable, "start it: felix-agent run")
    problems = facts.status["problems"]
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        return Finding(State.FAILED, f"{problems[0]}{more}", "see `felixctl status`, which lists each problem")
    return ok(f"node {facts.status['node']} is healthy and in sync")


def _forwarding(facts: Facts) -> Finding:
    if facts.parameters.get("net/ipv4/ip_forward") != "1":
        return Finding(
            State.FAILED,
            "net.ipv4.ip_forward is 0, so that this host routes for nobody",
            "the agent sets it; where /proc/sys is read-only: sysctl -w net.ipv4.ip_forward=1 on the host",
        )
    return ok("net.ipv4.ip_forward is 1")


def _pods(facts: Facts) -> Finding:
    wrong = [path for path, value in facts.parameters.items() if "/cali" in path and value != "1"]
    if wrong:
        return Finding(
            State.FAILED, f"{wrong[0]} is not 1", f"the agent sets it for known pods; else sysctl -w {wrong[0]}=1"
        )
    count = sum(name.startswith("cali") for name in facts.links)
    return ok(f"{count} interfaces of pods forward and answer ARP for 169.254.1.1")


def _gateway(facts: Facts) -> Finding:
    if not any(destination in ("00000000", GATEWAY) for destination, _ in facts.routed):
        return Finding(
            State.FAILED,
            "there is no route that covers 169.254.1.1, so that proxy ARP is silent",
            "start the agent, which adds one where pods are; else: ip route add 169.254.1.1/32 dev lo",
        )
    return ok("169.254.1.1, the gateway of pods, is answered")


def _reverse_path(facts: Facts) -> Finding:
    if facts.parameters.get("net/ipv4/conf/all/rp_filter") == "2" and not facts.table:
        return Finding(
            State.FAILED,
            "net.ipv4.conf.all.rp_filter is 2, so that pods may send from any address",
            "sysctl -w net.ipv4.conf.all.rp_filter=1, or set netfilter: Enabled",
        )
    return ok("no pod sends from an address that is not its own")


def _table(facts: Facts) -> Finding:
    if facts.nftables is not None:
        return Finding(
            State.FAILED, facts.nftables, "run as root, on a kernel with nftables, with libnftables1 installed"
        )
    if not facts.table:
        return Finding(
            State.FAILED,
            "the table inet felix is not there: nothing guards pods and tunnels",
            "start the agent, with netfilter: Enabled (its default) in felix.yaml",
        )
    return ok("the table inet felix is there")


def _pod_guard(facts: Facts) -> Finding:
    if facts.unguarded is None:
        return Finding(State.SKIPPED, "the kernel tells of programs at pods' interfaces only to root")
    if facts.unguarded:
        first, *more = facts.unguarded
        return Finding(
            State.FAILED,
            f"nothing looks at what pods send by {first}{f' and {len(more)} more interfaces' if more else ''}",
            "start the agent, with netfilter: Enabled (its default) in felix.yaml; if it runs: `felixctl status`",
        )
    if (
        facts.status is not None
        and facts.status["guard"]["kind"] == "ebpf"
        and any("bandwidth" in each for _, each in facts.cni)
    ):
        return Finding(
            State.WARNING,
            "the CNI plugin bandwidth cannot limit what pods send, for our programs stand in its place",
            "give podGuard: nftables in felix.yaml where pods have the annotation kubernetes.io/egress-bandwidth",
        )
    why = facts.status["guard"]["why"] if facts.status is not None else "by whom, no agent says"
    return ok(f"pods' interfaces are guarded ({why})")


def _policy(facts: Facts, hook: str, fix: Callable[[Chain], str], allowed: Callable[[Chain], bool]) -> Finding:
    if facts.nftables is not None:
        return Finding(State.SKIPPED, f"nftables could not be asked: {facts.nftables}")
    for chain in facts.chains:
        if chain.hook == hook and chain.policy == "drop" and not allowed(chain):
            return Finding(State.FAILED, f"chain {chain} drops what no rule of it accepts", fix(chain))
    return ok(f"no table drops by default at hook {hook}")


def _forward_policy(facts: Facts) -> Finding:
    return _policy(facts, "forward", _let_pods_pass, _lets_pods_pass)


def _lets_pods_pass(chain: Chain) -> bool:
    return 'iifname "cali*" ' in chain.rules and 'oifname "cali*" ' in chain.rules


def _let_pods_pass(chain: Chain) -> str:
    family, table = chain.table.split()[:2]
    if (table, chain.name) == ("filter", "FORWARD"):  # Docker, ufw and other users of iptables
        command = "iptables" if family == "ip" else "ip6tables"
        return f"let pods pass: {command} -I FORWARD -i cali+ -j ACCEPT; {command} -I FORWARD -o cali+ -j ACCEPT"
    return (
        f"let pods pass: nft insert rule {chain} 'iifname \"cali*\" accept'; "
        f"nft insert rule {chain} 'oifname \"cali*\" accept'"
    )


def _input_policy(facts: Facts) -> Finding:
    return _policy(facts, "input", _let_nodes_in, lambda chain: "179" in chain.rules or "bgp" in chain.rules)


def _let_nodes_in(chain: Chain) -> str:
    if chain.table.split()[1:2] == ["filter"] and chain.name == "INPUT":
        return "let nodes in: iptables -I INPUT -p tcp --dport 179 -j ACCEPT; iptables -I INPUT -p 4 -j ACCEPT"
    return (
        f"let nodes in: nft insert rule {chain} 'tcp dport 179 accept'; nft insert rule {chain} 'meta l4proto 4 accept'"
    )


def _legacy(facts: Facts) -> Finding:
    if "filter" in facts.legacy:
        return Finding(
            State.WARNING,
            "the old iptables has a filter table here, which only iptables-legacy shows",
            "look for a policy DROP: iptables-legacy -S | grep -- -P; and move to iptables-nft",
        )
    return ok("nobody uses the old iptables")


def _firewall(facts: Facts) -> Finding:
    found = [FIREWALLS[name] for name in facts.programs if name in FIREWALLS]
    if found:
        return Finding(
            State.WARNING,
            f"{found[0]} runs here and has its own say about pods' packets",
            "give pods a zone of their own: firewall-cmd --permanent --zone=trusted --add-interface=cali+; reload it",
        )
    return ok("no firewall manager runs here")


def _bgp_port(facts: Facts) -> Finding:
    if facts.status and facts.status["bgp"].get("off"):
        return Finding(State.SKIPPED, "BGP is off here")
    ours = facts.status["bgp"]["childPid"] if facts.status else None
    others = [who for process, who in facts.listeners.items() if process not in (ours, 0)]
    if others:
        return Finding(
            State.FAILED,
            f"TCP port 179 is in use by {others[0]}, so that peers reach that and not us",
            "stop it, or give another BGPConfiguration.spec.listenPort",
        )
    if facts.status and not facts.listeners:
        return Finding(
            State.WARNING,
            "nobody listens on TCP port 179: peers cannot dial this node",
            "see `felixctl status`; it is right where listenPort is another",
        )
    return ok("TCP port 179 is ours, or free")


def _others(facts: Facts) -> Finding:
    found = next((name for name in facts.programs if name in OTHERS), None)
    if found is not None:
        return Finding(
            State.FAILED,
            f"{OTHERS[found]} runs here too (process {facts.programs[found]}, {found})",
            "let only one program own pods' routes: remove it from this node, or stop felix-agent",
        )
    return ok("no other program that routes pods runs here")


def _conntrack(facts: Facts) -> Finding:
    count = int(facts.parameters.get("net/netfilter/nf_conntrack_count", "0"))
    most = int(facts.parameters.get("net/netfilter/nf_conntrack_max", "0"))
    if most and count > CONNTRACK_FULL * most:
        return Finding(
            State.FAILED,
            f"{count} of {most} connections are tracked: new ones will be dropped",
            f"sysctl -w net.netfilter.nf_conntrack_max={most * 2}",
        )
    return ok(f"{count} connections are tracked, {most} may be")


CHECKS: tuple[tuple[str, Callable[[Facts], Finding]], ...] = (
    ("agent", _agent),
    ("forwarding", _forwarding),
    ("pod interfaces", _pods),
    ("gateway", _gateway),
    ("reverse path", _reverse_path),
    ("packet filter", _table),
    ("pod guard", _pod_guard),
    ("FORWARD policy", _forward_policy),
    ("INPUT policy", _input_policy),
    ("old iptables", _legacy),
    ("firewall", _firewall),
    ("tunnel drivers", doctor_tunnel_checks.drivers),
    ("tunnel", doctor_tunnel_checks.driver),
    ("tunnel device", doctor_tunnel_checks.device),
    ("tunnel drops", doctor_tunnel_checks.drops),
    ("tunnel rules", doctor_tunnel_checks.rules),
    ("protocol 4", doctor_tunnel_checks.protocol),
    ("MTU", doctor_tunnel_checks.mtu),
    ("path MTU", doctor_tunnel_checks.path_mtu),
    ("BGP port", _bgp_port),
    ("other networking", _others),
    ("conntrack", _conntrack),
    ("node address", doctor_host_checks.node_address),
    ("overlaps", doctor_host_checks.overlaps),
    ("IPv6 forwarding", doctor_host_checks.forwarding6),
    ("neighbours", doctor_host_checks.neighbours),
    ("files", doctor_host_checks.descriptors),
    ("disk", doctor_host_checks.disk),
    ("CNI", doctor_host_checks.cni),
    ("NetworkManager", doctor_host_checks.network_manager),
    ("networkd", doctor_host_checks.networkd),
)
"""Name and check, in the order in which they are told."""


def examine(facts: Facts) -> Iterator[tuple[str, Finding]]:
    """Yield what each check finds."""
    for name, check in CHECKS:
        yield name, check(facts)
