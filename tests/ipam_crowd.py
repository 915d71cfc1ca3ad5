"""Many nodes, a process each, that give out and take back addresses of one folder, and are killed at random.

A node's pods are files, made and removed at once, as interfaces are: whoever finds the file of an address that it was
given just now has caught two nodes with one address.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from builders import node, pool

from felix_py import ipam_check
from felix_py.allocations import AddressRefused, Allocations
from felix_py.datastore.swaps import FolderSwaps
from felix_py.ipam_check import Books, Finding
from felix_py.ledger import Attachment
from felix_py.model import NodeName
from felix_py.state import ClusterState, InSync
from felix_py.tending import Tending

NODES = 16
THREADS = 4
PODS = 14
"""Of each thread at a time; together nearly as many as there are addresses, so that nodes borrow."""

RANGE = "10.65.0.0/22"


def cluster() -> ClusterState:
    nodes = [node(f"n{number}", f"172.31.1.{number + 1}/24") for number in range(NODES)]
    return ClusterState().after_all((*nodes, pool(RANGE), InSync()))


def allocations(folder: Path, name: str) -> Allocations:
    """Return a node's allocations, as an agent has them when it starts."""
    made = Allocations(FolderSwaps(folder / "resources"), NodeName(name), living=lambda: living(folder, name))
    known = cluster()
    made.addresses.own.cluster = lambda: known
    return made


def living(folder: Path, name: str) -> tuple[Attachment, ...]:
    """Return the pods of a node that are there."""
    found = []
    for file in (folder / "pods").iterdir():
        with suppress(FileNotFoundError):  # of another node, gone since
            container, owner = file.read_text().split()
            if owner == name:
                found.append(draft(container, (file.name,)))
    return tuple(found)


def draft(container: str, addresses: Iterable[str] = ()) -> Attachment:
    return Attachment(
        container, "eth0", f"container/{container}", f"cali{container}", tuple(map(ip_address, addresses)), network="n"
    )


def work(folder: Path, name: str, seed: int) -> None:
    """Be a node until killed, or until nobody wants more."""
    store = allocations(folder, name)
    tending = Tending(store, NodeName(name), _nothing)
    progress = os.open(folder / "progress", os.O_WRONLY | os.O_APPEND)
    with ThreadPoolExecutor(THREADS) as threads:
        lives = [threads.submit(_live, folder, store, tending, f"{name}x{seed}x{n}", progress) for n in range(THREADS)]
        for life in lives:
            life.result()


async def _nothing(_: str) -> None:
    """Forget nothing."""


def _live(folder: Path, store: Allocations, tending: Tending, name: str, progress: int) -> None:
    chance, number = random.Random(name), 0  # noqa: S311 - a test that can be repeated
    while not (folder / "enough").exists():
        mine = [each for each in store.attachments() if each.container_id.startswith(name)]
        old = [each for each in store.attachments() if "x" in each.container_id and _is_left(each, name)]
        if old and chance.random() < 0.5:
            _remove(folder, store, chance.choice(old))
        elif len(mine) < chance.randrange(PODS):
            number += 1
            _add(folder, store, f"{name}x{number}", progress)
        elif mine:
            _remove(folder, store, chance.choice(mine))
        if chance.random() < 0.01:
            tending.tidy(timedelta(0))


def _is_left(attachment: Attachment, name: str) -> bool:
    """Say whether a process before this one has left a pod to this thread."""
    seed, thread = name.split("x")[1:3]
    parts = attachment.container_id.split("x")
    return parts[1] != seed and parts[2] == thread


def _add(folder: Path, store: Allocations, container: str, progress: int) -> None:
    try:
        attachment = store.attach(draft(container))
    except AddressRefused:
        return
    (address,) = attachment.addresses
    # Made at once, with what stands in it: a process that is killed leaves a pod or none.
    unfinished = folder / "unfinished" / container
    unfinished.write_text(f"{container} {container.split('x', maxsplit=1)[0]}")
    os.link(unfinished, folder / "pods" / str(address))  # FileExistsError: somebody has the address already
    unfinished.unlink()
    os.write(progress, b".")


def _remove(folder: Path, store: Allocations, attachment: Attachment) -> None:
    (address,) = attachment.addresses
    (folder / "pods" / str(address)).unlink()
    store.detach(attachment)


def run(folder: Path, addresses: int, seed: int = 1) -> tuple[int, int]:
    """Have the crowd give out that many addresses; return how many it gave, and how many processes were killed."""
    for name in ("pods", "unfinished", "resources"):
        (folder / name).mkdir()
    progress = folder / "progress"
    progress.touch()
    chance, seeds, kills = random.Random(seed), iter(range(1 << 30)), 0  # noqa: S311 - same
    crowd = {f"n{number}": _start(folder, f"n{number}", next(seeds)) for number in range(NODES)}
    try:
        while progress.stat().st_size < addresses:
            time.sleep(1.0)
            for name, process in crowd.items():
                if process.poll() is not None:
                    raise AssertionError(f"{name} ended: {(folder / name).read_text()[-3000:]}")
            name = chance.choice(sorted(crowd))
            crowd[name].kill()
            crowd[name].wait()
            kills += 1
            crowd[name] = _start(folder, name, next(seeds))
        (folder / "enough").touch()
        for name, process in crowd.items():
            assert process.wait(60) == 0, (folder / name).read_text()[-3000:]
    finally:
        for process in crowd.values():
            process.send_signal(signal.SIGKILL)
            process.wait()
    return progress.stat().st_size, kills


def _start(folder: Path, name: str, seed: int) -> "subprocess.Popen[bytes]":
    with (folder / name).open("ab") as log:
        return subprocess.Popen([sys.executable, __file__, folder, name, str(seed)], stdout=log, stderr=log)


def findings(folder: Path) -> list[Finding]:
    """Start every node once more, let it look after its addresses, and return what none of them finds in order."""
    stores = {f"n{number}": allocations(folder, f"n{number}") for number in range(NODES)}
    for name, store in stores.items():
        Tending(store, NodeName(name), _nothing).tidy(timedelta(0))
    found: dict[Finding, None] = {}
    for name, store in stores.items():
        addresses = store.addresses
        blocks, damaged = addresses.blocks()
        known = addresses.own.claims()
        books = Books(cluster(), blocks, tuple(map(str, damaged)), known, NodeName(name), store.in_use())
        found.update(dict.fromkeys(ipam_check.findings(books)))
    return list(found)


def held(folder: Path) -> dict[str, str]:
    """Return which container holds which address, by the blocks."""
    blocks, _ = allocations(folder, "n0").addresses.blocks()
    return {str(address): each.details["containerID"] for block in blocks for address, each in block.holders.items()}


if __name__ == "__main__":
    work(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
