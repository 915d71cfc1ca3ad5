"""Logging, set up once: structlog events from a fixed list, JSON for machines or a console for people."""

import contextlib
import logging
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, TextIO, TypeAlias, cast

import structlog

EVENTS = frozenset(
    {
        "agent.failed",
        "agent.started",
        "agent.stopped",
        "agent.in_sync",
        "api.rubbish",
        "bgp.child.exited",
        "bgp.child.started",
        "bgp.next_hop.reachable",
        "bgp.next_hop.unreachable",
        "bgp.next_hops.changed",
        "bgp.path.refused",
        "bgp.prefixes.many",
        "bgp.node.asked",
        "bgp.session.asked",
        "bgp.session.down",
        "bgp.session.up",
        "bgp.update.malformed",
        "cni.added",
        "cni.conflist",
        "cni.deleted",
        "cni.refused",
        "conntrack.absent",
        "conntrack.purged",
        "conntrack.refused",
        "datastore.away",
        "datastore.back",
        "datastore.fault",
        "datastore.loaded",
        "guard.chosen",
        "guard.delete",
        "guard.put",
        "ipam.address.released",
        "ipam.block.claimed",
        "ipam.block.released",
        "journal.refused",
        "kernel.broken",
        "kernel.events_lost",
        "kernel.recovered",
        "kernel.resync",
        "link.changed",
        "link.put",
        "metrics.refused",
        "mtu.refused",
        "netfilter.delete",
        "netfilter.put",
        "next_hop.delete",
        "next_hop.put",
        "node.address",
        "node.announced",
        "route.calm",
        "route.conflict",
        "route.contested",
        "route.delete",
        "route.put",
        "route.repaired",
        "routes.delete",
        "routes.put",
        "step.refused",
        "sysctl.put",
        "tunnel.delete",
        "tunnel.driver",
        "tunnel.put",
    }
)
"""Every event that the agent logs; dashboards and alerts may rely on them."""

Observer: TypeAlias = Callable[[Mapping[str, Any]], None]
"""Is shown every event of any level, in the thread that logs it: `event` holds the name, all else are fields."""

FIRST = ("timestamp", "level", "event")
"""Fields that stand first in every line, where eyes and `cut` look for them."""


class Unfailing:
    """Standard error for a logger: a full disk or a closed pipe behind it costs lines, never the network."""

    def write(self, text: str) -> None:
        """Write, if it can be written."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Flush, if it can be flushed."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def set_up(*, log_format: str, level: str, observers: Sequence[Observer] = ()) -> None:
    """Send every event of this level or above to standard error, one line each, time first; may be called again.

    Args:
        log_format: `json` or `console`.
        level: of the least event that is written, as `info`.
        observers: are shown all events, also those below `level`; they must not raise.
    """
    least = logging.getLevelNamesMapping()[level.upper()]
    renderer = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            *([_shown_to(tuple(observers)), _dropped_below(least)] if observers else []),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _in_order,
            renderer,
        ],
        # With an observer the logger lets everything in, and the second processor drops before anything is rendered.
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET if observers else least),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", Unfailing())),
    )


def _shown_to(observers: tuple[Observer, ...]) -> structlog.typing.Processor:
    def show(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for observer in observers:
            observer(event)
        return event

    return show


def _dropped_below(least: int) -> structlog.typing.Processor:
    dropped = frozenset(name.lower() for name, value in logging.getLevelNamesMapping().items() if value < least)

    def drop(_logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if method in dropped:
            raise structlog.DropEvent
        return event

    return drop


def _in_order(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    first = {name: event[name] for name in FIRST if name in event}
    return first | {name: value for name, value in event.items() if name not in first}
