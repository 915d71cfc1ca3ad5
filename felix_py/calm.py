"""When a turn may wait for pods: those that come one after the other need none, as long as nothing else happens."""

from felix_py.calc import sessions
from felix_py.model import BlockAffinity, IPNetwork, NodeName, WorkloadEndpoint, lies_in
from felix_py.state import ClusterState

LONGEST = 1.0
"""Seconds from the first pod that comes after a turn to the next turn, however calm it is."""

FULL = 110
"""Pods that come between two turns, kubelet's own limit for a node: the turn after them, for which those that come next
wait, looks at each of them."""


class Calm:
    """What has happened to one node since its last turn began, as far as it asks for another one."""

    def __init__(self, me: NodeName) -> None:
        self._me = me
        self._disturbed = True
        self._pods = 0
        self._since: float | None = None
        self._blocks: tuple[tuple[BlockAffinity, ...], tuple[IPNetwork, ...]] = (), ()

    def disturb(self) -> None:
        """Take note of anything but pods that come."""
        self._disturbed = True

    def expect(self, now: float) -> None:
        """Take note that a pod is about to come or to go; for any thread."""
        if self._since is None:
            self._since = now

    def came(self, pod: WorkloadEndpoint, cluster: ClusterState) -> None:
        """Take note of a pod that is guarded and routed; one of whose address others have to be told disturbs."""
        self._pods += 1
        if not self.covers(pod, cluster):
            self.disturb()

    def covers(self, pod: WorkloadEndpoint, cluster: ClusterState) -> bool:
        """Say whether others know of a pod's addresses by this node's blocks; for any thread."""
        affinities, blocks = self._blocks
        if cluster.of(BlockAffinity) is not affinities:
            affinities, blocks = self._blocks = cluster.of(BlockAffinity), sessions.own_blocks(cluster, self._me)
        return all(any(lies_in(network, block) for block in blocks) for network in pod.networks)

    def begin(self) -> None:
        """Take note that a turn begins."""
        self._disturbed, self._pods, self._since = False, 0, None

    def lasts(self, now: float) -> bool:
        """Say whether the next turn may wait, if the kernel has no need of it."""
        soon = self._since is None or now - self._since < LONGEST
        return soon and not self._disturbed and self._pods < FULL
