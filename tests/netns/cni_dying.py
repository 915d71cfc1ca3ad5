"""A runtime with a bad day: pods come and go while the agent, felix-cni and the runtime itself are killed at random.

What a runtime owes holds all the same: an ADD that did not end well is followed by DEL, and DEL is asked for again
until it succeeds. After that nothing of any pod may be left.
"""

import json
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from cni_agent import AgentHost
from cni_lab import Answer, until

WORKERS = 4
"""Containers whose calls are under way at once; those about one container come one after the other."""

LONGEST_CALL = 0.012
"""Seconds after which a call that is to be killed has surely been answered."""

AWAY, PATIENCE = 11, 1.5
"""The code of an agent that is not there, and the seconds that a runtime waits at most before its next pod."""

FATES = ("none", "none", "none", "plugin killed", "caller killed")


@dataclass
class Tally:
    """What happened."""

    fates: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    agents_killed: int = 0
    twice: list[str] = field(default_factory=list)


class Runtime:
    """Calls of several containers at once, each with a fate of its own."""

    def __init__(self, node: AgentHost, seed: int) -> None:
        self._node = node
        self._seed = seed
        self._guard = threading.Lock()
        self._used: set[str] = set()
        self.tally = Tally()

    def live(self, worker: int, pods: int) -> None:
        """Add and delete pods one after the other, by turns in two namespaces."""
        dice = random.Random(self._seed + worker)  # noqa: S311 - no secret
        namespaces = [self._node.pod() for _ in range(2)]
        for number in range(pods):
            container, netns = f"w{worker}x{number}", namespaces[number % 2]
            address = self._add(container, netns, dice)
            while not self._deleted(container, netns, dice, address):
                time.sleep(0.01)  # as a runtime does, which is in no hurry

    def _add(self, container: str, netns: str, dice: random.Random) -> str | None:
        answer = self._call("ADD", container, netns, dice)
        if answer is not None and answer.status and answer.code == AWAY:
            time.sleep(dice.uniform(0, PATIENCE))
        if answer is None or answer.status:
            return None
        with self._guard:
            if answer.address in self._used:
                self.tally.twice.append(f"{answer.address} was given to {container} while another pod had it")
            self._used.add(answer.address)
        return answer.address

    def _deleted(self, container: str, netns: str, dice: random.Random, address: str | None) -> bool:
        with self._guard:  # from now on anybody may have it
            self._used.discard(address or "")
        answer = self._call("DEL", container, netns, dice)
        return answer is not None and answer.status == 0

    def _call(self, verb: str, container: str, netns: str, dice: random.Random) -> Answer | None:
        """Call the plugin; None where nobody is left who could know its answer."""
        fate = dice.choice(FATES)
        call = self._node.begin(verb, container, netns)
        answer = None
        if fate == "none":
            answer = call.answer()
        else:
            time.sleep(dice.uniform(0, LONGEST_CALL))
            if fate == "plugin killed":
                call.process.kill()
            assert call.process.stdout is not None
            call.process.stdout.close()  # the plugin goes on without a reader
            assert call.process.stderr is not None
            call.process.stderr.close()
            call.process.wait(60)
        with self._guard:
            self.tally.fates[fate] += 1
            if answer is not None:
                self.tally.answers[f"{verb} {answer.code if answer.status else 0}"] += 1
        return answer


def run(node: AgentHost, pods: int, seed: int) -> Tally:
    """Let so many pods come and go, and kill the agent every now and then; it runs again when this returns."""
    runtime = Runtime(node, seed)
    dice = random.Random(seed - 1)  # noqa: S311 - no secret
    with ThreadPoolExecutor(WORKERS) as workers:
        lives = [workers.submit(runtime.live, number, pods // WORKERS) for number in range(WORKERS)]
        while not all(life.done() for life in lives):
            time.sleep(dice.uniform(0.1, 1.5))
            node.stop(signal.SIGKILL)
            runtime.tally.agents_killed += 1
            time.sleep(dice.uniform(0, 0.2))
            node.start()
        for life in lives:
            life.result()
    return runtime.tally


def left(node: AgentHost) -> list[str]:
    """Return what is left of pods on the host, on disk, and in their namespaces."""
    found = [f"interface {name}" for name in node.veths()]
    found += [f"address {address}" for address in node.held()]
    found += [f"route {dst}" for dst in node.routes() if dst.startswith("10.65.") and "/" not in dst]
    found += [f"rule {rule}" for rule in node.ip("rule", "show").splitlines() if rule.split()[-1] not in TABLES]
    found += [f"packet filter: {each}" for each in _filter_elements(node)]
    found += [f"file {path}" for path in _files(node.folder)]
    for namespace in node.namespaces[1:]:
        links = json.loads(subprocess.run(
            ["ip", "-n", namespace, "-j", "link"], capture_output=True, text=True, check=True
        ).stdout)  # fmt: skip
        found += [f"{each['ifname']} in {namespace}" for each in links if each["ifname"] != "lo"]
    return found


TABLES = ("local", "main", "default")


def _filter_elements(node: AgentHost) -> list[str]:
    listed = subprocess.run(
        ["ip", "netns", "exec", node.name, "nft", "list", "table", "inet", "felix"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return [word for word in listed.split() if word.startswith('"cali') and "*" not in word]


def _files(folder: Path) -> list[Path]:
    notes = folder / "cni-deletions"
    unfinished = [each for each in folder.rglob("*") if each.name.endswith(".new")]
    return [*(notes.iterdir() if notes.is_dir() else ()), *unfinished]


def nothing_left(node: AgentHost) -> None:
    """Hold the node to it: nothing is left in a moment."""
    until(lambda: left(node) == [], f"nothing is left; there is {left(node)[:10]}")
