"""Calls of container runtimes: what is understood, and which code each fault gets (CNI spec, section 2 and errors)."""

import json
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix_py.cni.configuration import version_of
from felix_py.cni.request import Request, parse, split
from felix_py.cni.spec import VERSIONS, CniError, Code, Command

ADD = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/p1", "CNI_IFNAME": "eth0"}
CONFIG: dict[str, Any] = {"cniVersion": "1.0.0", "name": "pods", "type": "felix-cni"}
K8S = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u"


def call(changes: dict[str, str] | None = None, **config: Any) -> Request:
    return parse({**ADD, **(changes or {})}, json.dumps({**CONFIG, **config}).encode())


def refusal(changes: dict[str, str] | None = None, **config: Any) -> CniError:
    with pytest.raises(CniError) as caught:
        call(changes, **config)
    return caught.value


def test_what_kubelet_sends() -> None:
    assert call({"CNI_ARGS": K8S, "CNI_PATH": "/opt/cni/bin"}) == Request(
        Command.ADD, "1.0.0", "pods", "c1", "eth0", "/run/netns/p1", "default/web-0"
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_is_served(version: str) -> None:
    assert call(cniVersion=version).version == version


@pytest.mark.parametrize("version", ["0.2.0", "0.3.0", "1.2.0", "9.9.9", "", 1, None, ["1.0.0"]])
def test_a_version_that_is_not_served_is_answered_with_the_list(version: object) -> None:
    found = refusal(cniVersion=version)
    assert found.code is Code.INCOMPATIBLE_VERSION
    assert found.details == "supported versions: 0.3.1, 0.4.0, 1.0.0, 1.1.0"


@pytest.mark.parametrize(
    ("command", "version"), [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "0.4.0"), ("STATUS", "1.0.0")]
)
def test_a_command_that_the_version_does_not_have(command: str, version: str) -> None:
    found = refusal({"CNI_COMMAND": command}, cniVersion=version)
    assert found.code is Code.INCOMPATIBLE_VERSION
    assert f"{command} exists since" in found.message


