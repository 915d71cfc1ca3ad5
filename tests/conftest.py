"""What every test may use, and what each layer needs of the machine: a missing need skips with its remedy."""

import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

import turns
from effort import FULL, QUICK

# What is collected stays until the end: without this, Python looks through all of it again and again.
gc.disable()

# Tests start felix-py's programs thousands of times; where Python may not keep what it compiles, each would begin with
# compiling all of it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that runs us in the background has SIGINT ignored, and every program that we start would inherit that; tests
# interrupt some of them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("default", deadline=None, derandomize=True, max_examples=FULL)
settings.register_profile("quick", settings.get_profile("default"), max_examples=QUICK)
settings.load_profile("default")


def root() -> bool:
    return os.geteuid() == 0


def program(name: str) -> Callable[[], bool]:
    # Debian keeps daemons in /usr/sbin, which is not in everybody's PATH.
    return lambda: shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None


def kubernetes_program(name: str) -> Callable[[], bool]:
    folder = Path(os.environ.get("FELIX_KUBERNETES", Path.home() / ".cache/felix-py/kubernetes"))
    return lambda: (folder / name).exists() or program(name)()


KUBERNETES = ("kubelet", "kube-proxy", "kube-controller-manager", "kube-scheduler", "kubectl")


def image() -> bool:
    docker, name = os.environ.get("DOCKER", "docker"), os.environ.get("FELIX_IMAGE", "felix-py:dev")
    try:
        return subprocess.run([docker, "image", "inspect", name], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


NEEDS: dict[str, tuple[tuple[Callable[[], bool], str], ...]] = {
    "netns": (
        (root, "needs root for network namespaces: sudo .venv/bin/pytest"),
        (program("ip"), "needs iproute2: apt-get install iproute2"),
        (program("ping"), "needs ping: apt-get install iputils-ping"),
        (program("tcpdump"), "needs tcpdump: apt-get install tcpdump"),
    ),
    "interop": (
        (root, "needs root for network namespaces: sudo .venv/bin/pytest"),
        (program("bird"), "needs BIRD 2: apt-get install bird2"),
    ),
    "bird": ((program("bird"), "needs BIRD 2: apt-get install bird2"),),
    "frr": ((program("/usr/lib/frr/bgpd"), "needs FRR: apt-get install frr"),),
    "gobgp": (
        (program("gobgpd"), "needs GoBGP: apt-get install gobgpd"),
        (program("gobgp"), "needs GoBGP's client: apt-get install gobgpd"),
    ),
    "cnitool": (
        (
            program(os.environ.get("CNITOOL") or "cnitool"),
            "needs cnitool: go install github.com/containernetworking/cni/cnitool@latest; then CNITOOL=path",
        ),
    ),
    "browser": ((program("chromium"), "needs Chromium: apt-get install --no-install-recommends chromium"),),
    "promtool": ((program("promtool"), "needs promtool: apt-get install --no-install-recommends prometheus"),),
    "vm": (
        (root, "needs root: sudo .venv/bin/pytest"),
        (program("qemu-system-x86_64"), "needs QEMU: apt-get install qemu-system-x86"),
        (program("busybox"), "needs busybox: apt-get install busybox-static"),
    ),
    "kubernetes": (
        (kubernetes_program("kube-apiserver"), "needs kube-apiserver: make kubernetes-binaries"),
        (kubernetes_program("etcd"), "needs etcd: make kubernetes-binaries"),
    ),
    "kubelets": (
        (root, "needs root for namespaces: sudo .venv/bin/pytest"),
        *((kubernetes_program(name), f"needs {name}: make kubernetes-binaries") for name in KUBERNETES),
        (lambda: Path("/sys/fs/cgroup/memory").is_dir(), "needs control groups of version 1"),
        (program("containerd"), "needs containerd: apt-get install containerd"),
        (program("/usr/lib/cni/bridge"), "needs CNI's plugins: apt-get install containernetworking-plugins"),
        (program("iptables"), "needs iptables for kube-proxy: apt-get install iptables"),
        (program("busybox"), "needs busybox: apt-get install busybox-static"),
        (program("bird"), "needs BIRD 2: apt-get install bird2"),
        (image, "needs Docker with the image felix-py:dev: make image"),
    ),
    "compose": (
        (root, "needs root, who may speak to Docker: sudo .venv/bin/pytest"),
        (
            program(os.environ.get("DOCKER", "docker")),
            "needs Docker: apt-get install docker.io docker-compose debootstrap",
        ),
    ),
    "bench": ((root, "needs root for network namespaces: sudo .venv/bin/pytest"),),
}
"""By marker: what must hold, and the sentence for whoever lacks it."""


def pytest_configure(config: pytest.Config) -> None:
    """Have workers take turns where there are any; `turns` says how."""
    # Asked once for all: the first network namespace of a machine should not be made by two at the same time.
    turns.join(config, lambda: {"ipip": kernel_has_ipip()})


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what needs the ipip module to the guest of tests/vm."""
    guests = [item for item in items if item.get_closest_marker("ipip_module")]
    told = getattr(config, "workerinput", {})
    if guests and not (told["ipip"] if "ipip" in told else kernel_has_ipip()):
        config.hook.pytest_deselected(items=guests)
        items[:] = [item for item in items if item not in guests]


def pytest_collection_finish() -> None:
    """Have Python look for garbage from here on, and only in what tests leave."""
    gc.collect()
    gc.freeze()
    gc.enable()


def kernel_has_ipip() -> bool:
    """Ask the kernel for a device of this kind, in a namespace of its own."""
    name = f"felix-test-{os.getpid()}"
    commands = (["netns", "add", name], ["-n", name, "link", "add", "probe", "type", "ipip"], ["netns", "del", name])
    answers = [subprocess.run(["ip", *words], capture_output=True, check=False, text=True) for words in commands]
    # The module puts a device of its own into every namespace, and lets nobody make a second one that is like it.
    return answers[1].returncode == 0 or "File exists" in answers[1].stderr


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose layer lacks a need; in CI that is a failure, since nothing may be skipped there."""
    for marker, needs in NEEDS.items():
        missing = [sentence for holds, sentence in needs if not holds()] if item.get_closest_marker(marker) else []
        if missing and os.environ.get("CI") == "true":
            pytest.fail(missing[0], pytrace=False)
        elif missing:
            pytest.skip(missing[0])
