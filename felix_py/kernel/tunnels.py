"""The tunnel devices of this node, of either kind: read back where they may have changed, made and removed by step."""

from collections.abc import Collection, Mapping
from typing import Protocol

from felix_py.kernel import ownership
from felix_py.kernel.objects import KernelRefused, Tunnel
from ipip.tunnel import DEVICE
from ipip.tunnel import Tunnel as Ipip
from vxlan.tunnel import DEVICES, Vxlan


class TunnelDevice(Protocol):
    """What carries packets of IP in IP here; `ipip.device` offers it."""

    def read(self, name: str) -> Ipip | None:
        """Return the device as it is, None where there is none."""

    def put(self, tunnel: Ipip) -> None:
        """Make the device so."""

    def delete(self, name: str) -> None:
        """Remove the device."""


class VxlanDevices(Protocol):
    """The VXLAN devices of this node; `vxlan.device` offers them."""

    def changed(self) -> bool:
        """Say whether anybody has changed one, its neighbours or its entries since this was asked last."""

    def read(self, name: str) -> Vxlan | None:
        """Return a device as it is, None where there is none."""

    def put(self, wanted: Vxlan) -> None:
        """Make a device so."""

    def delete(self, name: str) -> None:
        """Remove a device."""


class Tunnels:
    """Both kinds of devices; which one a device is of, its name tells."""

    def __init__(self, ipip: TunnelDevice, vxlan: VxlanDevices | None) -> None:
        self._ipip = ipip
        self._vxlan = vxlan
        # A tunnel that nobody wants any more is ours by its name, and has to be seen to be removed.
        self._ours = frozenset({DEVICE, *(DEVICES.values() if vxlan is not None else ())})

    def read_back(
        self, have: Mapping[str, Tunnel], want: Mapping[str, Tunnel], stale: Collection[str], *, unread: bool
    ) -> dict[str, Tunnel]:
        """Return the tunnels as they are, read where they may differ from what was read last.

        Args:
            have: what was read last, or written since.
            want: what there should be.
            stale: interfaces to which something has happened.
            unread: everything has to be read.
        """
        found = {} if unread else dict(have)
        # Packets of IP in IP may arrive by any interface but a pod's: a new one concerns it as much as its own device.
        moved = any(not ownership.is_workload_device(name) for name in stale)
        changed = self._vxlan is not None and self._vxlan.changed()
        for name in {*want, *self._ours}:
            doubtful = name in want and found.get(name) != want[name]
            if unread or doubtful or (moved if name == DEVICE else changed or name in stale):
                tunnel = self._read(name)
                found.pop(name, None)
                if tunnel is not None:
                    # Of thousands of entries that are alike, the very same ones are found to be so at once.
                    found[name] = want[name] if tunnel == want.get(name) else tunnel
        return found

    def put(self, tunnel: Tunnel) -> None:
        """Make a device so; raises what its kind refuses with."""
        if isinstance(tunnel, Vxlan):
            self._vxlans.put(tunnel)
        else:
            self._ipip.put(tunnel)

    def delete(self, name: str) -> None:
        """Remove a device; raises what its kind refuses with."""
        if name in DEVICES.values():
            self._vxlans.delete(name)
        else:
            self._ipip.delete(name)

    def _read(self, name: str) -> Tunnel | None:
        if name not in DEVICES.values():
            return self._ipip.read(name)
        return self._vxlan.read(name) if self._vxlan is not None else None

    @property
    def _vxlans(self) -> VxlanDevices:
        if self._vxlan is None:
            raise KernelRefused("nothing here makes VXLAN devices; give vxlanMode: Never")
        return self._vxlan
