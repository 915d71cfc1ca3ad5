"""What tunnels carry from pod to pod: ours beside the kernel's VXLAN and beside no encapsulation, in turn."""

import os
import shutil
import sys

from figures import RUNS, tell_ratio
from tunnel_pair import Pair, gigabits, packets, pair

SECONDS = float(os.environ.get("IPERF_SECONDS") or 2)

BESIDE_VXLAN, BESIDE_PLAIN, SMALL_BESIDE_VXLAN = 1.03, 0.87, 1.3
"""What the ebpf driver reaches: one TCP stream at the same inner MTU, and packets of 64 bytes a second."""

BESIDE_HAND_MADE = 0.95
"""The kernel carries both in the same way; what is missing to 1 is noise."""

TUN_BESIDE_PLAIN = 0.02
"""The tun driver is for kernels with neither the module nor BPF: it must be right, and fast enough for a lab."""


def measure() -> int:
    missing = [program for program in ("iperf3", "gcc") if shutil.which(program) is None]
    if missing:
        print(f"bench: {missing[0]} is missing; apt-get install {missing[0]}", file=sys.stderr)  # noqa: T201
        return 2
    with pair("ebpf") as fast, pair("tun") as slow:
        streams = [_streams(fast, slow) for _ in range(RUNS)]
        small = [tuple(packets(fast, way, SECONDS) for way in ("ipip", "vxlan", "our vxlan")) for _ in range(RUNS)]
    ebpf, vxlan, own, plain, tun = zip(*streams, strict=True)
    ours, theirs, own_small = zip(*small, strict=True)
    unit = "Gbit/s"
    kept = [
        tell_ratio("tunnels: one TCP stream, ebpf IPIP", ebpf, unit, "kernel VXLAN", vxlan, BESIDE_VXLAN),
        tell_ratio("tunnels: the same, beside none", ebpf, unit, "unencapsulated", plain, BESIDE_PLAIN),
        tell_ratio(
            "tunnels: 64 byte packets, ebpf IPIP", ours, "packets/s", "kernel VXLAN", theirs, SMALL_BESIDE_VXLAN
        ),
        tell_ratio("tunnels: one TCP stream, our VXLAN", own, unit, "hand-made VXLAN", vxlan, BESIDE_HAND_MADE),
        tell_ratio(
            "tunnels: 64 byte packets, our VXLAN", own_small, "packets/s", "hand-made VXLAN", theirs, BESIDE_HAND_MADE
        ),
        tell_ratio("tunnels: one TCP stream, tun IPIP", tun, unit, "unencapsulated", plain, TUN_BESIDE_PLAIN),
    ]
    return 0 if all(kept) else 1


def _streams(fast: Pair, slow: Pair) -> tuple[float, ...]:
    return (
        *(gigabits(fast, way, SECONDS) for way in ("ipip", "vxlan", "our vxlan", "plain")),
        gigabits(slow, "ipip", SECONDS),
    )


if __name__ == "__main__":
    sys.exit(measure())
