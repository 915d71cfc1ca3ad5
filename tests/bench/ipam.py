"""Addresses: what one costs with its share of the durable write, and 20,000 of them among sixteen dying nodes.

The node's disk is what is measured; beside it stands what the disk itself takes for a durable write of one small file.
"""

import logging
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).parents[1]))
import figures
import ipam_crowd
from builders import node, pool

from felix_py import durable
from felix_py.allocations import Allocations
from felix_py.datastore.swaps import FolderSwaps
from felix_py.ledger import Attachment
from felix_py.model import IPAMConfiguration, Key, NodeName
from felix_py.state import ClusterState, InSync, Present

SIZE = int(os.environ.get("SIZE") or 10_000)
CALLERS = 64
"""Calls at once: as many as the CNI server takes in hand."""

CROWD = 20_000


def allocations(folder: Path) -> Allocations:
    many = IPAMConfiguration(max_blocks=SIZE)
    cluster = ClusterState().after_all(
        (node("a1", "172.31.1.11/24"), pool(), Present(Key("IPAMConfiguration", "default"), many), InSync())
    )
    made = Allocations(FolderSwaps(folder), NodeName("a1"), living=lambda: ())
    made.addresses.own.cluster = lambda: cluster
    return made


def draft(number: int) -> Attachment:
    name = f"default/p{number}"
    created = datetime.now(UTC)
    return Attachment(
        f"{number:064x}", "eth0", name, f"cali{number:011x}", (), name, "pods", "", "/run/netns/p", created
    )


def milliseconds_each(folder: Path) -> float:
    store = allocations(folder)
    with ThreadPoolExecutor(CALLERS) as callers:
        began = time.perf_counter()
        given = {each.addresses[0] for each in callers.map(store.attach, map(draft, range(SIZE)))}
        took = time.perf_counter() - began
    if len(given) != SIZE:
        raise AssertionError(f"{SIZE} addresses were given, and {len(given)} of them differ")
    return took / SIZE * 1000


def milliseconds_of_the_disk(folder: Path, times: int = 50) -> float:
    began = time.perf_counter()
    for _ in range(times):
        durable.write(folder / "probe", "x" * 4096)
    return (time.perf_counter() - began) / times * 1000


def main() -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    ours, disk = [], []
    for _ in range(figures.RUNS):
        with tempfile.TemporaryDirectory(prefix="felix-ipam-") as folder:
            disk.append(milliseconds_of_the_disk(Path(folder)))
            ours.append(milliseconds_each(Path(folder)))
    kept = [figures.tell(f"ipam: {SIZE} addresses of one pool, {CALLERS} callers, each", ours, "ms", 1.0)]
    kept.append(
        figures.tell_ratio("ipam: an address beside a durable write", ours, "ms", "write", disk, 1.0, better="lower")
    )
    with tempfile.TemporaryDirectory(prefix="felix-ipam-") as folder:
        began = time.perf_counter()
        _, kills = ipam_crowd.run(Path(folder), CROWD)
        took = time.perf_counter() - began
        wrong = ipam_crowd.findings(Path(folder))
    kept.append(figures.tell("ipam: findings after 20,000 addresses of 16 dying nodes", [len(wrong)], "findings", 0))
    kept.append(figures.tell("ipam: addresses a second of 16 dying nodes", [CROWD / took], "1/s", 0, better="higher"))
    kept.append(figures.tell("ipam: nodes killed meanwhile", [kills], "kills", 1, better="higher"))
    return int(not all(kept))


if __name__ == "__main__":
    sys.exit(main())
