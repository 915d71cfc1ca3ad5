"""What a container runtime asks, from environment and standard input to one checked value (CNI spec 0.3.1 to 1.1.0)."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_interface
from typing import Any

from felix_py.cni import configuration
from felix_py.cni.configuration import Configuration
from felix_py.cni.spec import NAME, VERSIONS, CniError, Code, Command
from felix_py.kernel.ownership import WORKLOAD_PREFIX
from felix_py.model import IPAddress

PREAMBLE = "felix-cni 1"
"""First string of a call from the shim; the number changes with the form of what follows."""

REQUIRED: Mapping[Command, tuple[str, ...]] = {
    Command.ADD: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    Command.CHECK: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    Command.DEL: ("CNI_CONTAINERID", "CNI_IFNAME"),
    Command.GC: (),
    Command.STATUS: (),
    Command.VERSION: (),
}
"""Variables that a command cannot do without. CNI_PATH is none of them: we delegate to nobody."""

POD_NAME = re.compile(r"[a-z0-9]([a-z0-9.\-]{0,251}[a-z0-9])?")
"""Namespaces and pods in Kubernetes: DNS names (RFC 1123)."""

RANDOM_ID = re.compile(r"[0-9a-f]{64}")
"""A container ID as containerd and CRI-O draw them: twelve digits of it are enough for people."""

MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
INTERFACE_NAME_BYTES = 15
"""IFNAMSIZ without its final zero, include/uapi/linux/if.h."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call, checked.

    Attributes:
        network: the configuration's name.
        netns: path of the pod's namespace, as the runtime wrote it.
        pod: `namespace/pod` where an orchestrator told us.
        wanted: particular addresses that were asked for.
        pools: version of IP, and name or range of the pools that were asked for; others of that version do not serve.
        previous: the result of the plugins before us, or of ADD for CHECK and DEL.
        valid: for GC, the attachments to keep; None where the runtime named none, which removes nothing.
    """

    command: Command
    version: str
    network: str = ""
    container_id: str = ""
    interface: str = ""
    netns: str = ""
    pod: str = ""
    wanted: tuple[IPAddress, ...] = ()
    pools: tuple[tuple[int, str], ...] = ()
    mac: str | None = None
    previous: Mapping[str, Any] = field(default_factory=dict)
    valid: frozenset[tuple[str, str]] | None = None

    @property
    def name(self) -> str:
        """Return the workload endpoint's name, unique for each attachment of this node."""
        short = self.container_id[:12] if RANDOM_ID.fullmatch(self.container_id) else self.container_id
        return (self.pod or f"container/{short}") + ("" if self.interface == "eth0" else f"/{self.interface}")

    @property
    def host_interface(self) -> str:
        """Return the host side's name, the same for every sandbox of one pod: Calico's rule, for Calico's tools."""
        return _host_interface(self.pod.replace("/", ".") or self.container_id, self.interface)


@lru_cache
def _host_interface(pod: str, interface: str) -> str:
    seed = pod + ("" if interface == "eth0" else f".{interface}")
    return WORKLOAD_PREFIX + hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest()[:11]


def split(data: bytes) -> tuple[dict[str, str], bytes]:
    """Take a call apart: the preamble, NAME=VALUE strings, an empty string, and the runtime's standard input.

    Raises:
        CniError: when it is no call of our shim.
    """
    head, end, standard_input = data.partition(b"\0\0")
    strings = head.decode(errors="backslashreplace").split("\0")
    if not end or strings[0] != PREAMBLE:
        raise CniError(
            Code.DECODING_FAILURE, f"the call does not begin with {PREAMBLE!r}; only felix-cni of this version may call"
        )
    environment: dict[str, str] = {}
    for string in strings[1:]:
        name, separator, value = string.partition("=")
        if not separator:
            raise CniError(Code.DECODING_FAILURE, f"the call holds {string[:80]!r} where NAME=VALUE belongs")
        environment[name] = value
    return environment, standard_input


