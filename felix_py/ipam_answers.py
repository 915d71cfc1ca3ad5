"""What the local API answers about addresses, and the release of those that somebody wants back."""

import asyncio
from collections.abc import Callable, Mapping
from ipaddress import ip_address

import structlog

from felix_py import ipam_documents
from felix_py.allocations import Allocations
from felix_py.api import Answer
from felix_py.ipam import Holder
from felix_py.ipam_check import Books
from felix_py.model import IPAddress, NodeName
from felix_py.store_failed import StoreFailed

log = structlog.get_logger()


class IpamAnswers:
    """Answers for one node, of what all nodes have."""

    def __init__(self, store: Allocations, node: NodeName) -> None:
        self._store = store
        self._node = node

    async def pools(self, _parts: tuple[str, ...], _query: Mapping[str, str]) -> Answer:
        """Answer GET /v1/pools."""
        return 200, ipam_documents.pools(await self._books())

    async def blocks(self, _parts: tuple[str, ...], _query: Mapping[str, str]) -> Answer:
        """Answer GET /v1/blocks."""
        return 200, ipam_documents.blocks(await self._books(), self._store.addresses.own.terms())

    async def ipam(self, parts: tuple[str, ...], _query: Mapping[str, str]) -> Answer:
        """Answer GET /v1/ipam/check and /v1/ipam/addresses/ADDRESS."""
        match parts:
            case ("check",):
                return 200, ipam_documents.check(await self._books())
            case ("addresses", written):
                wanted = _address(written)
                if isinstance(wanted, str):
                    return 400, {"error": wanted}
                terms = self._store.addresses.own.terms()
                return 200, ipam_documents.address(await self._books(), wanted, terms)
        return 404, {"error": "known are /v1/ipam/check and /v1/ipam/addresses/ADDRESS"}

    async def _books(self) -> Books:
        return await asyncio.to_thread(self._read)

    def _read(self) -> Books:
        addresses = self._store.addresses
        blocks, damaged = addresses.blocks()
        in_use = dict(self._store.in_use())
        return Books(
            addresses.own.cluster(), blocks, tuple(map(str, damaged)), addresses.own.claims(), self._node, in_use
        )

    async def release(self, parts: tuple[str, ...], query: Mapping[str, str]) -> Answer:
        """Answer POST /v1/ipam/release/ADDRESS and /v1/ipam/handles/HANDLE, both with ?force= where that is meant."""
        match parts:
            case ("release", written):
                wanted = _address(written)
                if isinstance(wanted, str):
                    return 400, {"error": wanted}
                return await self._release(str(wanted), lambda address, _: address == wanted, force="force" in query)
            case ("handles", handle):
                return await self._release(handle, lambda _, found: found == handle, force="force" in query)
        return 404, {"error": "known are /v1/ipam/release/ADDRESS and /v1/ipam/handles/HANDLE"}

    async def _release(self, subject: str, wanted: Callable[[IPAddress, str], bool], *, force: bool) -> Answer:
        books = await self._books()
        held = [
            (address, holder)
            for block in books.blocks
            for address, holder in block.holders.items()
            if wanted(address, holder.handle)
        ]
        if not held:
            return 404, {"error": f"{subject} holds nothing, or is held by nobody; see `felixctl ipam show --blocks`"}
        refusals = [why for each in held if (why := _refusal(books, *each))] if not force else []
        if refusals:
            return 400, {"error": "; ".join(refusals)}
        try:
            await asyncio.to_thread(self._store.release, held)
        except StoreFailed as failure:
            return 503, {"error": str(failure)}
        for address, holder in held:
            log.info("ipam.address.released", address=str(address), holder=str(holder), cause="felixctl ipam release")
        return 200, {"released": [{"address": str(address), "handle": holder.handle} for address, holder in held]}


def _refusal(books: Books, address: IPAddress, holder: Holder) -> str | None:
    """Say why an address must not be taken from its holder, the first rule that fits."""
    if holder.node == books.node and books.in_use.get(address) == holder.handle:
        return f"{address} is in use by {holder}; delete the pod, or give --force"
    if holder.node != books.node and books.cluster.node(holder.node) is not None:
        where = f"node {holder.node}, which alone knows whether it is in use"
        return f"{address} is held on {where}; ask there, or give --force"
    return None


def _address(written: str) -> IPAddress | str:
    try:
        return ip_address(written)
    except ValueError:
        return f"the address is {written!r}; give one as 10.65.0.5 or fd65::5"
