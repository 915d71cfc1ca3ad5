"""The kernel driver: the ipip module's own device, and an nftables table that admits only the nodes' packets."""

import errno
import json
import subprocess
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from typing import Any

from ipip import links
from ipip.tunnel import NOTHING, Facts, Tunnel, TunnelRefused

TABLE = "felix-ipip"
"""Ours alone: `nft list table ip felix-ipip`."""

RULES = """
add table ip {table}
delete table ip {table}
table ip {table} {{
  set nodes {{ type ipv4_addr; {elements} }}
  chain input {{
    type filter hook input priority filter; policy accept;
    ip protocol 4 ip daddr {local} ip saddr @nodes counter accept
    ip protocol 4 counter drop
  }}
}}
"""
"""One transaction: no packet meets half of it. Other tables of the host still have their say."""

NFT_SECONDS = 10.0


SET_ASIDE = "-module"
"""What the module's own device is called besides while another driver has its name: there is one in each namespace,
nobody can remove it, and no second one that reaches every node."""


class Kernel:
    """Drives the device that reaches every node: the FIB's gateway is the outer destination."""

    kind = "ipip"

    def __init__(self) -> None:
        self._given: links.Gateways | None = None

    def ours(self, link: links.Link) -> bool:
        """Say whether this driver could have made the device."""
        return link.kind == self.kind

    def facts(self, _name: str, link: links.Link) -> Facts:
        """Say what is admitted; routes are those given, or before that, those that the FIB holds."""
        if self._given is None:
            self._given = links.gateways(link.index)
        local, allowed = admitted(_listing())
        return Facts(local, self._given, allowed)

    def put(self, tunnel: Tunnel) -> None:
        """See that the device is there, down at first, and admit the nodes.

        Raises:
            TunnelRefused: without the module or nftables.
        """
        if links.read(tunnel.name) is None:
            _make_or_refuse(tunnel.name)
        if admitted(_listing()) != (tunnel.local, tunnel.allowed):
            elements = ", ".join(map(str, sorted(tunnel.allowed)))
            rules = RULES.format(
                table=TABLE, local=tunnel.local, elements=f"elements = {{ {elements} }}" if elements else ""
            )
            _nft(["-f", "-"], rules)
        self._given = tunnel.routes

    def delete(self, name: str) -> None:
        """Remove the device (the module's own fallback device can only be emptied and set down), then the table."""
        link = links.read(name)
        if link is not None and link.kind == self.kind:
            links.change(link.index, up=False)
            for address in links.addresses(link.index):
                links.remove_address(link.index, address)
            try:
                links.remove(link.index)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.ENODEV):
                    raise
        if _listing():
            _nft(["delete", "table", "ip", TABLE])
        self._given = None

    def counters(self, _name: str) -> Mapping[str, int]:
        """Return packets admitted and packets dropped because their source is no node."""
        found = {}
        for rule in _rules(_listing()):
            packets = next((each["counter"]["packets"] for each in rule if "counter" in each), 0)
            found["dropped_source_not_allowed" if {"drop": None} in rule else "received_packets"] = packets
        return found


def make(name: str) -> None:
    """Create the device; loading the module may have done so already.

    Raises:
        OSError: EOPNOTSUPP where the kernel has no ipip module.
    """
    try:
        links.create(name, Kernel.kind)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
        aside = links.read(name + SET_ASIDE)
        if links.read(name) is None and aside is not None and aside.kind == Kernel.kind:
            links.rename(aside.index, name)


def _make_or_refuse(name: str) -> None:
    try:
        make(name)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        sentence = (
            f"{name} cannot be made: this kernel has no ipip module; install it, or let the driver be ebpf or tun"
        )
        raise TunnelRefused(sentence) from error


def admitted(listing: Iterable[Mapping[str, Any]]) -> tuple[IPv4Address, frozenset[IPv4Address]]:
    """Read from the table which local address takes tunnel packets, and from which nodes; nothing if a rule is gone."""
    listing = tuple(listing)
    rules = _rules(listing)
    texts = [
        match["right"]
        for rule in rules
        for match in (each["match"] for each in rule if "match" in each)
        if match["left"].get("payload", {}).get("field") == "daddr"
    ]
    if len(texts) != 1 or not any({"drop": None} in rule for rule in rules):
        return NOTHING, frozenset()
    elements: list[str] = next((entry["set"].get("elem", []) for entry in listing if "set" in entry), [])
    try:
        return IPv4Address(texts[0]), frozenset(map(IPv4Address, elements))
    except ValueError:  # ranges or prefixes: somebody else's edit
        return NOTHING, frozenset()


def _rules(listing: Iterable[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    return [entry["rule"]["expr"] for entry in listing if "rule" in entry]


def _listing() -> list[dict[str, Any]]:
    """Return our table as nft describes it in JSON; empty where there is none."""
    try:
        return list(json.loads(_nft(["-j", "list", "table", "ip", TABLE]))["nftables"])
    except TunnelRefused:
        return []


def _nft(arguments: list[str], text: str | None = None) -> str:
    try:
        done = subprocess.run(
            ["nft", *arguments], input=text, capture_output=True, text=True, check=True, timeout=NFT_SECONDS
        )
    except FileNotFoundError as error:
        sentence = (
            "nft is missing, so that tunnel packets from strangers could not be dropped; apt-get install nftables"
        )
        raise TunnelRefused(sentence) from error
    except subprocess.CalledProcessError as error:
        raise TunnelRefused(f"nft refused table ip {TABLE}: {error.stderr.strip().partition(chr(10))[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise TunnelRefused(f"nft did not answer within {NFT_SECONDS:.0f} s; it is tried again") from error
    return done.stdout
