"""A node's allocations in a folder, for tests: pods, the store, and the file that it writes."""

from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from block_files import newest
from builders import with_blocks

from felix_py.allocations import Allocations
from felix_py.datastore.swaps import FolderSwaps
from felix_py.ledger import Attachment
from felix_py.model import IPAddress, NodeName

A1 = NodeName("a1")
BLOCK = IPv4Network("10.65.0.0/29")
WEB = Attachment(
    container_id="c1",
    interface="eth0",
    name="default/web-0",
    host_interface="cali0d7763386da",
    pod="default/web-0",
    network="pods",
    netns="/run/netns/p1",
    created=datetime(2026, 11, 24, 8, 0, tzinfo=UTC),
)


def numbered(number: int) -> Attachment:
    return Attachment(f"c{number}", "eth0", f"default/p{number}", f"cali{number}")


FILE = "10-65-0-0-29.json"


def store(folder: Path, *living: Attachment, blocks: tuple[str, ...] = ("10.65.0.0/29",)) -> Allocations:
    made = Allocations(FolderSwaps(folder), A1, before=folder, living=lambda: living)
    cluster = with_blocks(A1, *blocks)
    made.addresses.own.cluster = lambda: cluster
    return made


def file_of(folder: Path) -> Path:
    """Return the copy that stands of the block's file."""
    return newest(folder / "ipam" / "blocks" / FILE)


def holders(pods: Allocations, block: IPv4Network = BLOCK) -> dict[IPAddress, str]:
    return {address: str(holder) for address, holder in pods.block(block).holders.items()}


def addresses(*texts: str) -> tuple[IPv4Address, ...]:
    return tuple(map(IPv4Address, texts))
