"""A parameter of a pod's namespace, written in a procfs of our own and in /proc: while pods become more, and with many.

Nobody has looked into any of the namespaces before. Each run has new ones; those of the runs before are gone.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing

from cni_parties import Namespaces
from figures import RUNS, tell_ratio

from felix_py.kernel import jobs, link_changes, links
from felix_py.kernel.jobs import Job

FORWARDING = {"/proc/sys/net/ipv4/ip_forward": "0"}
PLAIN = {"//proc/sys/net/ipv4/ip_forward": "0"}
"""Not below /proc for `exchange.c`, so that it is the file that everybody has."""

ASKED = links.acknowledged([link_changes.up(1, "lo")])
AT_ONCE = 8
PODS = {100: 1.2, 500: 0.8, 1600: 0.5}
"""How many there are in the end, and what the last hundred may take, of what they take in /proc."""


def written(pods: Sequence[int], parameter: Mapping[str, str]) -> float:
    """Write the parameter of each pod, so many in one call; return the microseconds that one of the last 100 took."""
    asked = [Job(links.packed(ASKED), 0, None, pod, {}, parameter) for pod in pods]
    for at in range(0, len(asked), AT_ONCE):
        if at == (len(asked) - 100) // AT_ONCE * AT_ONCE:
            began = time.perf_counter()
        done = jobs.do(asked[at : at + AT_ONCE])
        assert all(each.is_well for each in done), done
    return (time.perf_counter() - began) * 1e6 / 100


def main() -> int:
    kept = []
    for count, reach in PODS.items():
        ours, plain = list[float](), list[float]()
        for _ in range(RUNS):
            for found, parameter in ((ours, FORWARDING), (plain, PLAIN)):
                with closing(Namespaces(count)) as pods:
                    found.append(written(pods.descriptors, parameter))
        name = f"pods: a parameter of one of the last hundred, of {count}"
        kept.append(tell_ratio(name, ours, "us", "/proc", plain, reach, better="lower"))
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main())