def parse(environment: Mapping[str, str], standard_input: bytes) -> Request:
    """Check a call from one end to the other.

    Raises:
        CniError: with the code that the spec gives to what is wrong.
    """
    command = _command(environment)
    if command is Command.VERSION and not standard_input.strip():
        return Request(command, VERSIONS[-1])
    _require(environment, command)
    configured = configuration.read(standard_input, command)
    if command is Command.VERSION:
        return Request(command, configured.version)
    arguments = _arguments(environment.get("CNI_ARGS", ""), lenient=command is not Command.ADD)
    adds = command is Command.ADD
    return Request(
        command,
        configured.version,
        configured.network,
        container_id=environment.get("CNI_CONTAINERID", ""),
        interface=environment.get("CNI_IFNAME", ""),
        netns=environment.get("CNI_NETNS", ""),
        pod=_pod(arguments),
        wanted=_wanted(configured, arguments) if adds else (),
        pools=configured.pools,
        mac=_mac(configured.mac or arguments.get("MAC") or configured.annotated.mac) if adds else None,
        previous=configured.previous,
        valid=configured.valid,
    )


def _command(environment: Mapping[str, str]) -> Command:
    given = environment.get("CNI_COMMAND", "")
    try:
        return Command(given)
    except ValueError:
        sentence = f"CNI_COMMAND is {given[:40]!r}; it must be one of {', '.join(Command)}"
        raise CniError(Code.INVALID_ENVIRONMENT, sentence) from None


def _require(environment: Mapping[str, str], command: Command) -> None:
    missing = [name for name in REQUIRED[command] if not environment.get(name)]
    if missing:
        raise CniError(Code.INVALID_ENVIRONMENT, f"{command} needs {', '.join(missing)}, which is missing or empty")
    if not REQUIRED[command]:
        return
    container_id, interface = environment["CNI_CONTAINERID"], environment["CNI_IFNAME"]
    if not NAME.fullmatch(container_id):
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_CONTAINERID is {container_id[:80]!r}; it must be letters, digits, '_', '.' and '-'",
        )
    reason = _fault_of_interface(interface)
    if reason:
        raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_IFNAME is {interface[:80]!r}; {reason}")


@lru_cache
def _fault_of_interface(name: str) -> str | None:
    """Say why the kernel would not take the name (dev_valid_name, net/core/dev.c)."""
    if len(name.encode()) > INTERFACE_NAME_BYTES:
        return f"it must have at most {INTERFACE_NAME_BYTES} bytes"
    if name in (".", "..") or re.search(r"[/:\s%\\]", name) or not name.isprintable():
        return "it must not be '.' or '..' nor hold '/', ':', '%', a backslash, a space or a control character"
    return None


def _arguments(text: str, *, lenient: bool) -> dict[str, str]:
    """Read CNI_ARGS, `K8S_POD_NAME=web-0;K8S_POD_NAMESPACE=default`; names that we do not know are left alone."""
    arguments: dict[str, str] = {}
    for pair in filter(None, text.split(";")):
        name, separator, value = pair.partition("=")
        if separator:
            arguments[name] = value
        elif not lenient:
            raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_ARGS holds {pair[:80]!r}; write NAME=VALUE;NAME=VALUE")
    return arguments


def _pod(arguments: Mapping[str, str]) -> str:
    namespace, pod = arguments.get("K8S_POD_NAMESPACE", ""), arguments.get("K8S_POD_NAME", "")
    if not namespace and not pod:
        return ""
    if not POD_NAME.fullmatch(namespace) or not POD_NAME.fullmatch(pod):
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"CNI_ARGS names pod {pod[:80]!r} in namespace {namespace[:80]!r}; "
            "both must be lower case letters, digits, '.' and '-'",
        )
    return f"{namespace}/{pod}"


def _wanted(configured: Configuration, arguments: Mapping[str, str]) -> tuple[IPAddress, ...]:
    """Return the addresses that runtimeConfig.ips, CNI_ARGS IP= or the pod's annotation ask for, in that order."""
    by_argument = [text for text in arguments.get("IP", "").split(",") if text]
    asked = configured.addresses or by_argument or list(configured.annotated.addresses)
    try:
        if not isinstance(asked, list):
            raise TypeError  # noqa: TRY301 - the same answer as for an element that is no address
        return tuple(dict.fromkeys(ip_interface(str(text)).ip for text in asked))
    except (ValueError, TypeError) as error:
        sentence = f"the addresses {str(asked)[:80]!r} were asked for; give addresses, as 10.65.0.9 or fd65::9"
        raise CniError(Code.INVALID_CONFIGURATION, sentence) from error


def _mac(given: object) -> str | None:
    if not given:
        return None
    text = str(given).lower()
    if not MAC.fullmatch(text) or int(text[:2], 16) & 1:
        raise CniError(
            Code.INVALID_CONFIGURATION, f"mac is {text[:40]!r}; give a unicast address, as 02:00:0a:41:00:09"
        )
    return text
