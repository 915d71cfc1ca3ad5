"""Which of a host's addresses BGP and tunnels use: found by one of Calico's methods, and never by guessing."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from typing import TypeAlias

from felix_py.kernel.objects import Link
from felix_py.model import IPAddress, IPInterface

NOT_UPLINKS = re.compile(
    r"docker|cbr|dummy|podman|virbr|lxcbr|veth|lo$|br-|cali|tunl|flannel|kube-ipvs|cni|vxlan|wireguard|nodelocaldns"
)
"""How names of interfaces begin that no node is reached by; Calico's list."""

SETTING = {4: "nodeAddress", 6: "nodeAddress6"}
METHODS = (
    "kubernetes-internal-ip, first-found, interface=REGEX, skip-interface=REGEX, cidr=NETWORK or can-reach=ADDRESS"
)


@dataclass(frozen=True, slots=True)
class Method:
    """How a node's address is found.

    Attributes:
        word: one of METHODS.
        values: what stands after the sign of equality.
    """

    word: str
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.word}={','.join(self.values)}" if self.values else self.word


@dataclass(frozen=True, slots=True)
class Detected:
    """The address, with the mask that its interface has, and where it was found."""

    address: IPInterface
    why: str


@dataclass(frozen=True, slots=True)
class Undecided:
    """No address, or several: in a sentence, with what to do."""

    why: str


@dataclass(frozen=True, slots=True)
class Host:
    """What is known of a host.

    Attributes:
        links: its interfaces by name.
        internal: the addresses that its Node has as InternalIP.
        source: returns the address that the host would use towards another one; None where it has no route.
    """

    links: Iterable[Link]
    internal: tuple[IPAddress, ...] = ()
    source: Callable[[IPAddress], IPAddress | None] = lambda _: None


Candidates: TypeAlias = list[tuple[str, IPInterface]]


def parse(text: str) -> Method:
    """Read a method as people write it.

    Raises:
        ValueError: for anything else.
    """
    word, sign, rest = text.partition("=")
    values = tuple(filter(None, (each.strip() for each in rest.split(","))))
    if word not in CHOICES or bool(sign) != (word in PARSERS) or bool(values) != bool(sign):
        raise ValueError
    for value in values:
        try:
            PARSERS[word](value)
        except re.error as error:
            raise ValueError from error
    return Method(word, values)


PARSERS: Mapping[str, Callable[[str], object]] = {
    "interface": re.compile,
    "skip-interface": re.compile,
    "cidr": ip_network,
    "can-reach": ip_address,
}
"""Of the methods that take values."""


def detect(method: Method, host: Host, version: int) -> Detected | Undecided:
    """Find the node's address of one version of IP; several that fit are refused, each by its name."""
    found = CHOICES[method.word](method, host, list(_candidates(host.links, version)))
    setting = SETTING[version]
    if not found:
        known = _listed(_candidates(host.links, version)) or "none"
        why = f"{setting} is {method}, and no IPv{version} address of this host fits (there are: {known})"
        return Undecided(f"{why}; give another of {METHODS}")
    if len(found) > 1:
        names = _listed(found)
        return Undecided(f"{setting} is {method}, and several addresses fit: {names}; say which, as {setting}: cidr=…")
    (name, address), *_ = found
    return Detected(address, f"{method}: {name}")


def _candidates(links: Iterable[Link], version: int) -> Iterable[tuple[str, IPInterface]]:
    for link in sorted(links, key=lambda link: link.index):
        written = (ip_interface(text) for text in sorted(link.addresses))
        for address in (each for each in written if each.version == version and link.up):
            if not (address.ip.is_loopback or address.ip.is_link_local):
                yield link.name, address


def _listed(found: Iterable[tuple[str, IPInterface]]) -> str:
    return ", ".join(f"{address} on {name}" for name, address in found)


def _internal(_: Method, host: Host, candidates: Candidates) -> Candidates:
    return [each for each in candidates if each[1].ip in host.internal][:1]


def _first(_: Method, _host: Host, candidates: Candidates) -> Candidates:
    return [each for each in candidates if not NOT_UPLINKS.match(each[0])]


def _interface(method: Method, _: Host, candidates: Candidates) -> Candidates:
    # The first expression that fits any decides, as in Calico.
    fits = ([each for each in candidates if re.search(text, each[0])] for text in method.values)
    return next(filter(None, fits), [])


def _skipped(method: Method, host: Host, candidates: Candidates) -> Candidates:
    left = [each for each in candidates if not any(re.search(text, each[0]) for text in method.values)]
    return _first(method, host, left)


def _network(method: Method, _: Host, candidates: Candidates) -> Candidates:
    networks = [ip_network(text) for text in method.values]
    return [each for each in candidates if any(each[1].ip in network for network in networks)]


def _reaching(method: Method, host: Host, candidates: Candidates) -> Candidates:
    sources = {host.source(ip_address(text)) for text in method.values}
    return [each for each in candidates if each[1].ip in sources]


CHOICES: Mapping[str, Callable[[Method, Host, Candidates], Candidates]] = {
    "kubernetes-internal-ip": _internal,
    "first-found": _first,
    "interface": _interface,
    "skip-interface": _skipped,
    "cidr": _network,
    "can-reach": _reaching,
}
"""By the word of a method."""
