"""A second tunnel that carries packets while one driver gives way to another, so that none is lost.

One of the two devices has to leave the name before the other can have it, and an interface that changes its name goes
down before Linux 6.2, with all of its routes. So neither is renamed: a tunnel of another name stands between.
"""

from dataclasses import replace

from ipip import ebpf, links, routes
from ipip.ebpf import Ebpf
from ipip.shape import shape
from ipip.tunnel import Tunnel

ENDING = "-sub"
"""What the substitute is called besides: `tunl0-sub` is seen for a second, and longer where the new driver fails."""


class Substitute:
    """A tunnel of the ebpf driver, which needs no process, and takes packets before any other driver sees them.

    So no packet arrives twice, once by each of two drivers. Where the kernel takes no BPF programs there is none.
    """

    def __init__(self) -> None:
        self._driver = Ebpf()

    @staticmethod
    def stands(name: str) -> bool:
        """Say whether there is one, as long as a change lasts or after one that was cut off."""
        return links.read(name + ENDING) is not None

    def stand_in(self, tunnel: Tunnel, index: int) -> None:
        """Carry what a tunnel carries, and lead its routes out of the substitute.

        Args:
            tunnel: as it is wanted.
            index: of its device.
        """
        if ebpf.unusable() is not None:
            return
        ours = replace(tunnel, name=tunnel.name + ENDING)
        self._driver.put(ours)
        shape(ours)
        link = links.read(ours.name)
        if link is not None:
            routes.move(index, link.index)

    def hand_over(self, name: str) -> None:
        """Lead the routes out of the tunnel that stands by now, and go; nothing where there is no substitute."""
        substitute, standing = links.read(name + ENDING), links.read(name)
        if substitute is not None and standing is not None and standing.up:
            routes.move(substitute.index, standing.index)
        self.delete(name)

    def delete(self, name: str) -> None:
        """Remove the substitute; one that is gone already counts as done."""
        if self.stands(name):
            self._driver.delete(name + ENDING)
