"""Other programs that put routes into the kernel, or read them: what our route engine is measured beside."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv4Network
from itertools import count
from pathlib import Path

from pyroute2 import IPRoute
from route_space import FAR, NODE, Space

from felix_py.kernel.messages import HEADER, REQUEST
from felix_py.kernel.wire import Mode, Verb

HERE = Path(__file__).parent
DEADLINE = 30.0
"""Seconds in which two BIRDs have told each other what they know of."""


class IpBatch:
    """`ip -batch` on a file that was made beforehand."""

    def __init__(self, folder: Path, verb: str, networks: Iterable[IPv4Network]) -> None:
        self._file = folder / f"{verb}.batch"
        self._file.write_text(
            "".join(f"route {verb} {network} via {FAR} dev eth0 onlink proto 80\n" for network in networks)
        )

    def __call__(self) -> None:
        subprocess.run(["ip", "-batch", self._file], check=True)


class Pyroute2:
    """`IPRoute.route("add", ...)`, one call for each route, as programs use it."""

    def __init__(self, index: int, networks: Sequence[IPv4Network]) -> None:
        self._index = index
        self._prefixes = [str(network) for network in networks]

    def __call__(self) -> None:
        with IPRoute() as kernel:
            for prefix in self._prefixes:
                kernel.route("add", dst=prefix, gateway=str(FAR), oif=self._index, proto=80, flags=["onlink"])


class Compiled:
    """The writer in C, on messages that were made beforehand."""

    def __init__(self, folder: Path, bodies: Sequence[bytes]) -> None:
        compiler = shutil.which("gcc")
        if compiler is None:
            raise SystemExit("bench: gcc is missing; apt-get install gcc libc6-dev")
        self._program, self._file = folder / "writer", folder / "messages"
        subprocess.run([compiler, "-O2", "-o", self._program, HERE / "writer.c"], check=True)
        flags = REQUEST | Mode.CREATE | Mode.EXCLUSIVE
        numbered = zip(bodies, count(1), strict=False)
        heads = (HEADER.pack(HEADER.size + len(body), Verb.NEW_ROUTE, flags, number, 0) for body, number in numbered)
        self._file.write_bytes(b"".join(part for pair in zip(heads, bodies, strict=True) for part in pair))

    def __call__(self) -> float:
        """Return the seconds that it says it took to send and to read the answers."""
        words = subprocess.run([self._program, self._file], check=True, capture_output=True, text=True).stdout.split()
        if words[1] != "0":
            raise AssertionError(f"{words[1]} routes were refused")
        return float(words[0])


class Bird:
    """One BIRD; it removes what it put into the kernel when it is told to end."""

    def __init__(self, folder: Path, address: IPv4Address, protocols: str) -> None:
        self._socket = folder / f"{address}.ctl"
        file = folder / f"{address}.conf"
        log = f'log "{folder}/{address}.log" all;'
        file.write_text(f"{log}\nrouter id {address};\nprotocol device {{ }}\n{protocols}")
        self._process = subprocess.Popen(
            ["bird", "-f", "-c", file, "-s", self._socket, "-P", folder / f"{address}.pid"]
        )

    def routes(self) -> int:
        """Return how many routes it knows; 0 before it answers."""
        asked = subprocess.run(
            ["birdc", "-s", self._socket, "show", "route", "count"], check=False, capture_output=True
        )
        found = re.search(rb"(\d+) of", asked.stdout)
        return int(found[1]) if found else 0

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


def _session(me: IPv4Address, peer: IPv4Address, policy: str) -> str:
    return f"""
protocol bgp session {{
  local {me} as 64512;
  neighbor {peer} as 64512;
  connect delay time 1;
  direct;
  ipv4 {{ {policy} }};
}}
"""


class BirdPair:
    """Two BIRDs on one link: the far one has static routes and tells them by BGP, the near one installs them."""

    def __init__(self, folder: Path, near: Space, far: Space, networks: Sequence[IPv4Network]) -> None:
        if shutil.which("bird") is None:
            raise SystemExit("bench: bird is missing; apt-get install bird2")
        self._folder, self._near, self._far, self._count = folder, near, far, len(networks)
        routes = "".join(f"  route {network} blackhole;\n" for network in networks)
        self._tells = f"protocol static {{\n  ipv4;\n{routes}}}\n" + _session(
            FAR, NODE, "import none; export all; next hop self;"
        )
        kernel = "protocol kernel { persist off; ipv4 { export all; }; }\n"
        self._installs = kernel + _session(NODE, FAR, "import all; export none;")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start both, the far one first, so that it knows all of its routes before anybody asks for them."""
        with ExitStack() as stack:
            with self._far.entered():
                far = Bird(self._folder, FAR, self._tells)
                stack.callback(far.close)
            end = time.monotonic() + DEADLINE
            while far.routes() < self._count:
                if time.monotonic() > end:
                    raise AssertionError(f"BIRD does not know its {self._count} routes after {DEADLINE:.0f} s")
                time.sleep(0.05)
            with self._near.entered():
                near = Bird(self._folder, NODE, self._installs)
                stack.callback(near.close)
            yield
