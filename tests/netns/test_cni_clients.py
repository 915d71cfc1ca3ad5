"""Clients of others before the whole agent: containerd's ctr, libcni's cnitool, and plugins that are chained behind.

Nothing on this host changes: configuration and plugins stand in a mount namespace of the client's own.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cni_agent import AgentHost, empty, is_clean, prepare
from cni_lab import SHIM, command, host, in_pod, until

pytestmark = [pytest.mark.netns, pytest.mark.slow]

REFERENCE = Path("/usr/lib/cni")
"""Where Debian's containernetworking-plugins puts its plugins."""

CLIENT, PUBLIC = "172.31.1.99", "172.31.1.11"

NETWORK = {
    "cniVersion": "1.0.0",
    "name": "felix",
    "plugins": [
        {"type": "felix-cni"},
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    ],
}
"""The conflist of docs/reference.md. Debian's plugins do not know 1.1.0."""

CONTAINERD = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{folder}/sock"
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentHost]:
    with host(tmp_path_factory.mktemp("node"), kind=AgentHost, before=prepare) as made:
        assert isinstance(made, AgentHost)
        yield made


@pytest.fixture
def node(shared: AgentHost) -> Iterator[AgentHost]:
    yield shared
    empty(shared)


def needs(*programs: str) -> None:
    missing = [each for each in programs if shutil.which(each, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


# --- ctr


def containerd(node: AgentHost, folder: Path, *commands: str) -> str:
    """Run commands of `ctr` before a containerd of their own, on the node; return what they print."""
    (folder / "config.toml").write_text(CONTAINERD.format(folder=folder))
    (folder / "felix.conflist").write_text(json.dumps({**NETWORK, "plugins": NETWORK["plugins"][:1]}))
    script = f"""
        mount -t tmpfs none /etc && mkdir -p /etc/cni/net.d && cp {folder}/felix.conflist /etc/cni/net.d/
        mount -t tmpfs none /opt && mkdir -p /opt/cni/bin && cp {SHIM} /opt/cni/bin/
        containerd -c {folder}/config.toml > {folder}/log 2>&1 &
        trap "kill $!; wait $!" EXIT
        while [ ! -S {folder}/sock ]; do kill -0 $!; sleep 0.05; done
        ctr() {{ command ctr -a {folder}/sock -n felix "$@"; }}
    """
    # Not `ip netns exec`, whose /sys has no control groups.
    enter = ["nsenter", f"--net=/run/netns/{node.name}", "unshare", "-m"]
    words = [*enter, "sh", "-ec", script + "\n".join(commands)]
    environment = {**os.environ, "FELIX_CNI_SOCKET": str(node.socket)}
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{(folder / 'log').read_text()[-2000:]}"
    return done.stdout


def root_of_busybox(folder: Path) -> Path:
    """Make the root file system of a container, so that no registry is needed."""
    root = folder / "rootfs"
    for name in ("bin", "proc", "sys", "dev", "etc", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", root / "bin")
    for name in ("sh", "ip", "ping"):
        (root / "bin" / name).symlink_to("busybox")
    return root


def test_containers_of_containerd_are_on_the_network(node: AgentHost, tmp_path: Path) -> None:
    needs("containerd", "ctr", "runc", "busybox")
    other = node.cni("ADD", "c1", node.pod()).address
    root = root_of_busybox(tmp_path)
    inside = f"ip -4 addr show eth0; ip route; ping -c1 -W5 {other}"
    said = containerd(node, tmp_path, f'ctr run --rm --cni --rootfs {root} web /bin/sh -c "{inside}"')
    assert "default via 169.254.1.1 dev eth0" in said
    assert "1 packets received" in said
    (address,) = (line.split()[1] for line in said.splitlines() if "inet 10.65." in line)
    assert address.endswith("/32")
    assert node.held() == {other}, "containerd's DEL, which comes without a namespace, gave it back"
    until(lambda: len(node.veths()) == 1, "and the interface is gone")


# --- cnitool


@pytest.mark.cnitool
def test_cnitool_adds_checks_and_deletes(node: AgentHost, tmp_path: Path) -> None:
    program = os.environ.get("CNITOOL") or shutil.which("cnitool")
    assert program is not None
    document = {**NETWORK, "cniVersion": "1.1.0", "plugins": NETWORK["plugins"][:1]}
    (tmp_path / "felix.conflist").write_text(json.dumps(document))
    pod = node.pod()
    environment = {
        **os.environ,
        "NETCONFPATH": str(tmp_path),
        "CNI_PATH": str(SHIM.parent),
        "FELIX_CNI_SOCKET": str(node.socket),
        "CNI_IFNAME": "eth0",
    }

    def cnitool(verb: str) -> str:
        # Its cache of results is not to stand on this host.
        script = 'mkdir -p /var/lib && mount -t tmpfs none /var/lib && exec "$@"'
        words = ["ip", "netns", "exec", node.name, "unshare", "-m", "sh", "-c", script, "sh", program]
        done = subprocess.run(
            [*words, verb, "felix", f"/run/netns/{pod}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            env=environment,
        )
        assert done.returncode == 0, f"{verb}: {done.stdout}{done.stderr}"
        return done.stdout

    result = json.loads(cnitool("add"))
    assert node.pings(result["ips"][0]["address"].removesuffix("/32"))
    cnitool("status")
    cnitool("gc")
    assert len(node.held()) == 1, "which names no attachments, and that means none to remove"
    cnitool("del")
    cnitool("del")
    until(lambda: is_clean(node), "nothing is left")


# --- plugins behind ours


def chained(node: AgentHost, verb: str, netns: str, run_time: dict[str, object]) -> None:
    """Call all plugins of the conflist as libcni does: each with the result of those before; DEL in reverse order."""
    previous: dict[str, object] = {}
    plugins = NETWORK["plugins"] if verb == "ADD" else NETWORK["plugins"][::-1]
    for plugin in plugins:
        wanted = {name: run_time[name] for name in plugin.get("capabilities", {})}  # type: ignore[attr-defined]
        document = {"cniVersion": "1.0.0", "name": "felix", **plugin, "runtimeConfig": wanted}  # type: ignore[dict-item]
        document |= {"prevResult": previous} if previous else {}
        program = SHIM if plugin["type"] == "felix-cni" else REFERENCE / plugin["type"]  # type: ignore[index]
        environment = {
            **os.environ,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": "chained",
            "CNI_NETNS": f"/run/netns/{netns}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": f"{SHIM.parent}:{REFERENCE}",
            "FELIX_CNI_SOCKET": str(node.socket),
        }
        done = subprocess.run(
            ["ip", "netns", "exec", node.name, program],
            input=json.dumps(document),
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, f"{program} {verb}: {done.stdout}{done.stderr}"
        previous = json.loads(done.stdout) if done.stdout.strip() else previous


def test_port_mappings_and_bandwidth_by_the_plugins_behind(node: AgentHost) -> None:
    needs("iptables")
    if not (REFERENCE / "portmap").exists():
        pytest.skip("needs Debian's containernetworking-plugins")
    outside, pod = node.pod(), node.pod()
    node.ip("link", "set", "eth0peer", "netns", outside)
    for words in (f"addr add {CLIENT}/24 dev eth0peer", "link set eth0peer up"):
        command("ip", "-n", outside, *words.split())
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
    rate = {"ingressRate": 8_000_000, "ingressBurst": 8_000_000}
    run_time: dict[str, object] = {"portMappings": [mapping], "bandwidth": rate}
    chained(node, "ADD", pod, run_time)
    (veth,) = node.veths()
    assert "tbf" in in_pod(node.name, "tc", "qdisc", "show", "dev", veth)
    serve = "import socket; s = socket.create_server(('', 80)); print('up', flush=True); s.accept()[0].send(b'hello')"
    with subprocess.Popen(
        ["ip", "netns", "exec", pod, "python3", "-c", serve], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        ask = f"import socket; print(socket.create_connection(('{PUBLIC}', 8080), 10).recv(9).decode())"
        assert in_pod(outside, "python3", "-c", ask) == "hello\n"
    chained(node, "DEL", pod, run_time)
    until(lambda: is_clean(node), "nothing is left of the pod")
    assert "8080" not in in_pod(node.name, "iptables-save")
