"""How the lab speaks: headings, ticks, colour on a terminal, plain text when piped; and a picture of the topology."""

import os
import sys
from collections.abc import Iterable, Sequence

from felix_py.lab.topology import Topology

COLOURS = {"good": "32", "bad": "31", "dim": "2", "bold": "1", "command": "36"}
"""ANSI codes (ECMA-48, select graphic rendition) by meaning."""


def colour_wanted() -> bool:
    """Say whether colours are: on a terminal, unless NO_COLOR (no-color.org) or TERM=dumb forbid."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def plain() -> bool:
    """Say whether the output can hold only ASCII."""
    return not (sys.stdout.encoding or "").lower().startswith("utf")


def paint(text: str, meaning: str) -> str:
    """Colour text by meaning, where colours are wanted."""
    return f"\x1b[{COLOURS[meaning]}m{text}\x1b[0m" if colour_wanted() else text


def say(text: str = "", meaning: str | None = None) -> None:
    """Print at once, also into a pipe."""
    if plain():
        text = text.translate(ASCII)
    print(paint(text, meaning) if meaning else text, flush=True)


ASCII = str.maketrans("✓✗·─│├└┌┐┬→", "oX.-|+`+++>")
"""What is drawn where the output can hold only ASCII."""


def heading(text: str) -> None:
    """Begin a part."""
    say()
    say(text, "bold")


def command(words: Sequence[str] | str) -> None:
    """Show a command before its output."""
    say(f"$ {words if isinstance(words, str) else ' '.join(words)}", "command")


def tick(text: str) -> None:
    """Say that something is proved."""
    say(f"✓ {text}", "good")


def cross(text: str) -> None:
    """Say that something is not as it should be."""
    say(f"✗ {text}", "bad")


def output(text: str, limit: int = 12) -> None:
    """Show what a command printed, the middle left out where it is long."""
    lines = text.rstrip().splitlines()
    if len(lines) > limit:
        kept = limit - 2
        lines = [*lines[:kept], f"... {len(lines) - kept - 1} more lines ...", lines[-1]]
    for line in lines:
        say(f"  {line}")


def picture(topology: Topology) -> str:
    """Draw the topology: routers above, a column for each network, what hangs on it below."""
    columns = [_column(topology, position) for position in range(len(topology.networks))]
    widths = [max(map(len, column)) for column in columns]
    height = max(map(len, columns), default=0)
    rows = [
        "    ".join(
            (column[row] if row < len(column) else "").ljust(width)
            for column, width in zip(columns, widths, strict=True)
        ).rstrip()
        for row in range(height)
    ]
    starts = [sum(widths[:position]) + 4 * position for position in range(len(widths))]
    return "\n".join([*_routers(topology, starts), *rows])


def _routers(topology: Topology, starts: Sequence[int]) -> list[str]:
    """Draw each router with a line down to each network that it has an address in."""
    lines = []
    for router in topology.routers:
        title = f"{router.name}  router, {router.daemon.upper()}, AS {router.as_number}"
        at = [starts[place] for place, network in enumerate(topology.networks) if network.name in router.addresses]
        if not at:
            lines.append(title)
            continue
        rail = ["─"] * (at[-1] - at[0] + 1)
        for place in at:
            rail[place - at[0]] = "┬"
        if len(rail) > 1:
            rail[0], rail[-1] = "┌", "┐"
        middle = at[0] + max(0, (len(rail) - len(title)) // 2)
        lines += [" " * middle + title, " " * at[0] + "".join(rail)]
    return lines


def _column(topology: Topology, position: int) -> list[str]:
    network = topology.networks[position]
    lines = [f"│ {network.name}  {_words(network.cidrs)}"]
    for machine in topology.machines:
        if machine.network != network.name:
            continue
        node = topology.node(machine.name)
        reflector = topology.reflector(machine.name)
        role = f"  route reflector, {reflector.daemon.upper()}" if reflector else ""
        lines.append(f"├─ {machine.name}  {_words(machine.ends)}{role}")
        if node is not None:
            blocks = _words(node.blocks) or "claims its blocks"
            lines.append(f"│    {blocks}  {node.pods} pods")
    last = next((place for place in reversed(range(len(lines))) if lines[place].startswith("├")), None)
    if last is not None:
        lines[last] = lines[last].replace("├", "└", 1)
        lines[last + 1 :] = [line.replace("│", " ", 1) for line in lines[last + 1 :]]
    return lines


def _words(values: Iterable[object]) -> str:
    return " ".join(map(str, values))
