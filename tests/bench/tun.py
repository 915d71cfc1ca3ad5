"""The userspace driver beside a prototype of it: TCP, small packets, and no loss below the rate that it holds."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from figures import RUNS, tell, tell_ratio

sys.path.insert(0, str(Path(__file__).parents[1] / "netns"))

import ipip_lab
from ipip_lab import Node, Racks

SECONDS = int(os.environ.get("IPERF_SECONDS") or 2)
PROTOTYPE = Path(__file__).with_name("tun_prototype.py")
TCP_REACH = PACKETS_REACH = 1.5

SMALL = ("--udp", "--length", "22")
"""64 bytes on an Ethernet: 14 of its header, 28 of IP and UDP."""

HELD = 0.5
"""Of the packets a second that arrive when more are sent than can be carried: a rate that is held without loss."""

LOSS_REACH = 0


@contextmanager
def ours() -> Iterator[Racks]:
    with ipip_lab.racks() as racks:
        yield racks.ready()


@contextmanager
def prototype() -> Iterator[Racks]:
    with ipip_lab.racks() as racks, ExitStack() as stack:
        for node, other in ((racks.a1, racks.b1), (racks.b1, racks.a1)):
            stack.enter_context(prototype_on(node, other))
        yield racks


@contextmanager
def prototype_on(node: Node, other: Node) -> Iterator[None]:
    command = ["ip", "netns", "exec", node.namespace.name, sys.executable, PROTOTYPE, "tunl0"]
    command += [str(node.wish.local), str(other.wish.local)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            node.namespace.ip(
                f"addr add {node.wish.address}/32 dev tunl0\nlink set tunl0 mtu 1480 up txqueuelen 1000\n"
            )
            node.route()
            yield
        finally:
            process.terminate()


def iperf(racks: Racks, *options: object) -> dict[str, float]:
    """Return what iperf3 says of its receiver."""
    inside = ["ip", "netns", "exec"]
    server = [*inside, racks.b1.pod.name, "iperf3", "--server", "--one-off", "--forceflush"]
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as serving:
        for line in serving.stdout or ():
            if "Server listening" in line:
                break
        client = [*inside, racks.a1.pod.name, "iperf3", "--json", "--time", str(SECONDS), "--client", "10.65.2.5"]
        done = subprocess.run([*client, *map(str, options)], capture_output=True, text=True, check=True)
        serving.communicate()
    found: dict[str, float] = json.loads(done.stdout)["end"]["sum_received" if "--udp" not in options else "sum"]
    return found


def gigabits(racks: Racks) -> float:
    return iperf(racks)["bits_per_second"] / 1e9


def packets(racks: Racks) -> float:
    """Return how many small packets a second reach the pod when as many are sent as the sender can."""
    before = overrun(racks)
    said = iperf(racks, *SMALL, "--bitrate", 0)
    return (said["packets"] - said["lost_packets"] + overrun(racks) - before) / said["seconds"]


def lost(racks: Racks, rate: float) -> float:
    """Return how many packets the tunnel loses at a rate of packets a second.

    What the receiving socket dropped had arrived: on a busy machine iperf3 may not get the processor in time.
    """
    before = overrun(racks)
    missing = iperf(racks, *SMALL, "--bitrate", int(rate * 22 * 8))["lost_packets"]
    return missing - (overrun(racks) - before)


def overrun(racks: Racks) -> int:
    """Return how many datagrams the sockets of the receiving pod had no room for."""
    text = racks.b1.pod.do(Path("/proc/thread-self/net/snmp").read_text)
    names, values = (line.split() for line in text.splitlines() if line.startswith("Udp:"))
    return int(values[names.index("RcvbufErrors")])


def measure() -> int:
    if shutil.which("iperf3") is None:
        print("bench: iperf3 is missing; apt-get install iperf3", file=sys.stderr)  # noqa: T201
        return 2
    with ours() as new, prototype() as old:
        streams = [(gigabits(new), gigabits(old)) for _ in range(RUNS)]
        rates = [(packets(new), packets(old)) for _ in range(RUNS)]
        held = HELD * median(rate for rate, _ in rates)
        losses = [lost(new, held) for _ in range(RUNS)]
    beside = "single-threaded prototype"
    kept = [
        tell_ratio("tun: TCP between pods", *zip_of(streams, "Gbit/s", beside), TCP_REACH),
        tell_ratio("tun: packets of 64 bytes", *zip_of(rates, "packets/s", beside), PACKETS_REACH),
        tell(f"tun: lost of {held:.0f} packets/s, half of what it holds", losses, "packets", LOSS_REACH),
    ]
    return 0 if all(kept) else 1


def zip_of(
    pairs: list[tuple[float, float]], unit: str, peer: str
) -> tuple[tuple[float, ...], str, str, tuple[float, ...]]:
    values, peers = zip(*pairs, strict=True)
    return values, unit, peer, peers


if __name__ == "__main__":
    sys.exit(measure())
