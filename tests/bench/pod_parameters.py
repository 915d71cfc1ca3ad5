"""A parameter of a pod's namespace, written in a procfs of our own and in /proc: while pods become more, and with many.

Nobody has looked into any of the namespaces before. Each run has new ones; those of the runs before are gone.
"""

import os
import resource
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

from cni_parties import unshare
from figures import RUNS, tell_ratio

from felix_py.kernel import jobs, link_changes, links
from felix_py.kernel.jobs import Job

FORWARDING = {"/proc/sys/net/ipv4/ip_forward": "0"}
ASKED = links.acknowledged([link_changes.up(1, "lo")])
AT_ONCE = 8
PODS = {100: 1.2, 500: 0.8, 1600: 0.5}
"""How many there are in the end, and what the last hundred may take, of what they take in /proc."""


@contextmanager
def namespaces(count: int) -> Iterator[list[int]]:
    """Make network namespaces without names; give their descriptors."""
    found: list[int] = []

    def make() -> None:
        unshare()
        found.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    for _ in range(count):
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
    try:
        yield found
    finally:
        for each in found:
            os.close(each)


def written(pods: Sequence[int]) -> float:
    """Write the parameter of each pod, so many in one call; return the microseconds that one of the last 100 took."""
    asked = [Job(links.packed(ASKED), 0, None, pod, {}, FORWARDING) for pod in pods]
    for at in range(0, len(asked), AT_ONCE):
        if at == (len(asked) - 100) // AT_ONCE * AT_ONCE:
            began = time.perf_counter()
        done = jobs.do(asked[at : at + AT_ONCE])
        assert all(each.is_well for each in done), done
    return (time.perf_counter() - began) * 1e6 / 100


def main() -> int:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    kept = []
    for count, reach in PODS.items():
        ours, plain = [], []
        for _ in range(RUNS):
            with namespaces(count) as pods:
                ours.append(written(pods))
            with namespaces(count) as pods, mock.patch.object(jobs, "_procfs", return_value=-1):
                plain.append(written(pods))
        name = f"pods: a parameter of one of the last hundred, of {count}"
        kept.append(tell_ratio(name, ours, "us", "/proc", plain, reach, better="lower"))
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main())
