"""`felix-lab demo`: a lab brought up, what it should do proved step by step, and everything taken down again."""

import time
from pathlib import Path

from felix_py.lab import interrupts, lifecycle, proofs, screen
from felix_py.lab.namespaces import named
from felix_py.lab.proofs import NotProved, Stage
from felix_py.lab.state import Lab, Refused
from felix_py.lab.topology import Topology


def run(lab: Lab, source: Path, topology: Topology) -> int:
    """Show it all; return 0 when everything was proved.

    The caller holds the lab and is deferring what interrupts; nothing of the lab is left afterwards.

    Raises:
        Refused: when the lab is up already, or does not come up.
    """
    lifecycle.refuse_second(lab)
    start = time.monotonic()
    try:
        _introduce(topology)
        timings = lifecycle.up(lab, source, topology)
        with interrupts.allowed():
            screen.tick(
                f"all sessions established, all pods attached, everything in sync after {timings.converged:.1f} s"
            )
            failed = _prove_all(lab, topology)
    finally:
        began = time.monotonic()
        gone = lifecycle.down(lab)
    failed += _nothing_left(lab, len(gone), time.monotonic() - began)
    screen.say()
    for title in failed:
        screen.cross(f"not proved: {title}")
    if not failed:
        screen.tick(f"everything proved in {time.monotonic() - start:.1f} s")
    return 1 if failed else 0


def _introduce(topology: Topology) -> None:
    screen.say(screen.picture(topology))
    screen.heading("The lab comes up")
    screen.say(
        f"  {len(topology.nodes)} nodes with felix-agent, AS {topology.bgp.as_number}; "
        f"{len(topology.pods)} pods, attached by felix-cni as a container runtime would"
    )


def _prove_all(lab: Lab, topology: Topology) -> list[str]:
    """Go through the proofs; return the titles of those that failed."""
    stage = proofs.stage(lab, topology)
    if stage is None:
        raise Refused("no node of this topology has a pod; give one `pods: 1`")
    return [title for number, (title, _) in enumerate(proofs.PROOFS, 1) if not _prove(stage, number)]


def _prove(stage: Stage, number: int) -> bool:
    title, prove = proofs.PROOFS[number - 1]
    screen.heading(f"{number}. {title}")
    start = time.monotonic()
    try:
        found = prove(stage)
    except (NotProved, Refused) as failure:
        screen.cross(f"{failure}")
        return False
    screen.tick(f"{found} ({time.monotonic() - start:.1f} s)")
    return True


def _nothing_left(lab: Lab, namespaces: int, seconds: float) -> list[str]:
    screen.heading("The lab is taken down")
    left = [*named(lab.prefix), *([str(lab.directory)] if lab.directory.exists() else [])]
    if left:
        screen.cross(f"left behind: {', '.join(left)}")
        return ["the lab is taken down"]
    screen.tick(f"{namespaces} namespaces and everything in them removed in {seconds:.1f} s; nothing is left")
    return []
