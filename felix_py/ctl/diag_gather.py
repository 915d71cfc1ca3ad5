"""What a bug report needs: the agent's documents, the kernel's tables, settings and resources, without any secret."""

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from felix_py.ctl import client

ETC = Path("/etc/felix")

DEADLINE = 10.0
"""Seconds for one command; `ip` takes one for 500,000 routes."""

LARGEST = 32 << 20
"""Bytes of one part; what is longer is cut there, and says so."""

DOCUMENTS: Mapping[str, tuple[tuple[str, ...], Mapping[str, str]]] = {
    "status": (("status",), {}),
    "routes": (("routes",), {}),
    "kernel-routes": (("routes",), {"which": "kernel"}),
    "bgp-peers": (("bgp", "peers"), {}),
    "bgp-routes": (("bgp", "routes"), {}),
    "endpoints": (("endpoints",), {}),
    "tunnels": (("tunnels",), {}),
    "nodes": (("nodes",), {}),
    "plan": (("plan",), {}),
    "events": (("events",), {}),
}
"""Name in the archive: what the agent is asked."""

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "uname": ("uname", "-a"),
    "os-release": ("cat", "/etc/os-release"),
    "links": ("ip", "-d", "-s", "link"),
    "addresses": ("ip", "address"),
    "rules": ("ip", "rule"),
    "rules6": ("ip", "-6", "rule"),
    "routes": ("ip", "route", "show", "table", "all"),
    "routes6": ("ip", "-6", "route", "show", "table", "all"),
    "next-hops": ("ip", "nexthop"),
    "neighbours": ("ip", "neigh"),
    "nftables": ("nft", "-s", "list", "ruleset"),
    "iptables-legacy": ("iptables-legacy-save",),
    "traffic-control": ("tc", "-s", "filter", "show", "dev", "tunl0", "egress"),
    "sysctl": ("sysctl", "-a", "--pattern", r"^net\.(ipv[46]\.(ip_forward|conf|neigh|tcp_l3mdev)|netfilter|core)"),
    "sockets": ("ss", "-tunap"),
    "modules": ("lsmod",),
    "netstat": ("cat", "/proc/net/netstat"),
}
"""Name in the archive: what is run on the host."""


def parts(path: Path) -> Iterator[tuple[str, str]]:
    """Yield name and text of each part; what cannot be had says why in its own text.

    Args:
        path: the agent's socket.
    """
    for name, (resource, query) in DOCUMENTS.items():
        yield f"agent/{name}.json", _document(path, *resource, **query)
    for address in _peers(path):
        yield f"agent/bgp-peer-{address.replace(':', '-')}.json", _document(path, "bgp", "peers", address)
    for name, command in COMMANDS.items():
        yield f"host/{name}.txt", _run(command)
    yield "host/doctor.json", _run(("felixctl", "--socket", str(path), "doctor", "-o", "json"))
    settings = _text(ETC / "felix.yaml")
    yield "settings/felix.yaml", settings
    for file in sorted(_resources(settings)):
        yield f"settings/resources/{file.name}", _text(file)


def _document(path: Path, *resource: str, **query: str) -> str:
    try:
        return json.dumps(client.get(path, *resource, **query), indent=2)
    except (client.Unreachable, client.NotFound, client.Refused) as problem:
        return json.dumps({"error": str(problem)})


def _peers(path: Path) -> list[str]:
    try:
        return list(dict.fromkeys(row["address"] for row in client.get(path, "bgp", "peers")["peers"]))
    except client.Unreachable:
        return []  # bgp-peers.json says why


def _run(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=DEADLINE)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{' '.join(command)}: {error}\n"
    said = (
        done.stdout if len(done.stdout) <= LARGEST else f"{done.stdout[:LARGEST]}\ncut here: {len(done.stdout)} bytes\n"
    )
    silent = not said and done.returncode
    return said + done.stderr + (f"exit status {done.returncode}\n" if silent else "")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")[:LARGEST]
    except OSError as error:
        return f"{file}: {error.strerror}\n"


def _resources(settings: str) -> Iterator[Path]:
    folder = Path(_setting(settings, "resourceDirectory") or ETC / "resources")
    for pattern in ("*.yaml", "*.yml", "*.json"):
        yield from folder.glob(pattern)


def _setting(settings: str, name: str) -> str | None:
    try:
        document: Any = yaml.safe_load(settings)
    except yaml.YAMLError:
        return None  # the agent would not start with it; the file itself is in the archive
    found = document.get(name) if isinstance(document, dict) else None
    return found if isinstance(found, str) else None


def secrets() -> frozenset[str]:
    """Return the passwords of this node, to be taken out wherever they stand: read, and shown nowhere."""
    settings = _text(ETC / "felix.yaml")
    files = [*_files(Path(_setting(settings, "secretDirectory") or ETC / "secrets"))]
    for file in _resources(settings):
        files += _referred(_text(file))
    values = set()
    for each in files:
        try:
            values.add(each.read_text(encoding="utf-8", errors="replace").strip())
        except OSError:
            continue  # not there, or not for us: then it is in nothing that we gather either
    return frozenset(values)


def _files(folder: Path) -> Iterable[Path]:
    return [each for each in folder.rglob("*") if each.is_file()] if folder.is_dir() else []


def _referred(text: str) -> Iterator[Path]:
    """Yield the files of passwords that resources name by their whole path."""
    for line in text.splitlines():
        name, colon, value = line.strip().removeprefix("- ").partition(":")
        if colon and name.strip("\"'").lower().endswith("passwordfile"):
            yield Path(value.strip().strip("\"',"))
