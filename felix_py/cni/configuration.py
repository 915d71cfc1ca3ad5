"""A network's configuration, as the runtime writes it to standard input, read and checked once for all of its pods."""

import json
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from felix_py.cni import annotations
from felix_py.cni.annotations import CAPABILITY, Annotated
from felix_py.cni.spec import NAME, VERSIONS, CniError, Code, Command

SINCE: Mapping[Command, str] = {Command.CHECK: "0.4.0", Command.GC: "1.1.0", Command.STATUS: "1.1.0"}
"""The spec version that brought a command."""

MAXIMUM_DEPTH = 50
"""Levels of a configuration; real ones have five."""

REMEMBERED, REMEMBERED_BYTES = 8, 1 << 14
"""What is not read again: so many configurations, each with the command, and their bytes at most."""

SUPPORTED_AT_RUN_TIME = ("ips", "mac", CAPABILITY)


class Configuration(NamedTuple):
    """What a command's standard input asks for, checked; mostly the same for all pods of a network.

    Attributes:
        addresses: what runtimeConfig.ips asks for, not yet checked.
        mac: the same of runtimeConfig.mac.
        annotated: what the pod's annotations ask for.
        version, network, pools, previous, valid: as `request.Request` has them.
    """

    version: str
    network: str = ""
    addresses: object = None
    mac: object = None
    annotated: Annotated = Annotated()
    pools: tuple[tuple[int, str], ...] = ()
    previous: Mapping[str, Any] = MappingProxyType({})
    valid: frozenset[tuple[str, str]] | None = None


def read(standard_input: bytes, command: Command) -> Configuration:
    """Return what standard input asks of a command; nobody may change it, for the next pod may be given the same.

    Raises:
        CniError: with the code that the spec gives to what is wrong.
    """
    return (_remembered if len(standard_input) <= REMEMBERED_BYTES else _read)(standard_input, command)


def _read(standard_input: bytes, command: Command) -> Configuration:
    config = _config(standard_input)
    version = _version(config, command)
    if command is Command.VERSION:
        return Configuration(version)
    found = Configuration(version, _network(config), previous=_mapping(config, "prevResult"))
    if command is Command.GC:
        return found._replace(valid=_valid(config))
    if command is not Command.ADD:
        return found
    _refuse_what_others_do(config)
    run_time, annotated = _mapping(config, "runtimeConfig"), _annotated(config)
    return found._replace(
        addresses=run_time.get("ips"),
        mac=run_time.get("mac"),
        annotated=annotated,
        pools=annotated.pools or _pools(config),
    )


_remembered = lru_cache(REMEMBERED)(_read)


def version_of(standard_input: bytes) -> str:
    """Return the version in which to answer even a call that cannot be used."""
    try:
        found = json.loads(standard_input).get("cniVersion")
    except (ValueError, AttributeError, RecursionError):
        return "1.0.0"
    return found if found in VERSIONS else "1.0.0"


def _config(standard_input: bytes) -> Mapping[str, Any]:
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


def _mapping(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = config.get(name) or {}
    if not isinstance(value, Mapping):
        raise CniError(Code.INVALID_CONFIGURATION, f"{name} is {str(value)[:80]!r}; it must be a JSON object")
    return value


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


def _refuse_what_others_do(config: Mapping[str, Any]) -> None:
    """Refuse by name what we cannot do."""
    for name, value in _mapping(config, "runtimeConfig").items():
        if name not in SUPPORTED_AT_RUN_TIME and value:
            sentence = f"runtimeConfig.{name} is {str(value)[:80]!r}, and felix-cni does not do that"
            raise CniError(
                Code.UNSUPPORTED_FIELD, sentence, f"chain the plugin that does, and remove {name} from capabilities"
            )
    ipam = _mapping(config, "ipam").get("type", "felix")
    if ipam != "felix":
        sentence = f"ipam.type is {str(ipam)[:80]!r}; remove ipam, for the agent gives addresses of the node's blocks"
        raise CniError(Code.UNSUPPORTED_FIELD, sentence)


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
