"""Machines with containerd and kubelet, made of namespaces, and the images that they have."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from api_server import DIES_WITH_US, binary
from cluster import eventually
from echoes import Source
from spaces import Space

SCRIPT = Path(__file__).with_name("machine.sh")
CGROUPS = Path("/sys/fs/cgroup")

IMAGE = os.environ.get("FELIX_IMAGE", "felix-py:dev")
"""What `make image` makes."""

BUSYBOX = "felix.example/busybox:1"
"""What pods run, and what holds their namespaces."""

CONTAINERD: dict[str, Any] = {
    "version": 2,
    "oom_score": 0,
    "metrics": {"address": "127.0.0.1:1338"},
    "plugins": {
        "io.containerd.grpc.v1.cri": {
            "sandbox_image": BUSYBOX,
            "restrict_oom_score_adj": True,
            "disable_apparmor": True,
            "cni": {"bin_dir": "/opt/cni/bin", "conf_dir": "/etc/cni/net.d"},
        }
    },
}
"""A machine without CAP_SYS_RESOURCE cannot protect processes from the kernel's out-of-memory killer."""

KUBELET: dict[str, Any] = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
    "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
    "cgroupDriver": "cgroupfs", "cgroupsPerQOS": False, "enforceNodeAllocatable": [], "failCgroupV1": False,
    "failSwapOn": False, "oomScoreAdj": 0, "localStorageCapacityIsolation": False, "makeIPTablesUtilChains": False,
    "evictionHard": {"memory.available": "50Mi"}, "imageGCHighThresholdPercent": 100, "resolvConf": "",
    "nodeStatusUpdateFrequency": "2s",
}  # fmt: skip

PROXY: dict[str, Any] = {
    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "iptables",
    "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
}  # fmt: skip
"""It would change conntrack's settings of the whole kernel."""


def toml(table: dict[str, Any], path: tuple[str, ...] = ()) -> str:
    """Write a table as TOML, as far as containerd needs it."""
    plain = "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items() if not isinstance(value, dict))
    head = "[" + ".".join(map(json.dumps, path)) + "]\n" if path else ""
    deeper = "".join(toml(value, (*path, key)) for key, value in table.items() if isinstance(value, dict))
    return head + plain + deeper


