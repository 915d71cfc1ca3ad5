"""What a container runtime asks, from environment and standard input to one checked value (CNI spec 0.3.1 to 1.1.0)."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from functools import lru_cache
from ipaddress import ip_interface
from typing import Any

from felix_py.cni import annotations
from felix_py.cni.annotations import CAPABILITY, Annotated
from felix_py.kernel.ownership import WORKLOAD_PREFIX
from felix_py.model import IPAddress

VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Spec versions served, oldest first. Debian's containerd 1.6 refuses results of 1.1.0, so all four are needed."""

PREAMBLE = "felix-cni 1"
"""First string of a call from the shim; the number changes with the form of what follows."""


class Code(IntEnum):
    """Error codes: those of the spec below 100, ours from 100 on."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    DECODING_FAILURE = 6
    INVALID_CONFIGURATION = 7
    INVALID_NAMESPACE = 8  # of the reference implementation (pkg/types), not of the spec
    TRY_AGAIN_LATER = 11
    CANNOT_ADD = 50
    LIMITED = 51
    ALREADY_ATTACHED = 100
    INTERFACE_EXISTS = 101
    KERNEL_REFUSED = 102
    ATTACHMENT_DIFFERS = 103


class CniError(Exception):
    """An answer to the runtime that is not what it asked for."""

    def __init__(self, code: Code, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


class Command(StrEnum):
    """What is asked for (CNI_COMMAND)."""

    ADD = "ADD"
    DEL = "DEL"
    CHECK = "CHECK"
    GC = "GC"
    STATUS = "STATUS"
    VERSION = "VERSION"


REQUIRED: Mapping[Command, tuple[str, ...]] = {
    Command.ADD: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    Command.CHECK: ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    Command.DEL: ("CNI_CONTAINERID", "CNI_IFNAME"),
    Command.GC: (),
    Command.STATUS: (),
    Command.VERSION: (),
}
"""Variables that a command cannot do without. CNI_PATH is none of them: we delegate to nobody."""

SINCE: Mapping[Command, str] = {Command.CHECK: "0.4.0", Command.GC: "1.1.0", Command.STATUS: "1.1.0"}
"""The spec version that brought a command."""

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
"""Container IDs and network names, as the spec has them."""

POD_NAME = re.compile(r"[a-z0-9]([a-z0-9.\-]{0,251}[a-z0-9])?")
"""Namespaces and pods in Kubernetes: DNS names (RFC 1123)."""

RANDOM_ID = re.compile(r"[0-9a-f]{64}")
"""A container ID as containerd and CRI-O draw them: twelve digits of it are enough for people."""

MAXIMUM_DEPTH = 50
"""Levels of a configuration; real ones have five."""

REMEMBERED, REMEMBERED_BYTES = 8, 1 << 14
"""Configurations that are not read again, and their bytes at most."""

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


def version_of(standard_input: bytes) -> str:
    """Return the version in which to answer even a call that cannot be used."""
    try:
        found = json.loads(standard_input).get("cniVersion")
    except (ValueError, AttributeError, RecursionError):
        return "1.0.0"
    return found if found in VERSIONS else "1.0.0"


def parse(environment: Mapping[str, str], standard_input: bytes) -> Request:
    """Check a call from one end to the other.

    Raises:
        CniError: with the code that the spec gives to what is wrong.
    """
    command = _command(environment)
    if command is Command.VERSION and not standard_input.strip():
        return Request(command, VERSIONS[-1])
    _require(environment, command)
    config = _config(standard_input)
    version = _version(config, command)
    if command is Command.VERSION:
        return Request(command, version)
    arguments = _arguments(environment.get("CNI_ARGS", ""), lenient=command is not Command.ADD)
    asked = _annotated(config) if command is Command.ADD else Annotated()
    return Request(
        command,
        version,
        network=_network(config),
        container_id=environment.get("CNI_CONTAINERID", ""),
        interface=environment.get("CNI_IFNAME", ""),
        netns=environment.get("CNI_NETNS", ""),
        pod=_pod(arguments),
        wanted=_wanted(config, arguments, asked.addresses) if command is Command.ADD else (),
        pools=asked.pools or _pools(config) if command is Command.ADD else (),
        mac=_mac(config, arguments, asked.mac) if command is Command.ADD else None,
        previous=_mapping(config, "prevResult"),
        valid=_valid(config) if command is Command.GC else None,
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


def _fault_of_interface(name: str) -> str | None:
    """Say why the kernel would not take the name (dev_valid_name, net/core/dev.c)."""
    if len(name.encode()) > INTERFACE_NAME_BYTES:
        return f"it must have at most {INTERFACE_NAME_BYTES} bytes"
    if name in (".", "..") or re.search(r"[/:\s%\\]", name) or not name.isprintable():
        return "it must not be '.' or '..' nor hold '/', ':', '%', a backslash, a space or a control character"
    return None


def _config(standard_input: bytes) -> Mapping[str, Any]:
    """Return the configuration; pods of one network have mostly the same, and nobody may change what this returns."""
    return (_same_config if len(standard_input) <= REMEMBERED_BYTES else _read_config)(standard_input)


def _read_config(standard_input: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(standard_input)
    except (ValueError, RecursionError) as error:
        raise CniError(
            Code.DECODING_FAILURE, "the configuration on standard input is no JSON", " ".join(str(error).split())[:200]
        ) from error
    if not isinstance(document, dict):
        raise CniError(Code.DECODING_FAILURE, "the configuration on standard input is no JSON object")
    if not _is_shallow(document, MAXIMUM_DEPTH):
        sentence = f"the configuration on standard input is nested deeper than {MAXIMUM_DEPTH} levels"
        raise CniError(Code.DECODING_FAILURE, sentence)
    return document


_same_config = lru_cache(REMEMBERED)(_read_config)


def _is_shallow(value: object, levels: int) -> bool:
    """Say whether lists and objects stand in each other at most so deep; what passes can be written back."""
    if not isinstance(value, dict | list):
        return True
    inside = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_shallow(each, levels - 1) for each in inside)


def _version(config: Mapping[str, Any], command: Command) -> str:
    given = config.get("cniVersion", "")
    if given not in VERSIONS:
        if command is Command.VERSION:
            return VERSIONS[-1]
        sentence = f"cniVersion {str(given)[:20]!r} is not served; give one of {', '.join(VERSIONS)}"
        raise CniError(Code.INCOMPATIBLE_VERSION, sentence, f"supported versions: {', '.join(VERSIONS)}")
    since = SINCE.get(command, VERSIONS[0])
    if VERSIONS.index(given) < VERSIONS.index(since):
        raise CniError(Code.INCOMPATIBLE_VERSION, f"{command} exists since cniVersion {since}, and this is {given}")
    return str(given)


def _network(config: Mapping[str, Any]) -> str:
    name = config.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        given = "missing" if name is None else f"{str(name)[:80]!r}"
        sentence = f"name is {given}; give the network a name of letters, digits, '_', '.' and '-'"
        raise CniError(Code.INVALID_CONFIGURATION, sentence)
    return name


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


def _mapping(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = config.get(name) or {}
    if not isinstance(value, Mapping):
        raise CniError(Code.INVALID_CONFIGURATION, f"{name} is {str(value)[:80]!r}; it must be a JSON object")
    return value


SUPPORTED_AT_RUN_TIME = ("ips", "mac", CAPABILITY)


def _annotated(config: Mapping[str, Any]) -> Annotated:
    """Return what the pod's annotations ask for, where the runtime has passed them on."""
    try:
        return annotations.read(_mapping(config, "runtimeConfig").get(CAPABILITY))
    except ValueError as error:
        raise CniError(Code.INVALID_CONFIGURATION, str(error)) from error


