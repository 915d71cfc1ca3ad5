"""Pods attached and detached through the real CNI plugin, called on their node just as a container runtime calls it."""

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from felix_py.lab import interrupts, machines, namespaces
from felix_py.lab.plan import UPLINK
from felix_py.lab.state import Lab, Refused

CONFIGURATION = {"cniVersion": "1.0.0", "name": "felix", "type": "felix-cni"}
"""The network configuration, as a runtime would read it from /etc/cni/net.d."""

DEADLINE = 30.0
"""Seconds for one call; the agent itself gives up after 10."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod by its name, and its node."""

    name: str
    node: str


Enter: TypeAlias = Callable[[Lab, str], list[str]]
"""Gives the words before a command that put it on a node."""


def attach(lab: Lab, pods: Sequence[Pod], enter: Enter = machines.enter) -> None:
    """ADD every pod, all at the same time, and keep what the plugin answered.

    Raises:
        Refused: with the plugin's own words.
    """
    for pod, answer in _call(lab, "ADD", pods, enter).items():
        (lab.directory / "pods" / f"{pod.name}.json").write_text(answer)


def detach(lab: Lab, pods: Sequence[Pod], enter: Enter = machines.enter) -> None:
    """DEL every pod.

    Raises:
        Refused: with the plugin's own words.
    """
    for pod in _call(lab, "DEL", pods, enter):
        (lab.directory / "pods" / f"{pod.name}.json").unlink(missing_ok=True)


def _call(lab: Lab, command: str, pods: Sequence[Pod], enter: Enter) -> dict[Pod, str]:
    plugin = machines.program("felix-cni")
    started: list[tuple[Pod, subprocess.Popen[str]]] = []
    answers = {}
    try:
        for pod in pods:
            words = [*enter(lab, pod.node), plugin]
            with interrupts.held():
                process = subprocess.Popen(
                    words, stdin=-1, stdout=-1, stderr=-1, text=True, env=_environment(lab, command, pod)
                )
                started.append((pod, process))
        for pod, process in started:
            answer, complaint = process.communicate(json.dumps(CONFIGURATION), timeout=DEADLINE)
            if process.returncode != 0:
                raise Refused(f"felix-cni {command} of {pod.name} on {pod.node} failed: {_words(answer, complaint)}")
            answers[pod] = answer
    finally:
        for _, process in started:
            if process.returncode is None:
                process.kill()
                process.wait()
    return answers


def _environment(lab: Lab, command: str, pod: Pod) -> dict[str, str]:
    """Return the parameters of a call, CNI specification 1.0.0, "Execution Protocol"."""
    return {
        **machines.environment(),
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": lab.namespace(pod.name),
        "CNI_NETNS": str(namespaces.NETNS / lab.namespace(pod.name)),
        "CNI_IFNAME": UPLINK,
        "CNI_PATH": str(machines.SCRIPTS),
        "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod.name}",
    }


def _words(answer: str, complaint: str) -> str:
    """Return the plugin's error object in words: its message and details."""
    try:
        error = json.loads(answer)
        return ": ".join(filter(None, (error.get("msg"), error.get("details"))))
    except (ValueError, AttributeError):
        return " ".join((answer + complaint).split()) or "it said nothing"
