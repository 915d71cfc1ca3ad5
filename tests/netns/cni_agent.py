"""A host that runs the whole agent behind the real plugin, as a container runtime finds it."""

import sysconfig
from pathlib import Path

import block_files
from cni_lab import Host, until

AGENT = Path(sysconfig.get_path("scripts"), "felix-agent")

RESOURCES = """
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n1}
spec: {bgp: {ipv4Address: 172.31.1.11/24}}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: default}
spec: {cidr: 10.65.0.0/16, ipipMode: Never, blockSize: 26}
---
apiVersion: projectcalico.org/v3
kind: BlockAffinity
metadata: {name: n1-block}
spec: {node: n1, cidr: 10.65.0.0/26, state: confirmed}
"""


class AgentHost(Host):
    """A host that runs felix-agent."""

    def program(self) -> list[object]:
        return [AGENT, "run", "--config", self.folder / "felix.yaml"]

    def held_by_pods(self) -> dict[str, tuple[str, str]]:
        """Return which address blocks say is held by which container and interface."""
        specs = block_files.specs(self.folder / "resources")
        found = {address: each["secondary"] for spec in specs for address, each in spec["allocations"].items()}
        return {
            address: (each["containerID"], each["interface"])
            for address, each in found.items()
            if "containerID" in each
        }

    def held(self) -> set[str]:
        return set(self.held_by_pods())

    def _serves(self) -> bool:
        return super()._serves() and self.cni("STATUS", version="1.1.0").status == 0


def prepare(node: Host) -> None:
    node.ip("link", "add", "eth0", "mtu", "1400", "type", "veth", "peer", "name", "eth0peer")
    node.ip("addr", "add", "172.31.1.11/24", "dev", "eth0")
    node.ip("link", "set", "eth0", "up")
    node.ip("link", "set", "eth0peer", "up")
    (node.folder / "resources").mkdir()
    (node.folder / "resources" / "node.yaml").write_text(RESOURCES)
    (node.folder / "felix.yaml").write_text(
        f"nodeName: n1\nrunDirectory: {node.folder}\nstateDirectory: {node.state}\n"
        f"resourceDirectory: {node.folder / 'resources'}\n"
    )


def is_clean(node: AgentHost) -> bool:
    pods = {dst for dst in node.routes() if dst.startswith("10.65.") and "/" not in dst}
    return not (node.veths() or node.held() or pods)


def empty(node: AgentHost) -> None:
    """Delete every pod, and see that nothing is left of any."""
    for container, interface in set(node.held_by_pods().values()):
        assert node.cni("DEL", container, interface=interface).status == 0
    until(lambda: is_clean(node), "nothing is left of pods")
