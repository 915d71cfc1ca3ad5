"""Two nodes with a pod each; the pods reach each other over every encapsulation at once: an address for each way."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import NamedTuple

from ipip.device import Device
from ipip.tunnel import Driver, Tunnel
from vxlan.device import Device as VxlanDevice
from vxlan.tunnel import Vxlan, mac_of

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "netns"))
from ipip_lab import Namespace  # noqa: E402 - found through the line above

WAYS = {"plain": 67, "vxlan": 66, "ipip": 65, "our vxlan": 64}
"""Second byte of the pods' addresses by the way that their packets take."""

INNER_MTU = 1450
"""Bytes, for all ways alike: what VXLAN leaves of 1500."""

PORT, PAYLOAD = 5000, 36
"""36 bytes of payload make an IP packet of 64."""


class Pair(NamedTuple):
    """Both nodes and both pods."""

    nodes: tuple[Namespace, Namespace]
    pods: tuple[Namespace, Namespace]
    program: Path


@contextmanager
def pair(driver: Driver) -> Iterator[Pair]:
    """Bring both up, every way open, IPIP by this driver; all is gone afterwards."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        program = directory / "packets"
        subprocess.run(["gcc", "-O2", "-o", program, HERE / "packets.c"], check=True)
        nodes, pods = ([_namespace(stack, f"{kind}{number}") for number in (1, 2)] for kind in "np")
        nodes[0].ip(f"link add eth0 type veth peer name eth0 netns {nodes[1].name}\n")
        for number in (1, 2):
            node, pod, far = nodes[number - 1], pods[number - 1], 3 - number
            node.parameter("ip_forward", 1)
            node.parameter("conf/all/rp_filter", 0)
            node.ip(
                f"addr add 172.31.0.{number}/24 dev eth0\nlink set eth0 up\nlink set lo up\n"
                f"link add cali0 type veth peer name eth0 netns {pod.name}\nlink set cali0 up\n"
                f"addr add 169.254.1.1/32 dev cali0\n"
                f"link add vx type vxlan id 9 dstport 4789 remote 172.31.0.{far} local 172.31.0.{number} dev eth0\n"
                f"link set vx up\naddr add 10.9.0.{number}/24 dev vx\n"
            )
            pod.ip("link set lo up\nlink set eth0 up\nroute add 169.254.1.1 dev eth0\n")
            for byte in WAYS.values():
                pod.ip(f"addr add 10.{byte}.{number}.5/32 dev eth0\n")
                source = f"10.{byte}.{number}.5"
                pod.ip(f"route add 10.{byte}.{far}.0/24 via 169.254.1.1 dev eth0 mtu {INNER_MTU} src {source}\n")
                node.ip(f"route add 10.{byte}.{number}.5/32 dev cali0\n")
            device = node.do(Device, directory / str(number), driver)
            stack.callback(node.do, device.delete, "tunl0")
            remote = IPv4Address(f"172.31.0.{far}")
            routes = frozenset({(IPv4Network(f"10.65.{far}.0/24"), remote)})
            local = IPv4Address(f"172.31.0.{number}")
            node.do(device.put, Tunnel(local, 1480, routes=routes, allowed=frozenset({remote})))
            _make_vxlan(stack, node, number, far)
            node.ip(
                f"route add 10.65.{far}.0/24 via 172.31.0.{far} dev tunl0 onlink\n"
                f"route add 10.64.{far}.0/24 via 172.31.0.{far} dev vxlan.calico onlink\n"
                f"route add 10.66.{far}.0/24 via 10.9.0.{far} dev vx\n"
                f"route add 10.67.{far}.0/24 via 172.31.0.{far} dev eth0\n"
            )
        yield Pair((nodes[0], nodes[1]), (pods[0], pods[1]), program)


def _make_vxlan(stack: ExitStack, node: Namespace, number: int, far: int) -> None:
    """Have the device that the agent makes, beside the one made by hand."""
    device = node.do(VxlanDevice)
    stack.callback(device.close)
    mac, remote = mac_of(f"n{far}", 4), IPv4Address(f"172.31.0.{far}")
    known = frozenset({(mac, remote)})
    local = IPv4Address(f"172.31.0.{number}")
    wanted = Vxlan(local, INNER_MTU, 4096, 4789, mac_of(f"n{number}", 4), forwarding=known, neighbours=known)
    node.do(device.put, wanted)


def _namespace(stack: ExitStack, name: str) -> Namespace:
    made = Namespace(name)
    stack.callback(made.close)
    return made


def gigabits(pair: Pair, way: str, seconds: float) -> float:
    """Return what one TCP stream from pod to pod carries this way, in Gbit/s."""
    address = f"10.{WAYS[way]}.2.5"
    server = ["iperf3", "--server", "--one-off", "--forceflush", "--bind", address]
    with _running(pair.pods[1], server) as serving:
        _until(serving, "Server listening")
        client = ["iperf3", "--json", "--time", str(seconds), "--client", address, "--bind", f"10.{WAYS[way]}.1.5"]
        answer = json.loads(pair.pods[0].run(*client).stdout)
        serving.communicate()
    return float(answer["end"]["sum_received"]["bits_per_second"]) / 1e9


def packets(pair: Pair, way: str, seconds: float) -> float:
    """Return how many packets of 64 bytes arrive in a second."""
    with _running(pair.pods[1], [str(pair.program), "count", str(PORT)]) as at:
        _until(at, "ready")
        pair.pods[0].run(pair.program, "send", f"10.{WAYS[way]}.2.5", PORT, PAYLOAD, seconds)
        answer, _ = at.communicate()
    return float(answer)


@contextmanager
def _running(namespace: Namespace, command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """Run a server; it does not outlive a client that failed."""
    with namespace.do(subprocess.Popen, command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _until(process: "subprocess.Popen[str]", words: str) -> None:
    for line in process.stdout or ():
        if words in line:
            return
    raise AssertionError(f"{process.args} ended without {words!r}")