def _pools(config: Mapping[str, Any]) -> tuple[tuple[int, str], ...]:
    """Return the pools that the configuration names, as Calico's does: ipam.ipv4_pools and ipam.ipv6_pools."""
    ipam = _mapping(config, "ipam")
    found: list[tuple[int, str]] = []
    for name, version in (("ipv4_pools", 4), ("ipv6_pools", 6)):
        listed = ipam.get(name) or []
        if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
            sentence = f"ipam.{name} is {str(listed)[:80]!r}; give a list of names or ranges of IPPools"
            raise CniError(Code.INVALID_CONFIGURATION, sentence)
        found += [(version, each) for each in listed]
    return tuple(found)


def _wanted(
    config: Mapping[str, Any], arguments: Mapping[str, str], annotated: tuple[str, ...]
) -> tuple[IPAddress, ...]:
    """Return the addresses that runtimeConfig.ips, CNI_ARGS IP= or the pod's annotation ask for, in that order.

    What we cannot do is refused by name.
    """
    run_time = _mapping(config, "runtimeConfig")
    for name, value in run_time.items():
        if name not in SUPPORTED_AT_RUN_TIME and value:
            sentence = f"runtimeConfig.{name} is {str(value)[:80]!r}, and felix-cni does not do that"
            raise CniError(
                Code.UNSUPPORTED_FIELD, sentence, f"chain the plugin that does, and remove {name} from capabilities"
            )
    ipam = _mapping(config, "ipam").get("type", "felix")
    if ipam != "felix":
        sentence = f"ipam.type is {str(ipam)[:80]!r}; remove ipam, for the agent gives addresses of the node's blocks"
        raise CniError(Code.UNSUPPORTED_FIELD, sentence)
    asked = run_time.get("ips") or [text for text in arguments.get("IP", "").split(",") if text] or list(annotated)
    try:
        if not isinstance(asked, list):
            raise TypeError  # noqa: TRY301 - the same answer as for an element that is no address
        return tuple(dict.fromkeys(ip_interface(str(text)).ip for text in asked))
    except (ValueError, TypeError) as error:
        sentence = f"the addresses {str(asked)[:80]!r} were asked for; give addresses, as 10.65.0.9 or fd65::9"
        raise CniError(Code.INVALID_CONFIGURATION, sentence) from error


def _mac(config: Mapping[str, Any], arguments: Mapping[str, str], annotated: str) -> str | None:
    given = _mapping(config, "runtimeConfig").get("mac") or arguments.get("MAC") or annotated
    if not given:
        return None
    text = str(given).lower()
    if not MAC.fullmatch(text) or int(text[:2], 16) & 1:
        raise CniError(
            Code.INVALID_CONFIGURATION, f"mac is {text[:40]!r}; give a unicast address, as 02:00:0a:41:00:09"
        )
    return text


def _valid(config: Mapping[str, Any]) -> frozenset[tuple[str, str]] | None:
    """Return what GC must keep. libcni writes both keys (containernetworking/cni #1101); cnitool writes neither."""
    listed = config.get("cni.dev/valid-attachments", config.get("cni.dev/attachments"))
    if listed is None:
        return None
    try:
        return frozenset((str(each["containerID"]), str(each["ifname"])) for each in listed)
    except (TypeError, KeyError) as error:
        sentence = "cni.dev/valid-attachments must be a list of objects with containerID and ifname"
        raise CniError(Code.INVALID_CONFIGURATION, sentence) from error
