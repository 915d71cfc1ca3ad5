"""A host and its pods for CNI tests: real namespaces, the real felix-cni, a server in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import block_files

SHIM = Path(sysconfig.get_path("scripts"), "felix-cni")
NODE = Path(__file__).with_name("cni_node.py")
DEADLINE = 15.0

NUMBERS = count()
Result = TypeVar("Result")


def command(*words: object, check: bool = True) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{' '.join(map(str, words))}: {done.stderr}"
    return done.stdout


def until(condition: Callable[[], Result], what: str) -> Result:
    """Return the first true answer; fail in words when none comes in time."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.005)
    raise AssertionError(f"not within {DEADLINE} s: {what}")


@dataclass(frozen=True)
class Answer:
    """What the runtime sees of one call."""

    status: int
    text: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.text)  # type: ignore[no-any-return]

    @property
    def address(self) -> str:
        return str(self.document["ips"][0]["address"]).removesuffix("/32")

    @property
    def code(self) -> int:
        return int(self.document["code"])

    @property
    def message(self) -> str:
        return str(self.document["msg"])


@dataclass
class Call:
    """A call to the plugin under way."""

    process: subprocess.Popen[str]

    def answer(self) -> Answer:
        out, err = self.process.communicate(timeout=DEADLINE)
        return Answer(self.process.returncode, out, err)


@dataclass
class Host:
    """One node in a namespace."""

    name: str
    folder: Path
    blocks: tuple[str, ...]
    state: Path
    disk_size: str = ""
    process: subprocess.Popen[bytes] | None = None
    namespaces: list[str] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        return self.folder / "cni.sock"

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines() if line.startswith("{")]

    def program(self) -> list[object]:
        """Return what is run on this host."""
        return [sys.executable, NODE, self.socket, self.state, self.trouble_file, *self.blocks]

    def start(self) -> None:
        words = ["ip", "netns", "exec", self.name]
        if self.disk_size:  # `ip netns exec` gives a mount namespace of its own, so the mount is gone with the process
            self.state.mkdir(exist_ok=True)
            words += ["sh", "-c", f'mount -t tmpfs -o size={self.disk_size} none {self.state} && exec "$@"', "sh"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([*words, *map(str, self.program())], stderr=log)
        until(self._serves, f"the server of {self.name} answers; its log: {(self.folder / 'log').read_text()}")

    def _serves(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        return self.cni("STATUS", version="1.1.0").text.find("agent") < 0

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(DEADLINE)
            self.process = None

    @property
    def trouble_file(self) -> Path:
        return self.folder / "trouble"

    def trouble(self, text: str) -> None:
        self.trouble_file.write_text(text)

    def pod(self) -> str:
        """Make an empty network namespace and return its name."""
        name = f"{self.name}p{next(NUMBERS)}"
        command("ip", "netns", "add", name)
        self.namespaces.append(name)
        return name

    def begin(
        self,
        verb: str,
        container: str = "",
        netns: str = "",
        *,
        version: str = "1.0.0",
        config: Mapping[str, Any] | None = None,
        arguments: str = "",
        interface: str = "eth0",
        text: str | None = None,
    ) -> Call:
        document = {"cniVersion": version, "name": "pods", "type": "felix-cni", **(config or {})}
        environment = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{netns}" if netns and "/" not in netns else netns,
            "CNI_IFNAME": interface if container else "",
            "CNI_ARGS": arguments,
            "CNI_PATH": "/opt/cni/bin",
            "FELIX_CNI_SOCKET": str(self.socket),
        }
        process = subprocess.Popen(
            [SHIM], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(document) if text is None else text)
        process.stdin.close()
        process.stdin = None
        return Call(process)

    def cni(self, verb: str, container: str = "", netns: str = "", **more: Any) -> Answer:
        return self.begin(verb, container, netns, **more).answer()

    def ip(self, *words: str) -> str:
        return command("ip", "-n", self.name, *words)

    def pings(self, address: str) -> bool:
        words = ("ip", "netns", "exec", self.name, "ping", "-c1", "-W2", address)
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    def veths(self) -> set[str]:
        links = json.loads(self.ip("-j", "link", "show"))
        return {link["ifname"] for link in links if link["ifname"].startswith("cali")}

    def routes(self) -> set[str]:
        return {route["dst"] for route in json.loads(self.ip("-j", "route", "show"))}

    @property
    def disk(self) -> Path:
        """The state directory as the server sees it."""
        return Path(f"/proc/{self.process.pid}/root/{self.state}") if self.process and self.disk_size else self.state

    def held(self) -> set[str]:
        """Return the addresses that blocks say are held, whoever holds them."""
        return {address for spec in block_files.specs(self.disk) for address in spec["allocations"]}

    def is_clean(self) -> bool:
        return self.veths() == set() == self.held() and not {route for route in self.routes() if route[:3] == "10."}

    def is_left_clean(self) -> None:
        """Hold it to this: no address is held from now on, and no interface or route is left in a moment."""
        assert self.held() == set()
        until(self.is_clean, "no interface and no route is left")


def in_pod(netns: str, *words: str) -> str:
    return command("ip", "netns", "exec", netns, *words, check=False)


@contextmanager
def host(
    folder: Path,
    *blocks: str,
    disk_size: str = "",
    kind: type[Host] = Host,
    before: Callable[[Host], None] | None = None,
) -> Iterator[Host]:
    """Give a host whose server runs; leave nothing behind."""
    name = f"fcni{os.getpid()}h{next(NUMBERS)}"
    made = kind(name, folder, blocks or ("10.65.0.0/26",), folder / "state", disk_size)
    made.namespaces.append(name)
    try:
        command("ip", "netns", "add", name)
        made.ip("link", "set", "lo", "up")
        made.ip("addr", "add", "192.0.2.1/32", "dev", "lo")
        if before:
            before(made)
        made.start()
        yield made
    finally:
        made.stop(signal.SIGKILL)
        for each in made.namespaces:
            command("ip", "netns", "del", each, check=False)
