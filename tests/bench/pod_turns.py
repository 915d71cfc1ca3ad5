"""A turn after one new pod, on a node that has few pods and on one that has many: seconds of a core, without the ADD.

Everything is as in the agent but for its loop: real veths, programs at them, routes, and a turn that tells of itself.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS)]

import structlog  # noqa: E402 - after the path, as all of ours
from builders import block, node, pool  # noqa: E402 - found by the path above
from figures import RUNS, tell  # noqa: E402 - same
from route_space import ONE_LINK, Space  # noqa: E402 - same

from felix_py.calc.hearsay import Hearsay  # noqa: E402 - same
from felix_py.cni import pod_ends, podnet  # noqa: E402 - same
from felix_py.cni.pod_changes import Pod  # noqa: E402 - same
from felix_py.cni.podnet import Veth  # noqa: E402 - same
from felix_py.daemon import families  # noqa: E402 - same
from felix_py.kernel import sysctl  # noqa: E402 - same
from felix_py.kernel.guard_programs import GuardPrograms  # noqa: E402 - same
from felix_py.kernel.kernel import Kernel  # noqa: E402 - same
from felix_py.kernel.nftables import Nftables  # noqa: E402 - same
from felix_py.kernel.purge import NoPurger  # noqa: E402 - same
from felix_py.kernel.rtnetlink import Rtnetlink  # noqa: E402 - same
from felix_py.kernel_thread import turned  # noqa: E402 - same
from felix_py.knowledge import Knowledge  # noqa: E402 - same
from felix_py.ledger import Attachment, with_mac  # noqa: E402 - same
from felix_py.model import IpipMode, Key, NodeName  # noqa: E402 - same
from felix_py.state import ClusterState, InSync, Present  # noqa: E402 - same
from felix_py.turn import Turns  # noqa: E402 - same
from ipip.device import Device, TunnelRefused  # noqa: E402 - same
from vxlan.device import Device as VxlanDevice  # noqa: E402 - same

FEW, MANY = 100, int(os.environ.get("SIZE") or 500)
"""Pods on the node."""

TOGETHER = 16
"""New pods of one turn, as many as the agent lets in at once."""

PROMISED = {0: 4.0, 1: 8.0, TOGETHER: 25.0}
"""Milliseconds of a core by new pods, however many there are."""

A1 = NodeName("a1")
FIRST = IPv4Address("10.65.0.1")


class Node:
    """What an agent has of its node, driven by hand; for the thread that made it."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.pods = 0
        self._heard = Hearsay()
        self.cluster = ClusterState().after_all(
            (node("a1", "172.31.1.11/24"), pool(mode=IpipMode.NEVER), block("a1", "10.65.0.0/21"), InSync())
        )

    def add(self, netns: int) -> None:
        """Add a pod, as `felix-cni` has it done."""
        number = self.pods = self.pods + 1
        name = f"cali{number:011d}"
        attachment = with_mac(
            Attachment(f"c{number}", "eth0", f"default/p{number}", name, (FIRST + number,), netns="/none")
        )
        (veth,) = podnet.make([podnet.plan(Pod(attachment, 1500, netns))])
        assert isinstance(veth, Veth), veth
        pod = attachment.endpoint(A1)
        (admitted,) = self.turns.admit([(pod, veth.index)])
        assert podnet.open_all([veth]) == [None]
        assert self.pods == 1 or (admitted is not None and self.turns.attach([admitted])[0] is not None)
        self.cluster = self.cluster.after_all([Present(Key("WorkloadEndpoint", pod.name), pod)])

    def turn(self) -> float:
        """Turn; return the milliseconds of a core that it took."""
        knowledge = Knowledge(self.cluster, self._heard, filtered=True, guarded=True)
        began = time.thread_time()
        done, told = turned(self.turns, knowledge, [], (), lambda: None, resync=False, hold=True)
        took = (time.thread_time() - began) * 1000
        assert not done.report.failed, done.report.failed
        assert told.states["installed"] >= self.pods
        return took


@contextmanager
def a_node() -> Iterator[Node]:
    wire, netfilter, vxlan, programs = Rtnetlink(), Nftables(), VxlanDevice(), GuardPrograms()
    try:
        parts = (wire, Device(run_directory=Path("/nonexistent")), TunnelRefused, sysctl, NoPurger())
        kernel = Kernel(*parts, families(), netfilter, pod_ends, vxlan, programs)
        yield Node(Turns(kernel, A1, time.monotonic))
    finally:
        wire.close()
        netfilter.close()
        programs.close()
        vxlan.close()


def measure(here: Node, spaces: Iterator[int]) -> dict[tuple[int, int], list[float]]:
    """Return milliseconds by pods that there were, and new ones."""
    found: dict[tuple[int, int], list[float]] = {}
    for standing in (FEW, MANY):
        while here.pods < standing:
            here.add(next(spaces))
            if here.pods % TOGETHER == 1:
                here.turn()
        here.turn()
        for new in (0, 1, TOGETHER):
            for _ in range(RUNS):
                for _ in range(new):
                    here.add(next(spaces))
                found.setdefault((standing, new), []).append(here.turn())
    return found


def pod_spaces(stack: ExitStack) -> Iterator[int]:
    while True:
        space = Space()
        stack.callback(space.close)
        descriptor = os.open(space.path, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        yield descriptor


def main() -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with ExitStack() as stack:
        host = Space(ONE_LINK)
        stack.callback(host.close)
        spaces = pod_spaces(stack)
        stack.enter_context(host.entered())
        here = stack.enter_context(a_node())
        here.turn()
        found = measure(here, spaces)
    kept = [
        tell(f"pods: a turn after {new} new ones, {standing} there", values, "ms", PROMISED[new])
        for (standing, new), values in found.items()
    ]
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main())
