"""The route codec beside iproute2, in a namespace of its own: SIZE routes added, read back, deleted."""

import ctypes
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from figures import RUNS, tell_ratio

from felix_py.kernel.objects import Route, RouteKey
from felix_py.kernel.rtnetlink import RouteSocket, decode

SIZE = int(os.environ.get("SIZE") or 20_000)
CLONE_NEWNET = 0x40000000
GATEWAY = IPv4Address("172.31.1.12")
SET_UP = """
link set lo up
link add eth0 type veth peer name far0
link set far0 up
link set eth0 up
addr add 172.31.1.11/24 dev eth0
"""


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def all_of(count: int) -> None:
    """Hold a run to what it is measured for: refused or missing routes would make it fast."""
    if count < SIZE:
        raise AssertionError(f"{count} routes of {SIZE}")


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def main() -> int:
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["ip", "-batch", "-"], input=SET_UP, text=True, check=True)
    prefixes = [IPv4Network((int(IPv4Address("10.128.0.0")) + number * 64, 26)) for number in range(SIZE)]
    index = socket.if_nametoindex("eth0")
    entries = [(RouteKey(prefix), Route(via=GATEWAY, device="eth0"), index) for prefix in prefixes]
    names = {index: "eth0"}
    with tempfile.TemporaryDirectory() as folder:
        files = {verb: Path(folder) / verb for verb in ("add", "del")}
        for verb, path in files.items():
            path.write_text("".join(f"route {verb} {prefix} via {GATEWAY} dev eth0 proto 80\n" for prefix in prefixes))
        ours: dict[str, list[float]] = {"add": [], "read": [], "delete": []}
        theirs: dict[str, list[float]] = {"add": [], "read": [], "delete": []}
        sock = RouteSocket()
        for _ in range(RUNS):
            ours["add"].append(SIZE / seconds(lambda: all_of(SIZE - len(sock.put(entries)))))
            ours["read"].append(
                SIZE / seconds(lambda: all_of(len(dict(filter(None, (decode(body, names) for body in sock.dump()))))))
            )
            theirs["read"].append(SIZE / seconds(lambda: all_of(ip("route", "show").count("\n"))))
            ours["delete"].append(SIZE / seconds(lambda: all_of(SIZE - len(sock.delete(entries)))))
            theirs["add"].append(SIZE / seconds(lambda: ip("-batch", str(files["add"]))))
            theirs["delete"].append(SIZE / seconds(lambda: ip("-batch", str(files["del"]))))
        sock.close()
    peers = {"add": "ip -batch", "read": "ip route show", "delete": "ip -batch"}
    reaches = {"add": 0.5, "read": 0.2, "delete": 0.5}
    kept = [
        tell_ratio(f"routes {verb}, {SIZE}", ours[verb], "routes/s", peers[verb], theirs[verb], reaches[verb])
        for verb in ours
    ]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
