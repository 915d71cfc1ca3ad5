"""Namespaces, bridges and cables made and removed, by pyroute2; nothing ever stands in the host's own namespace."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from felix_py.lab import interrupts, namespaces, plan
from felix_py.lab.state import Lab, Refused
from felix_py.lab.topology import Topology

if TYPE_CHECKING:  # 0.15 s that only commands which change the network need to spend
    from pyroute2 import IPRoute

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

IFA_F_NODAD = 0x02
"""An address is usable at once: the file says that nobody else has it. include/uapi/linux/if_addr.h."""

DEADLINE = 5.0
"""Seconds that killed processes may take to be gone."""


def build(lab: Lab, topology: Topology) -> None:
    """Make all namespaces, switches and cables, and give every machine its addresses."""
    from pyroute2 import netns  # noqa: PLC0415 - see above

    for name in plan.namespaces(lab.name, topology):
        with interrupts.held():  # pyroute2 has a process do it, which would end its work after ours
            netns.create(name)
    for router in topology.routers:
        with interrupts.held(), namespaces.inside(lab.namespace(router.name)):
            for parameter, value in plan.router_parameters(router):
                Path("/proc/sys", parameter).write_text(value)
    for scripts in (
        plan.switches(topology),
        plan.cables(lab.name, topology),
        plan.machines(topology),
        dict.fromkeys(topology.pods, (plan.Set("lo"),)),
    ):
        for name, steps in scripts.items():
            run(lab, name, *steps)


def run(lab: Lab, name: str, *steps: plan.Step) -> None:
    """Do steps in the namespace of a machine or network.

    Raises:
        Refused: with the step that the kernel did not take, and its reason.
    """
    from pyroute2 import IPRoute, NetlinkError  # noqa: PLC0415 - see above

    with interrupts.held(), namespaces.inside(lab.namespace(name)), IPRoute() as kernel:
        for step in steps:
            try:
                do(kernel, step)
            except NetlinkError as error:
                raise Refused(
                    f"the kernel refused {step} in {lab.namespace(name)}: {os.strerror(error.code)}"
                ) from error


def do(kernel: "IPRoute", step: plan.Step) -> None:
    """Do one step where the kernel's socket was opened."""
    match step:
        case plan.Bridge(device):
            kernel.link("add", ifname=device, kind="bridge", br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0)
        case plan.Cable(port, interface, namespace):
            kernel.link("add", ifname=port, kind="veth", peer={"ifname": interface, "net_ns_fd": namespace})
            kernel.link("set", index=_index(kernel, port), master=_index(kernel, plan.SWITCH), state="up")
        case plan.Set(device, up):
            kernel.link("set", index=_index(kernel, device), state="up" if up else "down")
        case plan.Address(device, address):
            broadcast = {"broadcast": str(address.network.broadcast_address)} if address.version == 4 else {}  # noqa: PLR2004
            kernel.addr(
                "replace",
                index=_index(kernel, device),
                family=FAMILIES[address.version],
                address=str(address.ip),
                prefixlen=address.network.prefixlen,
                flags=0 if broadcast else IFA_F_NODAD,
                **broadcast,
            )
        case plan.Route(destination, gateway):
            family = FAMILIES[destination.version]
            kernel.route("replace", family=family, dst=str(destination), gateway=str(gateway), proto="boot")
        case plan.NoRoute(destination):
            kernel.route("del", family=FAMILIES[destination.version], dst=str(destination))
        case _:
            assert_never(step)


def _index(kernel: "IPRoute", device: str) -> int:
    return int(kernel.link_lookup(ifname=device)[0])


def demolish(lab: Lab) -> tuple[str, ...]:
    """Kill every process of the lab and remove its namespaces; safe to repeat; return the names that went."""
    from pyroute2 import netns  # noqa: PLC0415 - see above

    gone: set[str] = set()
    for supervisor in _supervisors(lab):  # first: they start daemons anew
        kill(supervisor)
    while names := namespaces.named(lab.prefix):
        kill_all(names)
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # somebody else removed it meanwhile
                netns.remove(name)
        gone.update(names)
    return tuple(sorted(gone))


def _supervisors(lab: Lab) -> Iterator[int]:
    """Find the lab's supervisors by their command line: one that was just started is in no namespace of ours yet."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "felix_py.lab.supervisor" in words and any(word.startswith(lab.prefix) for word in words):
                yield int(process.name)


def kill_all(names: tuple[str, ...], spared: Collection[int] = ()) -> None:
    """Kill what lives in these namespaces until nothing does."""
    deadline = time.monotonic() + DEADLINE
    while living := namespaces.processes(names).keys() - {*spared, os.getpid()}:
        for process in living:
            kill(process)
        if time.monotonic() > deadline:
            raise Refused(f"processes {sorted(living)} do not die; look at them with ps, then repeat")
        time.sleep(0.01)


def kill(process: int) -> None:
    """Kill one process; that it is gone already is what we want."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
