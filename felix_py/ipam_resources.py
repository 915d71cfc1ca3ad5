"""Blocks and claims as Calico-shaped documents, and the resources that say how addresses are given out."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from felix_py import selectors
from felix_py.fields import TRUTH, Reader, boolean, network, one_of, selector, text, within
from felix_py.ipam import Block, Holder
from felix_py.model import (
    BlockAffinity,
    Claim,
    IPAMConfiguration,
    IPNetwork,
    IPReservation,
    Namespace,
    NodeName,
    Use,
)
from felix_py.selectors import Selector

CRD_VERSION = "crd.projectcalico.org/v1"
"""The version in which Calico keeps IPAMBlocks and BlockAffinities; nobody writes them by hand."""

AFFINITY = "host:"
"""What stands before a node's name in IPAMBlock.spec.affinity."""

LONGEST_COOLDOWN = 1200
"""Seconds that Calico takes as ipCooldownSeconds at most."""

USUAL_BLOCKS = 20
"""What 0 as maxBlocksPerHost means in Calico (libcalico-go/lib/ipam)."""

KNOWN_TEXTS = 4096
"""Addresses and holders whose text is kept: of a block that is written again all but one or two are as before."""

SELECTOR = "a selector, as rack == 'a'"

EVERYTHING = selectors.parse("all()").tree


def block_document(block: Block) -> dict[str, Any]:
    """Return a block as it is stored: by address, and what was given back in the order in which it is given again.

    Calico has an entry for each address of the block, free or not; ours may be as large as somebody writes them.
    """
    return {
        "cidr": str(block.cidr),
        "affinity": f"{AFFINITY}{block.affinity}" if block.affinity is not None else None,
        "allocations": {str(block.address(ordinal)): _attribute(block.held[ordinal]) for ordinal in block.held},
        "released": {str(block.address(ordinal)): _time(since) for ordinal, since in block.released.items()},
    }


def block_text(block: Block) -> str:
    """Return `block_document` as JSON: of holders that were there before, the text is not made again."""
    first, version = int(block.cidr.network_address), block.cidr.version
    allocations = ", ".join(
        f'"{_name(first + ordinal, version)}": {_attribute_text(holder)}' for ordinal, holder in block.held.items()
    )
    released = {_name(first + ordinal, version): _time(since) for ordinal, since in block.released.items()}
    affinity = f"{AFFINITY}{block.affinity}" if block.affinity is not None else None
    return (
        f'{{"cidr": "{block.cidr}", "affinity": {json.dumps(affinity)}, '
        f'"allocations": {{{allocations}}}, "released": {json.dumps(released)}}}'
    )


@lru_cache(KNOWN_TEXTS)
def _name(number: int, version: int) -> str:
    """Return an address as text; from a number, whose hash costs nothing."""
    return str(IPv4Address(number) if version == 4 else IPv6Address(number))  # noqa: PLR2004 - IP versions


def _attribute_text(holder: Holder) -> str:
    """Return `_attribute` as JSON; remembered by which object the holder is, for to compare it costs as much."""
    known = _texts.get(id(holder))
    if known is None or known[0] is not holder:
        if len(_texts) > KNOWN_TEXTS:
            _texts.clear()
        known = _texts[id(holder)] = holder, json.dumps(_attribute(holder))
    return known[1]


_texts: dict[int, tuple[Holder, str]] = {}


def _attribute(holder: Holder) -> dict[str, Any]:
    details = {"node": str(holder.node), "timestamp": _time(holder.since), **holder.details}
    return {"handle_id": holder.handle, "secondary": details}


@lru_cache(KNOWN_TEXTS)
def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def block(spec: Mapping[str, Any]) -> Block:
    """Read what `block_document` wrote.

    Raises:
        ValueError: with what is wrong, for anything else.
    """
    try:
        affinity, cidr = spec["affinity"], ip_network(spec["cidr"])
        held = {_ordinal(address, cidr): _holder(each) for address, each in spec["allocations"].items()}
        released = {_ordinal(address, cidr): _moment(since) for address, since in spec["released"].items()}
        owner = NodeName(affinity.removeprefix(AFFINITY)) if affinity is not None else None
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it lacks something or has it in the wrong shape: {error!r}") from error
    if held.keys() & released.keys():
        raise ValueError("an address is held and free")
    return Block(cidr, owner, held, released)


