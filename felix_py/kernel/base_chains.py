"""The chains of everybody's packet filters that the kernel calls, read out of what `nft list ruleset` prints; pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

BASE_CHAIN = re.compile(r"type filter hook (\w+) priority [^;]+; policy (\w+);")


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of a packet filter that the kernel calls: whose, where, what happens to what no rule decides."""

    table: str
    name: str
    hook: str
    policy: str
    rules: str = ""

    def __str__(self) -> str:
        """Name it as nft and iptables users know it."""
        return f"{self.table} {self.name}"

    @property
    def lines(self) -> tuple[str, ...]:
        """The rules, one each."""
        return tuple(line for line in self.rules.splitlines() if line and not line.startswith("type filter hook "))


def chains_of(ruleset: str) -> Iterator[Chain]:
    """Yield the base chains of a ruleset as `nft list ruleset` prints it, each with its own rules."""
    table = name = ""
    lines: list[str] = []
    for line in ruleset.splitlines():
        if line.startswith("table "):
            table = line.removeprefix("table ").removesuffix(" {")
        elif line.startswith("\tchain "):
            name, lines = line.removeprefix("\tchain ").removesuffix(" {"), []
        elif line == "\t}" and name:
            found = BASE_CHAIN.search("\n".join(lines))
            if found is not None:
                yield Chain(table, name, found[1], found[2], "\n".join(lines))
            name = ""
        else:
            lines.append(line.strip())
