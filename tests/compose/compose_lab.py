"""The lab of docker-compose.yml, brought up for tests; and an engine, where none runs yet."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scenario_documents import Answer, shell

ROOT = Path(__file__).parents[2]
DOCKER = os.environ.get("DOCKER", "docker")

ENGINE_DEADLINE = 60.0
"""Seconds until an engine that was started must answer."""

HEALTHY_DEADLINE = 120.0
"""Seconds until every container must be healthy, on a machine that may be busy; docs/labs.md has what was measured."""


SERVICES = ("tor", "spine", "a1", "a2", "b1", "b2", "client", "page")
"""Of docker-compose.yml, every one with a check of its health."""

PAGE_PORT = "19099"
"""Where the page is published in tests: another lab may have the usual port."""


def docker(*words: str, seconds: float = 60.0) -> str:
    """Run a command of Docker that has to succeed; return what it printed."""
    done = shell([DOCKER, *words], seconds)
    assert done.status == 0, f"docker {' '.join(words)}: {done.out}"
    return done.out


def answers() -> bool:
    """Say whether an engine does."""
    return shell([DOCKER, "info"]).status == 0


@contextmanager
def engine(log: Path) -> Iterator[None]:
    """Have an engine: the one that runs, or one of our own for as long as it is needed."""
    if answers():
        yield
        return
    program = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("no engine answers, and dockerd is not here: apt-get install docker.io")
    with log.open("wb") as out:
        process = subprocess.Popen([program], stdout=out, stderr=out)
    try:
        assert eventually(answers, ENGINE_DEADLINE), log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(ENGINE_DEADLINE)


def compose_words() -> list[str]:
    """Return how compose is called here: version 2, or 1.29."""
    return [DOCKER, "compose"] if shell([DOCKER, "compose", "version"]).status == 0 else ["docker-compose"]


class Compose:
    """The lab under a project name of its own."""

    def __init__(self) -> None:
        self.words = [
            *compose_words(),
            "--project-name",
            f"felixtest{os.getpid()}",
            "--file",
            f"{ROOT}/docker-compose.yml",
        ]

    def run(self, *words: str, seconds: float = 90.0) -> Answer:
        """Run a command of compose."""
        return shell(["env", f"FELIX_PAGE_PORT={PAGE_PORT}", *self.words, *words], seconds)

    def execute(self, machine: str, *words: str) -> Answer:
        """Run a command in a container."""
        return self.run("exec", "-T", machine, *words)

    def container(self, machine: str) -> dict[str, Any]:
        """Return what the engine says of a container."""
        name = self.run("ps", "-q", machine).out.split()[0]
        (found,) = json.loads(docker("inspect", name))
        return dict(found)

    def health(self) -> dict[str, str]:
        """Return the health of each container, by its service."""
        names = docker("ps", "-q", "--filter", f"label=com.docker.compose.project={self.words[-3]}").split()
        found = json.loads(docker("inspect", *names)) if names else []
        service = "com.docker.compose.service"
        return {each["Config"]["Labels"][service]: each["State"]["Health"]["Status"] for each in found}

    def matrix(self, *machines: str) -> bool:
        """Say whether these machines and their pods reach everybody."""
        return all(self.execute(machine, "ping-matrix").status == 0 for machine in machines)

    def said(self) -> str:
        """Return the state of all containers, and their last words."""
        return self.run("ps").out + self.run("logs", "--tail", "5").out


@contextmanager
def standing() -> Iterator[Compose]:
    """Have the lab up, every container healthy; nothing is left of it at the end."""
    lab = Compose()
    try:
        up = lab.run("up", "-d", "--no-build", seconds=HEALTHY_DEADLINE)
        assert up.status == 0, up.out
        healthy = dict.fromkeys(SERVICES, "healthy")
        assert eventually(lambda: lab.health() == healthy, HEALTHY_DEADLINE), lab.said()
        yield lab
    finally:
        down = lab.run("down", "--volumes", "--timeout", "5")
        assert down.status == 0, down.out


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    """Look until the condition holds; return whether it did in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.25)
    return True