def test_all_missing_variables_are_named_at_once() -> None:
    found = refusal({"CNI_CONTAINERID": "", "CNI_NETNS": "", "CNI_IFNAME": ""})
    assert (found.code, found.message) == (
        Code.INVALID_ENVIRONMENT,
        "ADD needs CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, which is missing or empty",
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CNI_COMMAND", "add"),
        ("CNI_COMMAND", ""),
        ("CNI_CONTAINERID", "-leading"),
        ("CNI_CONTAINERID", "a/b"),
        ("CNI_CONTAINERID", "a b"),
        ("CNI_CONTAINERID", "a\n"),
        ("CNI_IFNAME", "sixteen-letters-"),
        ("CNI_IFNAME", "."),
        ("CNI_IFNAME", ".."),
        ("CNI_IFNAME", "a/b"),
        ("CNI_IFNAME", "a:b"),
        ("CNI_IFNAME", "a b"),
        ("CNI_IFNAME", "a%d"),
        ("CNI_IFNAME", "a\x07"),
        ("CNI_ARGS", "no pair"),
        ("CNI_ARGS", "K8S_POD_NAMESPACE=default"),
        ("CNI_ARGS", "K8S_POD_NAMESPACE=default;K8S_POD_NAME=../../etc"),
        ("CNI_ARGS", "K8S_POD_NAMESPACE=a b;K8S_POD_NAME=web-0"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(variable: str, value: str) -> None:
    found = refusal({variable: value})
    assert found.code is Code.INVALID_ENVIRONMENT
    assert variable in found.message


@pytest.mark.parametrize(
    ("config", "code", "word"),
    [
        pytest.param({"name": None}, Code.INVALID_CONFIGURATION, "name is missing", id="no name"),
        pytest.param({"name": "a/b"}, Code.INVALID_CONFIGURATION, "name is 'a/b'", id="odd name"),
        pytest.param({"prevResult": [1]}, Code.INVALID_CONFIGURATION, "prevResult", id="prevResult is a list"),
        pytest.param({"runtimeConfig": 5}, Code.INVALID_CONFIGURATION, "runtimeConfig", id="runtimeConfig is a number"),
        pytest.param({"runtimeConfig": {"portMappings": [{"hostPort": 80}]}}, Code.UNSUPPORTED_FIELD, "portMappings"),
        pytest.param({"runtimeConfig": {"bandwidth": {"ingressRate": 1}}}, Code.UNSUPPORTED_FIELD, "bandwidth"),
        pytest.param({"ipam": {"type": "host-local"}}, Code.UNSUPPORTED_FIELD, "'host-local'"),
        pytest.param({"runtimeConfig": {"ips": "10.65.0.9"}}, Code.INVALID_CONFIGURATION, "10.65.0.9"),
        pytest.param({"runtimeConfig": {"ips": ["fd00::g"]}}, Code.INVALID_CONFIGURATION, "10.65.0.9 or fd65::9"),
        pytest.param({"runtimeConfig": {"mac": "01:00:00:00:00:01"}}, Code.INVALID_CONFIGURATION, "unicast"),
        pytest.param({"runtimeConfig": {"mac": "tralala"}}, Code.INVALID_CONFIGURATION, "tralala"),
    ],
)
def test_a_configuration_that_cannot_be_used(config: dict[str, Any], code: Code, word: str) -> None:
    found = refusal(**config)
    assert found.code is code
    assert word in found.message


def test_del_accepts_what_add_refused() -> None:
    found = call({"CNI_COMMAND": "DEL", "CNI_NETNS": "", "CNI_ARGS": "no pair"}, runtimeConfig={"portMappings": [1]})
    assert (found.command, found.netns, found.wanted) == (Command.DEL, "", ())


@pytest.mark.parametrize(
    "standard_input",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 60 + b"1" + b"}" * 60, b"nonsense", b"[]", b"null", b"5"],
    ids=["empty", "torn", "no text", "far too deep", "too deep", "no JSON", "a list", "null", "a number"],
)
def test_input_that_is_no_json_object(standard_input: bytes) -> None:
    with pytest.raises(CniError) as caught:
        parse(ADD, standard_input)
    assert caught.value.code is Code.DECODING_FAILURE


def test_unknown_keys_are_left_alone() -> None:
    assert call(capabilities={"ips": True}, keyA=["x"], dns={}).network == "pods"


@pytest.mark.parametrize(
    ("arguments", "run_time", "wanted"),
    [
        pytest.param("IP=10.65.0.9", {}, ["10.65.0.9"], id="CNI_ARGS"),
        pytest.param("", {"ips": ["10.65.0.9/32", "10.65.0.8"]}, ["10.65.0.9", "10.65.0.8"], id="runtimeConfig"),
        pytest.param("IP=10.65.0.1", {"ips": ["10.65.0.9"]}, ["10.65.0.9"], id="runtimeConfig goes first"),
        pytest.param("IP=10.65.0.9,10.65.0.9", {}, ["10.65.0.9"], id="twice the same is once"),
        pytest.param("IP=10.65.0.9,fd65::9", {}, ["10.65.0.9", "fd65::9"], id="one of each version of IP"),
        pytest.param("IP=", {}, [], id="empty"),
    ],
)
def test_particular_addresses(arguments: str, run_time: dict[str, Any], wanted: list[str]) -> None:
    assert call({"CNI_ARGS": arguments}, runtimeConfig=run_time).wanted == tuple(map(ip_address, wanted))


@pytest.mark.parametrize(("arguments", "run_time"), [("MAC=02:00:00:00:00:AA", {}), ("", {"mac": "02:00:00:00:00:aa"})])
def test_a_particular_hardware_address(arguments: str, run_time: dict[str, Any]) -> None:
    assert call({"CNI_ARGS": arguments}, runtimeConfig=run_time).mac == "02:00:00:00:00:aa"


HEX = "a1b2c3d4e5f6" + "0" * 52


@pytest.mark.parametrize(
    ("changes", "name", "host_interface"),
    [
        pytest.param({"CNI_ARGS": K8S}, "default/web-0", "cali0d7763386da", id="pod"),
        pytest.param({"CNI_ARGS": K8S, "CNI_IFNAME": "net1"}, "default/web-0/net1", "calide80847183d", id="second one"),
        pytest.param({}, "container/c1", "cali2f22765d049", id="no orchestrator"),
        pytest.param({"CNI_CONTAINERID": HEX}, "container/a1b2c3d4e5f6", "calieefc241bca2", id="long random ID"),
        pytest.param(
            {"CNI_CONTAINERID": "cnitool-0123456789"}, "container/cnitool-0123456789", "calicd1a0588dfd", id="cnitool"
        ),
    ],
)
def test_names(changes: dict[str, str], name: str, host_interface: str) -> None:
    found = call(changes)
    assert (found.name, found.host_interface) == (name, host_interface)


def test_containers_with_alike_ids_have_names_of_their_own() -> None:
    names = {call({"CNI_CONTAINERID": f"test-container-{number}"}).name for number in range(10)}
    assert len(names) == 10


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_gc_keeps_what_is_listed(key: str) -> None:
    gc = {"CNI_COMMAND": "GC", "CNI_CONTAINERID": "", "CNI_IFNAME": "", "CNI_NETNS": ""}
    listed = {key: [{"containerID": "c1", "ifname": "eth0"}]}
    assert call(gc, cniVersion="1.1.0", **listed).valid == {("c1", "eth0")}
    assert call(gc, cniVersion="1.1.0", **{key: []}).valid == frozenset()
    assert call(gc, cniVersion="1.1.0").valid is None
    assert refusal(gc, cniVersion="1.1.0", **{key: [5]}).code is Code.INVALID_CONFIGURATION
    assert refusal(gc, cniVersion="1.1.0", **{key: 5}).code is Code.INVALID_CONFIGURATION


@pytest.mark.parametrize("standard_input", [b"", b"{}", b'{"cniVersion": "0.2.0"}'])
def test_version_is_always_answered(standard_input: bytes) -> None:
    assert parse({"CNI_COMMAND": "VERSION"}, standard_input).version == "1.1.0"


@pytest.mark.parametrize(
    ("standard_input", "version"),
    [
        (b'{"cniVersion": "0.3.1"}', "0.3.1"),
        (b'{"cniVersion": "7.0.0"}', "1.0.0"),
        (b'{"cniVersion": [1]}', "1.0.0"),
        (b"[]", "1.0.0"),
        (b"{", "1.0.0"),
        (b"[" * 100_000, "1.0.0"),
    ],
    ids=["served", "not served", "a list", "no object", "torn", "too deep"],
)
def test_errors_are_written_in_the_callers_version_if_there_is_one(standard_input: bytes, version: str) -> None:
    assert version_of(standard_input) == version


def test_a_call_is_taken_apart() -> None:
    assert split(b"felix-cni 1\0CNI_COMMAND=ADD\0CNI_ARGS=a=b;c\0\0{}\0\0x") == (
        {"CNI_COMMAND": "ADD", "CNI_ARGS": "a=b;c"},
        b"{}\0\0x",
    )


def test_a_call_without_variables() -> None:
    assert split(b"felix-cni 1\0\0{}") == ({}, b"{}")


@given(st.binary(max_size=200))
def test_rubbish_is_refused_and_never_raises_anything_else(data: bytes) -> None:
    with pytest.raises(CniError):
        parse(*split(data))
    with pytest.raises(CniError):
        parse(*split(b"felix-cni 1\0CNI_COMMAND=ADD\0\0" + data))


texts = st.text(max_size=20) | st.sampled_from(["eth0", "c1", "K8S_POD_NAME=a", "IP=1", "ADD", "DEL", "GC", "STATUS"])
leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.sampled_from(["1.1.0", "pods", "mac", "ips"])
)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
keys = st.sampled_from(
    ["cniVersion", "name", "prevResult", "runtimeConfig", "ipam", "cni.dev/valid-attachments", "dns"]
)
variables = st.sampled_from(["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"])


