"""How an agent with no memory knows what is its own: every mark that we leave in the kernel, in one place."""

from enum import Enum

ROUTE_PROTOCOL = 80
"""rtm_protocol of every route of ours, as Calico's Felix uses: `ip route show proto 80` lists our work."""

GRACE = 10.0
"""Seconds that a route of another program out of a workload's device is left alone although nobody wants it: a CNI
plugin may have been faster than the news of its endpoint (Felix waits as long). Our own routes need no such grace."""

WORKLOAD_PREFIX = "cali"
"""Host side of every pod's veth begins so; routes out of such a device belong to whoever owns the pods: us."""

KERNEL_PROTOCOL = 2
"""RTPROT_KERNEL: connected and local routes; never ours, never touched."""

BOOT, STATIC, ZEBRA, BIRD, BGP = 3, 4, 11, 12, 186
"""rtm_protocol of `ip route add`, of an administrator who says `proto static`, and of the routing daemons."""


class Standing(Enum):
    """What somebody else's route on a prefix that we want means for us."""

    TAKE_OVER = "left there by a tool or a routing daemon: replaced in place"
    LEAVE = "set on purpose by an administrator or the kernel: left alone and reported"


STANDINGS = {
    BOOT: Standing.TAKE_OVER,  # `ip route replace` by hand or by a script; a CNI plugin that raced us
    ZEBRA: Standing.TAKE_OVER,
    BIRD: Standing.TAKE_OVER,  # a node that moves here from Calico
    BGP: Standing.TAKE_OVER,
}
"""By protocol; whatever is not listed stays (`proto static`, dhcp, ra, kernel)."""

PROTOCOL_NAMES = {
    2: "kernel",
    3: "boot",
    4: "static",
    9: "ra",
    11: "zebra",
    12: "bird",
    16: "dhcp",
    80: "felix",
    186: "bgp",
}
"""As /etc/iproute2/rt_protos spells them."""


def is_workload_device(name: str | None) -> bool:
    """Say whether this interface is the host side of a pod's veth."""
    return name is not None and name.startswith(WORKLOAD_PREFIX)


def standing(protocol: int) -> Standing:
    """Decide about somebody else's route that stands on a key which we want, by its protocol."""
    return STANDINGS.get(protocol, Standing.LEAVE)


def protocol_name(protocol: int) -> str:
    """Return the word that `ip route` prints for this protocol."""
    return PROTOCOL_NAMES.get(protocol, str(protocol))
