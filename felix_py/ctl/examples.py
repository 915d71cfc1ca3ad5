"""Examples below the help of each command: lines that can be typed as they stand."""

from collections.abc import Mapping

EXAMPLES: Mapping[str, str] = {
    "felixctl": """\
start here:
  felixctl status                        is this node well, and if not, what is wrong
  felixctl doctor                        is the host fit, with the fix for each thing that is not
  felixctl routes 10.65.2.0/26 --why     why is this route here, and who lost against it
  felixctl trace 10.65.2.1               where does a packet go, and where does it end
  felixctl bgp peers                     who is connected, and why who is not
  felixctl events --follow               what changes, with its cause
  felixctl diag                          everything for a bug report, without passwords

Each command has examples of its own: felixctl COMMAND --help. Options may stand before or after the command.
exit status: 0 all well, 1 something is not as it should be, 2 the agent cannot be reached""",
    "felixctl status": """\
examples:
  felixctl status
  felixctl status -o json
  felixctl --node a1 status              a node of a lab on this machine
  felixctl --lab six --node a1 status    of which one, where several have such a node""",
    "felixctl routes": """\
examples:
  felixctl routes                        all, with their states
  felixctl routes 10.65.2.0/26 --why     one, with every candidate and the rule that decided
  felixctl routes --diff                 only what differs between wish and kernel
  felixctl routes --kernel               the main table, whoever owns it
  felixctl routes --watch                anew whenever something changes""",
    "felixctl bgp": """\
examples:
  felixctl bgp peers
  felixctl bgp peer 172.31.1.1
  felixctl bgp routes --received 172.31.1.1
  felixctl bgp drain --message 'kernel update'""",
    "felixctl bgp peers": """\
examples:
  felixctl bgp peers
  felixctl bgp peers -o wide             rejected, stale, flaps, causes
  felixctl bgp peers --watch""",
    "felixctl bgp peer": """\
examples:
  felixctl bgp peer 172.31.1.1           capabilities, policies with hits, history, the last NOTIFICATION in words""",
    "felixctl bgp routes": """\
examples:
  felixctl bgp routes --best
  felixctl bgp routes 10.65.2.0/26
  felixctl bgp routes --received 172.31.1.1 --pre-policy
  felixctl bgp routes --advertised 172.31.1.1 -o wide""",
    "felixctl endpoints": """\
examples:
  felixctl endpoints
  felixctl endpoints -o yaml""",
    "felixctl nodes": """\
examples:
  felixctl nodes
  felixctl nodes -o json                 pods as well, as far as this node knows them""",
    "felixctl pools": """\
examples:
  felixctl pools                         how much of each is used in the whole cluster""",
    "felixctl blocks": """\
examples:
  felixctl blocks                        whose they are, how far their claims are, how full
  felixctl blocks -o json""",
    "felixctl ipam": """\
examples:
  felixctl ipam show --blocks
  felixctl ipam check                    what does not fit, each with its fix
  felixctl ipam release 10.65.2.7""",
    "felixctl ipam show": """\
examples:
  felixctl ipam show
  felixctl ipam show --blocks            each block, and who holds its addresses
  felixctl ipam show --ip 10.65.2.7      who, since when, in which container""",
    "felixctl ipam release": """\
examples:
  felixctl ipam release 10.65.2.7
  felixctl ipam release --handle lab.c1f0 --force""",
    "felixctl tunnels": """\
examples:
  felixctl tunnels                       device, driver and why, what was carried and dropped
  felixctl tunnels -o wide               the other nodes as well""",
    "felixctl events": """\
examples:
  felixctl events --since 5m
  felixctl events --follow
  felixctl events --since 1d -o json""",
    "felixctl plan": """\
examples:
  felixctl plan                          nothing is changed""",
    "felixctl get": """\
examples:
  felixctl get                           all, which file each stands in, and whether it is in force
  felixctl get ippool default -o yaml    to be changed and applied again
  felixctl get -f pools.yaml""",
    "felixctl apply": """\
examples:
  felixctl apply -f pools.yaml           it is in force some milliseconds later, on every node that reads the folder
  felixctl apply -f - --dry-run

A resource takes the place of the one of its name, in whichever file that stands; comments around it stay.""",
    "felixctl delete": """\
examples:
  felixctl delete bgppeer tor
  felixctl delete -f pools.yaml""",
    "felixctl trace": """\
examples:
  felixctl trace 10.65.3.1               from this node to a pod of another
  felixctl trace web-0 10.65.3.1         from a pod of this node; default/web-0 says the same
  felixctl trace web-0 10.65.3.1 --size 1500
  felixctl trace web-0 10.65.3.1 --proto tcp --port 80
  felixctl trace web-0 10.65.3.1 --ask 'ssh root@{address}'

Every machine that is asked looks into its kernel's tables as for a real packet. Without --ask this is this node alone:
what others do is inferred from the datastore, and marked `not asked`. felix-lab trace asks every machine of a lab.""",
    "felixctl doctor": """\
examples:
  felixctl doctor                        with echo requests to the nodes behind the tunnel, plain and as IP in IP
  felixctl doctor --no-probe             this host alone
  felixctl doctor -o json""",
    "felixctl diag": """\
examples:
  felixctl diag
  felixctl diag /tmp/report.tar.gz""",
    "felixctl completion": """\
examples:
  felixctl completion bash               in ~/.bashrc: source <(felixctl completion bash)
  felixctl completion zsh
  felixctl completion fish""",
}
"""By what was typed."""