@given(st.dictionaries(variables, texts), st.dictionaries(keys, values))
def test_odd_calls_are_understood_or_refused_and_nothing_else(changes: dict[str, str], config: dict[str, Any]) -> None:
    try:
        found = parse({**ADD, **changes}, json.dumps({**CONFIG, **config}).encode())
    except CniError as error:
        assert error.message  # noqa: PT017 - either outcome is right; a third is not
    else:
        assert found.version in VERSIONS
        assert len(found.host_interface) == 15


def annotated(**values: str) -> dict[str, Any]:
    named = {f"cni.projectcalico.org/{name}": value for name, value in values.items()}
    return {"runtimeConfig": {"io.kubernetes.cri.pod-annotations": {"team": "blue", **named}}}


def test_annotations_of_calico() -> None:
    pools = {"ipv4pools": '["red", "10.65.0.0/16"]', "ipv6pools": '["six"]'}
    request = call(**annotated(ipAddrs='["10.65.0.9"]', hwAddr="02:AA:00:00:00:01", **pools))
    assert [str(each) for each in request.wanted] == ["10.65.0.9"]
    assert request.pools == ((4, "red"), (4, "10.65.0.0/16"), (6, "six"))
    assert request.mac == "02:aa:00:00:00:01"


def test_what_the_runtime_says_goes_before_annotations() -> None:
    config = annotated(ipAddrs='["10.65.0.9"]', hwAddr="02:aa:00:00:00:01")
    config["runtimeConfig"] |= {"ips": ["10.65.0.8"], "mac": "02:aa:00:00:00:02"}
    request = call(**config)
    assert [str(each) for each in request.wanted] == ["10.65.0.8"]
    assert request.mac == "02:aa:00:00:00:02"