def save_images(folder: Path) -> None:
    """Write the images that machines have: ours out of Docker, and one with busybox."""
    folder.mkdir()
    docker = os.environ.get("DOCKER", "docker")
    subprocess.run([docker, "save", "-o", str(folder / "felix.tar"), IMAGE], check=True, timeout=120)
    program = shutil.which("busybox")
    assert program is not None
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        archive.add(program, "bin/busybox")
        for name in ("sh", "sleep", "nc", "wget", "httpd", "ip"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    layer_bytes = layer.getvalue()
    config = {
        "architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"], "Cmd": ["sleep", "1000000"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(layer_bytes).hexdigest()}"]},
    }  # fmt: skip
    manifest = [{"Config": "config.json", "RepoTags": [BUSYBOX], "Layers": ["layer.tar"]}]
    with tarfile.open(folder / "busybox.tar", "w") as archive:
        for name, content in (
            ("layer.tar", layer_bytes), ("config.json", json.dumps(config).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):  # fmt: skip
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


class Machine:
    """A machine: it runs from `start` to `stop`, and forgets everything then but its network."""

    def __init__(self, folder: Path, name: str, address: str, rack: str) -> None:
        """Write down its settings; the folder has `kubelet.conf` and `kube-proxy.conf`."""
        self.folder, self.name, self.address, self.rack = folder, name, address, rack
        self.space = Space()
        self._process: subprocess.Popen[bytes] | None = None
        kubelet, proxy = dict(KUBELET), dict(PROXY)
        kubelet["authentication"] = KUBELET["authentication"] | {
            "x509": {"clientCAFile": str(folder.parent / "kubernetes/ca.crt")}
        }
        proxy["clientConnection"] = {"kubeconfig": str(folder / "kube-proxy.conf")}
        (folder / "kubelet.yaml").write_text(yaml.safe_dump(kubelet))
        (folder / "kube-proxy.yaml").write_text(yaml.safe_dump(proxy))
        (folder / "containerd.toml").write_text(toml(CONTAINERD))

    def start(self) -> None:
        programs = {"KUBELET": binary("kubelet"), "KUBE_PROXY": binary("kube-proxy")}
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "ADDRESS": self.address, "RACK": self.rack, **{key: value or "" for key, value in programs.items()},
        }  # fmt: skip
        words = [*DIES_WITH_US, "sh", str(SCRIPT), self.name, str(self.folder)]
        with (self.folder / "machine.log").open("ab") as log:
            self._process = self.space.do(subprocess.Popen, words, env=environment, stdout=log, stderr=log)

    @property
    def first(self) -> int:
        """Return the process ID, outside, of the machine's first process."""
        assert self._process is not None
        pid = self._process.pid
        assert self._process.poll() is None, (self.folder / "machine.log").read_text()
        children = eventually(lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text().split(), "the machine runs")
        return int(children[0])

    @property
    def root(self) -> Path:
        """Return where its files are seen."""
        return Path(f"/proc/{self.first}/root")

    def run(self, *words: str, check: bool = True, within: float = 60.0) -> str:
        """Run a program on the machine, and return what it says."""
        enter = ["nsenter", f"--target={self.first}", "--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup"]
        done = subprocess.run([*enter, *words], capture_output=True, text=True, check=False, timeout=within)
        assert not check or done.returncode == 0, f"{self.name}: {words}: {done.stderr}{done.stdout}"
        return done.stdout

    def felixctl(self, *words: str) -> Any:
        """Ask the machine's agent at its socket, which needs no API server."""
        program = [sys.executable, "-m", "felix_py.ctl.main", "--socket", str(self.root / "run/felix/agent.sock")]
        done = subprocess.run([*program, *words, "-o", "json"], capture_output=True, text=True, check=False, timeout=60)
        return json.loads(done.stdout) if done.stdout else {}

    def problems(self) -> list[str]:
        found: list[str] = self.felixctl("status").get("problems", ["the agent does not answer"])
        return found

    def said_last(self, event: str) -> float:
        """Return when the machine's agent has logged an event the last time."""
        paths = self.folder.glob("pods/felix-system_*/agent/*.log")
        lines = [line for path in paths for line in path.read_text().splitlines() if f'"{event}"' in line]
        assert lines, f"{self.name} has never said {event}"
        return max(datetime.fromisoformat(line.split(" ", 1)[0]).timestamp() for line in lines)

    def sources(self) -> dict[str, Source]:
        """Return the machine's pods by address, each ready to ping."""
        found = {}
        for path in (self.root / "run/netns").iterdir():
            source = Source(self.name, path)
            # A sandbox that is going, or coming, has no interface: it is no pod that anybody could reach.
            words = ("nsenter", f"--net={path}", "ip", "-j", "-4", "address", "show", "eth0")
            shown = Space.run(self.space, *words, check=False)
            addresses = [each["local"] for link in json.loads(shown or "[]") for each in link.get("addr_info", ())]
            if addresses:
                source.name = addresses[0]
                found[addresses[0]] = source
        return found

    def stop(self) -> None:
        """Cut its power."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
            group = (self.folder / "group").read_text().strip()
            for each in CGROUPS.glob(f"*/{group}"):
                for path in sorted((path for path in each.rglob("*") if path.is_dir()), reverse=True):
                    eventually(lambda path=path: _removed(path), f"{path} is empty")  # type: ignore[misc]
                eventually(lambda each=each: _removed(each), f"{each} is empty")  # type: ignore[misc]

    def close(self) -> None:
        self.stop()
        self.space.close()


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True
