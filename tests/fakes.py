"""What tests give the agent instead of a kernel: a host in memory, and the tunnels and parameters that are on it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from fake_host import GONE, OURS, SOMEBODY, FakeHost

from felix_py.kernel.filter_table import FilterTable
from felix_py.kernel.objects import KernelRefused, Link
from ipip.tunnel import Tunnel

__all__ = ["GONE", "OURS", "SOMEBODY", "FakeFilter", "FakeHost", "FakeParameters", "FakeTunnels"]


@dataclass
class FakeTunnels:
    """Makes tunnel devices on a fake host; `felix_py.kernel.netlink.TunnelDevice` in memory.

    Attributes:
        refusal: the sentence with which everything is refused; None carries it out.
    """

    host: FakeHost
    refusal: str | None = None

    def read(self, name: str) -> Tunnel | None:
        """Return the tunnel as it is."""
        return self.host.tunnels.get(name)

    def put(self, tunnel: Tunnel) -> None:
        """Make the tunnel so: a link of its name is there afterwards."""
        self._refuse()
        name = tunnel.name
        if name not in self.host.indexes:
            self.host.add_link(Link(name, 0, tunnel.mtu, up=False, running=False))
        addresses = frozenset({f"{tunnel.address}/32"} if tunnel.address else ())
        for address in self.host.link(name).addresses - addresses:
            self.host.delete_address(name, address)
        for address in addresses - self.host.link(name).addresses:
            self.host.add_address(name, address)
        if (self.host.link(name).up, self.host.link(name).mtu) != (tunnel.up, tunnel.mtu):
            self.host.set_link(name, up=tunnel.up, mtu=tunnel.mtu)
        self.host.tunnels[name] = tunnel

    def delete(self, name: str) -> None:
        """Remove the tunnel and its link."""
        self._refuse()
        if self.host.tunnels.pop(name, None) is not None:
            self.host.delete_link(name)

    def _refuse(self) -> None:
        if self.refusal is not None:
            raise KernelRefused(self.refusal)


@dataclass
class FakeFilter:
    """Holds our nftables table in memory; `felix_py.kernel.nftables` in memory.

    Attributes:
        refusal: the sentence with which every write is refused; None carries it out.
        others_changes: whether somebody else has changed it since it was read.
        written: what was written, in order.
    """

    table: FilterTable | None = None
    refusal: str | None = None
    others_changes: bool = False
    written: list[FilterTable | None] = field(default_factory=list)

    def changed(self) -> bool:
        return self.others_changes

    def changed_by(self) -> str:
        return "process 7 (nft)"

    def read(self) -> FilterTable | None:
        self.others_changes = False
        return self.table

    def write(self, want: FilterTable | None, have: FilterTable | None) -> None:
        if self.refusal is not None:
            raise KernelRefused(self.refusal)
        assert have == self.table, "what was to be replaced is not what stands there"
        self.table = want
        self.written.append(want)

    def flush(self) -> None:
        """Somebody else removes it."""
        self.table, self.others_changes = None, True


@dataclass
class FakeParameters:
    """Reads and writes parameters of a fake host; `felix_py.kernel.sysctl` in memory.

    Attributes:
        refused: paths that cannot be written.
        written: what was written, in order.
    """

    host: FakeHost
    refused: set[str] = field(default_factory=set)
    written: list[tuple[str, str]] = field(default_factory=list)

    def read(self, paths: Iterable[str]) -> dict[str, str]:
        """Return the value of each parameter that exists; those of interfaces that are gone do not."""
        return {path: self.host.sysctls.get(path, "0") for path in paths if self._exists(path)}

    def write(self, path: str, value: str) -> None:
        """Set one parameter; of an interface that is gone, nothing happens."""
        self.written.append((path, value))
        if path in self.refused:
            raise KernelRefused(f"{path} cannot be set to {value}: Read-only file system")
        if self._exists(path):
            self.host.change_parameter(path, value)

    def _exists(self, path: str) -> bool:
        _, of_interface, rest = path.partition("/conf/")
        name = rest.partition("/")[0]
        return not of_interface or name in {"all", "default", *self.host.indexes}
