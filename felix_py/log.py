"""Logging, set up once: structlog events from a fixed list, JSON for machines or a console for people."""

import contextlib
import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO, cast

import structlog

EVENTS = frozenset(
    {
        "agent.failed",
        "agent.started",
        "agent.stopped",
        "agent.in_sync",
        "agent.refused",
        "api.rubbish",
        "bgp.child.exited",
        "bgp.child.started",
        "bgp.path.refused",
        "bgp.session.down",
        "bgp.session.up",
        "cni.added",
        "cni.deleted",
        "cni.refused",
        "datastore.fault",
        "datastore.loaded",
        "route.conflict",
        "route.delete",
        "route.put",
        "route.repaired",
        "step.refused",
        "sysctl.put",
        "tunnel.delete",
        "tunnel.driver",
        "tunnel.put",
    }
)
"""Every event that the agent logs; dashboards and alerts may rely on them."""


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


def set_up(*, log_format: str, level: str) -> None:
    """Send every event to standard error, one line each, time first."""
    renderer = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _in_order,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", Unfailing())),
    )


def _in_order(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    first = {name: event[name] for name in FIRST if name in event}
    return first | {name: value for name, value in event.items() if name not in first}
