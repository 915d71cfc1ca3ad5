"""The agent's own settings: defaults, then the file, then the environment; one frozen value, every fault at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from felix_py import node_address
from felix_py.model import Fault, Invalid, NodeName
from felix_py.node_address import METHODS, Method

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("json", "console")
PAGES = ("loopback", "enabled", "disabled")
DRIVERS = ("auto", "kernel", "ebpf", "tun")
GUARDS = ("auto", "ebpf", "nftables")
OLD_DRIVERS = {"userspace": "tun"}
"""Former names, still taken."""

PORTS = range(1, 1 << 16)
"""TCP ports that can be listened on (RFC 9293 section 3.1: 16 bits; 0 would let the kernel choose)."""


class ListenAddress(NamedTuple):
    """Where a TCP server listens; written `127.0.0.1:9099` or `[::1]:9099`."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


AS_KUBELET = Method("kubernetes-internal-ip")

METRICS_ADDRESS = ListenAddress("127.0.0.1", 9099)
"""Only this machine may ask, on the port that Felix serves its health on."""


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one agent. Field names are those of felix.yaml in snake case.

    Attributes:
        node_name: which Node resource is this machine.
        resource_directory: the embedded datastore, watched.
        secret_directory: passwords that resources refer to: a folder for each Secret, a file for each key.
        run_directory: sockets and the pid file.
        state_directory: what must survive a restart.
        resync_seconds: how often everything is read back although no event asked for it.
        tunnel_driver: what carries IP in IP: the kernel's module, our BPF programs, a process of ours, or the first of
            these that works.
        next_hop_objects: routes to other nodes go through next-hop objects where many share one; see decision 6.
        settle_milliseconds: how long a burst of changed resources is gathered before it is acted upon.
        metrics_address: where /metrics, /livez and /readyz are served; None serves them nowhere.
        page: who may look at the page there: this machine, everybody who reaches it, or nobody.
        netfilter: the nftables table of ours is kept; otherwise there is none.
        pod_guard: what guards pods' interfaces: our BPF programs, that table, or the first of these that works; nothing
            does without `netfilter`.
        bgp: sessions are held and paths learned; otherwise routes to other nodes come from the datastore.
        datastore: where resources and addresses are kept: the resource directory, or a Kubernetes API server.
        kubeconfig: who we are there; None for the service account of the pod that we run in.
        kubernetes_servers: URLs of API servers, tried in turn; none for the one that the credentials come with.
        node_address, node_address6: how the addresses of this node are found, which its Node then says; None: as that
            says already. With Kubernetes only.
        cni_conflist: the file that tells the container runtime to ask felix-cni; None where somebody else writes it.
    """

    node_name: NodeName
    resource_directory: Path = Path("/etc/felix/resources")
    secret_directory: Path = Path("/etc/felix/secrets")
    run_directory: Path = Path("/run/felix")
    state_directory: Path = Path("/var/lib/felix")
    log_format: str = "json"
    log_level: str = "info"
    resync_seconds: float = 60.0
    tunnel_driver: Literal["auto", "kernel", "ebpf", "tun"] = "auto"
    next_hop_objects: bool = False
    settle_milliseconds: float = 10.0
    metrics_address: ListenAddress | None = METRICS_ADDRESS
    page: Literal["loopback", "enabled", "disabled"] = "loopback"
    netfilter: bool = True
    pod_guard: Literal["auto", "ebpf", "nftables"] = "auto"
    bgp: bool = True
    datastore: Literal["directory", "kubernetes"] = "directory"
    kubeconfig: Path | None = None
    kubernetes_servers: tuple[str, ...] = ()
    node_address: Method | None = AS_KUBELET
    node_address6: Method | None = None
    cni_conflist: Path | None = None


def _choice(options: tuple[str, ...]) -> Callable[[Any], str]:
    def parse(raw: Any) -> str:
        if str(raw).lower() not in options:
            raise ValueError
        return str(raw).lower()

    return parse


def _driver(raw: Any) -> str:
    return _choice(DRIVERS)(OLD_DRIVERS.get(str(raw).lower(), raw))


def _switch(raw: Any) -> bool:
    return _choice(("enabled", "disabled"))(raw) == "enabled"


def _positive(raw: Any) -> float:
    number = float(raw)
    if isinstance(raw, bool) or number <= 0:
        raise ValueError
    return number


def _text(raw: Any) -> str:
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError
    return raw.strip()


def _path(raw: Any) -> Path:
    path = Path(_text(raw))
    if not path.is_absolute():
        raise ValueError
    return path


def listen_address(raw: Any) -> ListenAddress | None:
    """Read an address and a port; None for `none`.

    Raises:
        ValueError: when it is neither.
    """
    text = _text(raw)
    if text.lower() == "none":
        return None
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    address = ip_address(host[1:-1] if bracketed else host)
    # ASCII digits only: int() would take "+1", "1_0" and digits of other scripts as well.
    if not colon or bracketed != (address.version == 6) or not (port.isascii() and port.isdigit()):  # noqa: PLR2004
        raise ValueError
    if int(port) not in PORTS:
        raise ValueError
    return ListenAddress(str(address), int(port))


def _servers(raw: Any) -> tuple[str, ...]:
    urls = tuple(each.strip() for each in _text(raw).split(","))
    if not all(urlsplit(each).scheme in ("https", "http") and urlsplit(each).hostname for each in urls):
        raise ValueError
    return urls


def _method(raw: Any) -> Method | None:
    text = _text(raw)
    return None if text.lower() == "none" else node_address.parse(text)


SETTINGS: Mapping[str, tuple[str, Callable[[Any], Any], str]] = {
    "nodeName": ("node_name", _text, "the name of this machine's Node resource"),
    "resourceDirectory": ("resource_directory", _path, "an absolute path"),
    "secretDirectory": ("secret_directory", _path, "an absolute path"),
    "runDirectory": ("run_directory", _path, "an absolute path"),
    "stateDirectory": ("state_directory", _path, "an absolute path"),
    "logFormat": ("log_format", _choice(FORMATS), "json or console"),
    "logLevel": ("log_level", _choice(LEVELS), "debug, info, warning or error"),
    "resyncSeconds": ("resync_seconds", _positive, "a number of seconds above 0"),
    "tunnelDriver": ("tunnel_driver", _driver, "auto, kernel, ebpf or tun"),
    "nextHopObjects": ("next_hop_objects", _switch, "Enabled or Disabled"),
    "netfilter": ("netfilter", _switch, "Enabled or Disabled"),
    "podGuard": ("pod_guard", _choice(GUARDS), "auto, ebpf or nftables"),
    "bgp": ("bgp", _switch, "Enabled or Disabled"),
    "settleMilliseconds": ("settle_milliseconds", _positive, "a number of milliseconds above 0"),
    "metricsAddress": (
        "metrics_address",
        listen_address,
        "an IP address and a port, as 127.0.0.1:9099 or [::1]:9099, or none",
    ),
    "datastore": ("datastore", _choice(("directory", "kubernetes")), "directory or kubernetes"),
    "kubeconfig": ("kubeconfig", _path, "the absolute path of a kubeconfig"),
    "nodeAddress": ("node_address", _method, f"{METHODS}, or none"),
    "nodeAddress6": ("node_address6", _method, f"{METHODS}, or none"),
    "cniConflist": ("cni_conflist", _path, "an absolute path, as /etc/cni/net.d/10-felix.conflist"),
    "kubernetesServers": ("kubernetes_servers", _servers, "URLs with commas between, as https://10.0.0.1:6443"),
    "page": ("page", _choice(PAGES), "Loopback, Enabled or Disabled"),
}
"""Name in felix.yaml: attribute, parser, and what to give. In the environment: FELIX_ and the name in capitals."""


def load(document: object, environment: Mapping[str, str], *, where: str, host_name: str) -> Config:
    """Merge defaults, file and environment into one Config.

    Args:
        document: what a YAML parser made of felix.yaml; None where there is no file.
        environment: variables, of which `FELIX_...` count.
        where: the file's path, for messages.
        host_name: the node's name where nobody says otherwise.

    Raises:
        Invalid: with every fault of file and environment.
    """
    faults: list[Fault] = []
    values: dict[str, Any] = {"node_name": host_name}
    if document is not None and not isinstance(document, Mapping):
        raise Invalid(Fault(where, "", f"holds {document!r}; give one setting a line, as `nodeName: a1`"))
    for name, raw in (document or {}).items():
        if name not in SETTINGS:
            faults.append(Fault(where, str(name), f"is not a setting; known are {', '.join(SETTINGS)}"))
            continue
        _take(values, faults, where, name, raw)
    variables = {"FELIX_" + name.upper(): name for name in SETTINGS}
    for variable, name in variables.items():
        if variable in environment:
            _take(values, faults, variable, name, environment[variable])
    if faults:
        raise Invalid(*faults)
    known = {item.name for item in fields(Config)}
    return Config(**{name: value for name, value in values.items() if name in known})


def _take(values: dict[str, Any], faults: list[Fault], where: str, name: str, raw: object) -> None:
    attribute, parse, expected = SETTINGS[name]
    try:
        values[attribute] = parse(raw)
    except (ValueError, TypeError):
        faults.append(Fault(where, name, f"is {raw!r}; give {expected}"))
