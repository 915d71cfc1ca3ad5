"""What each log event tells an operator of a change: about what, what happened, and why; one table."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

Fields: TypeAlias = Mapping[str, Any]
"""The fields of a log event."""


class Told(NamedTuple):
    """A change in words; `cause` is empty where nobody knows it."""

    subject: str
    what: str
    cause: str


class Template:
    """Text with `{fields}`, in pieces between bars; a piece that lacks a field is left out, and the others stay."""

    def __init__(self, text: str) -> None:
        self._pieces = tuple((piece, tuple(re.findall(r"{(\w+)}", piece))) for piece in text.split("|"))

    @property
    def fields(self) -> frozenset[str]:
        """Every field that the text may show."""
        return frozenset(name for _, names in self._pieces for name in names)

    def __call__(self, fields: Fields) -> str:
        """Fill the text in."""
        return "".join(
            piece.format_map(fields)
            for piece, names in self._pieces
            if all(fields.get(name) not in (None, "") for name in names)
        )


def _always(_fields: Fields) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Row:
    """How one event is told.

    Attributes:
        usually: the cause where the event names none.
        matters: says whether these fields tell of a change at all.
    """

    subject: Template
    what: Template
    cause: Template
    usually: str = ""
    matters: Callable[[Fields], bool] = _always


def _row(
    subject: str, what: str, cause: str = "{cause}", usually: str = "", matters: Callable[[Fields], bool] = _always
) -> Row:
    return Row(Template(subject), Template(what), Template(cause), usually, matters)


def _any(name: str) -> Callable[[Fields], bool]:
    """Say whether the field counts anything; an event that lacks it matters."""
    return lambda fields: fields.get(name, 1) != 0


def _not_by_the_clock(fields: Fields) -> bool:
    """Say whether something asked for it; what is read back every minute tells of no change."""
    return fields.get("cause") != "resync"


TABLE: Mapping[str, Row] = {
    "agent.started": _row("agent", "started|, version {version}|, process {pid}"),
    "agent.in_sync": _row("agent", "in sync|, {resources} resources"),
    "agent.failed": _row("agent", "ended by a bug", "{reason}"),
    "agent.stopped": _row("agent", "stopped"),
    "bgp.child.started": _row("ExaBGP", "started|, process {pid}"),
    "bgp.child.exited": _row("ExaBGP", "exited|, started again in {respawn_in} s", "{reason}"),
    "bgp.session.up": _row("{peer}| ({name})", "session established|, AS {asn}"),
    "bgp.session.asked": _row("{peer}", "{verb} asked for|: {message}", usually="felixctl"),
    "bgp.node.asked": _row("BGP", "{verb} asked for|: {message}", usually="felixctl"),
    "bgp.session.down": _row("{peer}| ({name})", "session lost|, {kept} paths kept", "{reason}"),
    "bgp.prefixes.many": _row("{peer}", "{prefixes} prefixes|, {maximum} are allowed"),
    "bgp.update.malformed": _row("{peer}", "UPDATE malformed", "{reason}"),
    "bgp.next_hop.reachable": _row("next hop {next_hop}", "can be reached again|, by {device}"),
    "bgp.next_hop.unreachable": _row("next hop {next_hop}", "cannot be reached", "{reason}"),
    "bgp.next_hops.changed": _row("next hops", "{unreachable} cannot be reached any more, {reachable} can be again"),
    "bgp.path.refused": _row("{prefix}", "path| of {peer}| refused", "{reason}"),
    "cni.added": _row("{pod}", "attached|, {address}|, {interface}", usually="CNI ADD"),
    "cni.deleted": _row("{pod}", "detached", "CNI {cause}", usually="CNI DEL"),
    "cni.refused": _row("{pod}", "CNI| {command}| refused", "{reason}"),
    "cni.conflist": _row("network configuration", "not written", "{reason}"),
    "conntrack.absent": _row("kernel", "connection tracking is not reachable", "{reason}"),
    "conntrack.purged": _row(
        "{address}", "{entries} tracked connections forgotten", usually="address left", matters=_any("entries")
    ),
    "conntrack.refused": _row("{address}", "tracked connections not forgotten", "{reason}"),
    "datastore.away": _row("datastore", "cannot be asked for {kind}", "{reason}"),
    "datastore.back": _row("datastore", "answers again|, at {server}"),
    "datastore.loaded": _row(
        "{directory}", "{changed} resources changed|, {resources} in force", usually="file edited"
    ),
    "datastore.fault": _row("resources", "refused", "{fault}"),
    "ipam.address.released": _row("{address}", "taken back| from {holder}"),
    "ipam.block.claimed": _row("block {block}", "claimed|, of IPPool {pool}"),
    "ipam.block.released": _row("block {block}", "given up|, of node {node}", usually="not in use"),
    "guard.chosen": _row("pods' interfaces", "guarded by {guard}", "{reason}"),
    "guard.put": _row("pods' interfaces", "guarded|: {what}"),
    "guard.delete": _row("pods' interfaces", "programs removed"),
    "journal.refused": _row("journal", "not kept on disk", "{reason}"),
    "kernel.broken": _row("kernel", "cannot be asked", "{reason}"),
    "kernel.recovered": _row("kernel", "answers again|, after {seconds} s"),
    "kernel.events_lost": _row("kernel", "events lost, everything is read again", usually="buffer ran over"),
    "kernel.resync": _row("kernel", "everything read back|, in {seconds} s", matters=_not_by_the_clock),
    "link.changed": _row("{device}", "{what}"),
    "link.put": _row("{device}", "MTU set to {mtu}"),
    "metrics.refused": _row("{address}", "metrics are not served", "{reason}"),
    "mtu.refused": _row("MTU of pods", "not written for others", "{reason}"),
    "netfilter.put": _row("nftables table {table}", "set|: {what}"),
    "netfilter.delete": _row("nftables table {table}", "removed"),
    "next_hop.put": _row("next hop {id}", "installed|: {hop}|, was {was}"),
    "next_hop.delete": _row("next hop {id}", "removed|: {hop}"),
    "node.address": _row("{address}", "is this node's address"),
    "node.announced": _row("Node {node}", "told to the API server|, network available: {available}"),
    "route.put": _row("{dst}", "installed|: {route}|, was {was}"),
    "route.repaired": _row("{dst}", "repaired|: {route}|, was {was}"),
    "route.delete": _row("{dst}", "removed|: {route}"),
    "route.conflict": _row("{dst}", "not installed", "{reason}"),
    "route.contested": _row("{dst}", "changed by somebody else|, {changes} times", "{by}"),
    "route.calm": _row("{dst}", "no longer contested"),
    "routes.put": _row("{count} routes", "installed|, {repaired} of them repaired"),
    "routes.delete": _row("{count} routes", "removed"),
    "step.refused": _row("kernel", "refused a change", "{reason}"),
    "sysctl.put": _row("{path}", "set to {value}"),
    "tunnel.driver": _row("tunnel", "carried by {driver}", "{reason}"),
    "tunnel.put": _row("{device}", "tunnel set up|, local {local}|, MTU {mtu}"),
    "tunnel.delete": _row("{device}", "tunnel removed"),
}
"""Event: subject, what, and cause as templates of its fields."""

NO_CHANGE = frozenset({"api.rubbish"})
"""Events that tell of no change of the network."""


def tell(event: str, fields: Fields) -> Told | None:
    """Put an event into words; None where it tells of no change."""
    row = TABLE.get(event)
    if row is None or not row.matters(fields):
        return None
    return Told(row.subject(fields), row.what(fields), row.cause(fields) or row.usually)