def test_pools_of_the_configuration_as_calico_names_them() -> None:
    config = {"ipam": {"type": "felix", "ipv4_pools": ["red"], "ipv6_pools": ["six"]}}
    assert call(**config).pools == ((4, "red"), (6, "six"))
    assert call(**{**config, **annotated(ipv4pools='["blue"]')}).pools == ((4, "blue"),)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        pytest.param(annotated(ipAddrs="10.65.0.9"), "ipAddrs is '10.65.0.9'; write a JSON list", id="no JSON"),
        pytest.param(annotated(ipv4pools='{"a": 1}'), "ipv4pools is", id="no list"),
        pytest.param(annotated(ipv6pools="[1]"), "ipv6pools is", id="no strings"),
        pytest.param(annotated(ipAddrs='["pod"]'), "the addresses", id="no address"),
        pytest.param(annotated(hwAddr="01:00:00:00:00:01"), "mac is", id="a group's address"),
        pytest.param(annotated(ipAddrsNoIpam='["10.65.0.9"]'), "ipAddrsNoIpam is not supported", id="not supported"),
        pytest.param({"runtimeConfig": {"io.kubernetes.cri.pod-annotations": [1]}}, "must be a JSON object", id="odd"),
        pytest.param({"ipam": {"ipv4_pools": "red"}}, "ipam.ipv4_pools is 'red'", id="pools that are no list"),
    ],
)
def test_what_cannot_be_used_of_them_is_named(config: dict[str, Any], words: str) -> None:
    found = refusal(**config)
    assert found.code is Code.INVALID_CONFIGURATION
    assert words in found.message
