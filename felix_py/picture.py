"""What the last turn of the loop saw and did, as far as others ask for it; routes are asked of the engine itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from felix_py.calc.desired import Desired
from felix_py.kernel.objects import KernelState, Link


@dataclass(frozen=True, slots=True)
class Picture:
    """The last turn.

    Attributes:
        desired: the wish, with the reason for each route.
        have: tunnels and parameters as they are.
        problems: what was refused, one sentence each.
    """

    desired: Desired = field(default_factory=Desired)
    have: KernelState = field(default_factory=KernelState)
    links: Mapping[str, Link] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