def _ordinal(address: str, cidr: IPNetwork) -> int:
    found = ip_address(address)
    if found not in cidr:
        raise ValueError(f"{address} is not of {cidr}")
    return int(found) - int(cidr.network_address)


def _holder(document: Mapping[str, Any]) -> Holder:
    details = {str(name): value for name, value in document["secondary"].items()}
    node, since = details.pop("node"), details.pop("timestamp")
    if not all(isinstance(value, str) for value in (document["handle_id"], node, *details.values())):
        raise TypeError(f"a holder is {document!r}")
    return Holder(document["handle_id"], NodeName(node), _moment(since), details)


def _moment(written: str | None) -> datetime | None:
    if written is None:
        return None
    moment = datetime.fromisoformat(written)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def affinity_document(affinity: BlockAffinity) -> dict[str, Any]:
    """Return a claim as Calico stores it."""
    return {
        "cidr": str(affinity.cidr),
        "node": str(affinity.node),
        "state": str(affinity.claim),
        "deleted": "false",
    }


# --- what users write


def affinity(reader: Reader, name: str, spec: Mapping[str, Any]) -> BlockAffinity:
    """Read a BlockAffinity."""
    reader.known(spec, "spec", {"cidr", "node", "state", "deleted"})
    states = "confirmed, pending or pendingDeletion"
    return BlockAffinity(
        name=name,
        node=NodeName(reader.value(spec, "node", "spec", text, "the name of a node") or ""),
        cidr=reader.value(spec, "cidr", "spec", network, "a network, as 10.65.1.0/26 or fd65::40/122"),
        claim=reader.value(spec, "state", "spec", Claim, states, Claim.CONFIRMED),
    )


def reservation(reader: Reader, name: str, spec: Mapping[str, Any]) -> IPReservation:
    """Read an IPReservation."""
    reader.known(spec, "spec", {"reservedCIDRs"})
    cidrs = reader.items(spec, "reservedCIDRs", "spec", network, "a network, as 10.65.0.0/30 or 10.65.0.7/32")
    return IPReservation(name, cidrs)


def configuration(reader: Reader, name: str, spec: Mapping[str, Any]) -> IPAMConfiguration:
    """Read an IPAMConfiguration."""
    reader.known(spec, "spec", {"strictAffinity", "maxBlocksPerHost", "autoAllocateBlocks", "ipCooldownSeconds"})
    if name != "default":
        reader.fault("metadata.name", f"is {name!r}; give default, for there is one for the cluster")
    seconds = f"seconds from 0 to {LONGEST_COOLDOWN}"
    blocks = reader.value(spec, "maxBlocksPerHost", "spec", within(0, 1 << 31), "a number of blocks", 0)
    return IPAMConfiguration(
        name=name,
        strict_affinity=reader.value(spec, "strictAffinity", "spec", boolean, TRUTH, False),  # noqa: FBT003 - a default
        max_blocks=blocks or USUAL_BLOCKS,
        claims_blocks=reader.value(spec, "autoAllocateBlocks", "spec", boolean, TRUTH, True),  # noqa: FBT003 - same
        cooldown=reader.value(spec, "ipCooldownSeconds", "spec", within(0, LONGEST_COOLDOWN), seconds, 0),
    )


def namespace(reader: Reader, name: str, spec: Mapping[str, Any]) -> Namespace:
    """Read a Namespace: of Kubernetes, whose labels count, and nothing else of it."""
    reader.known(spec, "spec", {"finalizers"})
    return Namespace(name, reader.labels)


def pool_selector(reader: Reader, spec: Mapping[str, Any], name: str) -> Selector | None:
    """Read a selector of a pool; one that selects everything is none."""
    found: Selector | None = reader.value(spec, name, "spec", selector, SELECTOR, None)
    return None if found is not None and found.tree == EVERYTHING else found


def uses(reader: Reader, spec: Mapping[str, Any]) -> frozenset[Use]:
    """Read what a pool's addresses may be given to."""
    if spec.get("allowedUses") is None:
        return frozenset(Use)
    words = tuple(map(str, Use))
    return frozenset(map(Use, reader.items(spec, "allowedUses", "spec", one_of(*words), " or ".join(words))))
