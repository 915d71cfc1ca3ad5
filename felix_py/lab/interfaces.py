"""The interfaces that a container engine gave a machine, made what the topology says they are."""

from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING

from felix_py.lab import network, plan
from felix_py.lab.state import Refused
from felix_py.lab.topology import Machine, Router, Topology

if TYPE_CHECKING:
    from pyroute2 import IPRoute


def arrange(topology: Topology, machine: Router | Machine) -> None:
    """Name each interface as it is named in a namespace lab, and route as there; the engine's own way out is closed.

    Raises:
        Refused: when an address that the topology gives the machine is on no interface here.
    """
    from pyroute2 import IPRoute  # noqa: PLC0415 - 0.15 s that no health check needs to spend

    with IPRoute() as kernel:
        for name, address in _wanted(machine):
            _name(kernel, name, address)
        closed = [plan.NoRoute(plan.DEFAULT_ROUTE) for _ in kernel.get_default_routes(family=network.FAMILIES[4])]
        for step in (*closed, *plan.machines(topology)[machine.name]):
            network.do(kernel, step)


def _wanted(machine: Router | Machine) -> Iterator[tuple[str, IPv4Address]]:
    """Yield the interfaces of a machine by name, each with its address."""
    if isinstance(machine, Router):
        yield from ((name, address.ip) for name, address in machine.addresses.items())
    else:
        yield plan.UPLINK, machine.address.ip


def _name(kernel: "IPRoute", name: str, address: IPv4Address) -> None:
    found = next((row for row in kernel.get_addr(family=2) if ip_address(row.get_attr("IFA_ADDRESS")) == address), None)
    if found is None:
        raise Refused(f"has no interface with {address}; the compose file must give it this address in {name}")
    index = found["index"]
    old = kernel.get_links(index)[0].get_attr("IFLA_IFNAME")
    if old != name:
        kernel.link("set", index=index, state="down")
        kernel.link("set", index=index, ifname=name)
        kernel.link("set", index=index, state="up")
