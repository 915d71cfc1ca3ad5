"""What `felixctl doctor` reads in files: kernel modules, disks, container runtimes and network managers."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDERS: Mapping[str, str] = {
    "/etc/felix/resources": "no pod can be given an address",
    "/var/lib/felix": "events, and what people asked of BGP, are lost with the next restart",
}
"""What the agent writes to, unless settings say otherwise, with what it cannot do where that is full."""

RUNTIMES, PLUGIN = Path("/etc/cni/net.d"), Path("/opt/cni/bin/felix-cni")
"""Where container runtimes look for configurations; for plugins."""

NETWORK_MANAGER = ("/etc/NetworkManager/NetworkManager.conf", "/etc/NetworkManager/conf.d/*.conf")
NETWORKD = ("/etc/systemd/networkd.conf", "/etc/systemd/networkd.conf.d/*.conf", "/run/systemd/networkd.conf.d/*.conf")


def drivers() -> Iterator[str]:
    """Yield which drivers of tunnels this kernel offers, as far as files tell."""
    modules = Path("/lib/modules", os.uname().release)
    if (
        Path("/sys/module/ipip").exists()
        or any(modules.glob("kernel/net/ipv4/ipip.ko*"))
        or "/ipip.ko" in text(modules / "modules.builtin")
    ):
        yield "kernel"
    if Path("/proc/sys/kernel/unprivileged_bpf_disabled").exists():  # there with CONFIG_BPF_SYSCALL only
        yield "ebpf"
    if Path("/dev/net/tun").exists():
        yield "tun"


def descriptors(process: int) -> tuple[int, int] | None:
    """Return how many files a process has open, and how many it may; None where it cannot be looked at."""
    try:
        used = len([*Path("/proc", str(process), "fd").iterdir()])
        limits = Path("/proc", str(process), "limits").read_text(encoding="ascii").splitlines()
    except OSError:  # it ended, or is another user's
        return None
    most = next(line for line in limits if line.startswith("Max open files")).split()[3]
    return used, int(most)


def free() -> Iterator[tuple[str, int]]:
    """Yield each of the agent's folders that is there, with the bytes that it has left for users."""
    for folder in FOLDERS:
        with contextlib.suppress(FileNotFoundError):
            found = os.statvfs(folder)
            yield folder, found.f_bavail * found.f_frsize


def cni() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each configuration of container runtimes in their order, with the plugins that it names."""
    if not RUNTIMES.is_dir():
        return
    for path in sorted(RUNTIMES.iterdir()):
        if path.suffix in (".conf", ".conflist", ".json"):
            yield path.name, tuple(_plugins(text(path)))


def _plugins(content: str) -> Iterable[str]:
    try:
        document: Any = json.loads(content)
    except ValueError:
        return ()
    rows = [document, *document.get("plugins", ())] if isinstance(document, dict) else ()
    return [row["type"] for row in rows if isinstance(row, dict) and isinstance(row.get("type"), str)]


def settings(patterns: Iterable[str]) -> Iterator[str]:
    """Yield the lines of configuration files that say something; later files win."""
    for pattern in patterns:
        for path in sorted(Path("/").glob(pattern.lstrip("/"))):
            for line in text(path).splitlines():
                if line.strip() and not line.lstrip().startswith(("#", ";")):
                    yield line.strip()


def text(path: Path) -> str:
    """Return what a file holds; nothing where it is not there, or not for us."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
