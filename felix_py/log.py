"""Logging, set up once: structlog events from a fixed list, JSON for machines or a console for people."""

import logging
import sys

import structlog

EVENTS = frozenset(
    {
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
        "endpoint.put",
        "endpoint.removed",
        "link.changed",
        "resync.done",
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
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
