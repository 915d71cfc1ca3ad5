"""What is served on the metrics address: /livez and /readyz for kubelet and people, /metrics for Prometheus."""

from collections.abc import Callable, Mapping
from time import monotonic

from felix_py.api import Handler, Page, Text
from felix_py.health import Health, Verdict, page
from felix_py.metrics import CONTENT_TYPE, Metrics

WELL, UNWELL = 200, 503
"""HTTP statuses as probes read them: anything from 400 on is a no."""


class Probes:
    """Answers for one agent; the clock is the one that its loops beat by."""

    def __init__(self, health: Health, metrics: Metrics, clock: Callable[[], float] = monotonic) -> None:
        self._health = health
        self._metrics = metrics
        self._clock = clock

    def all(self) -> Mapping[str, Handler]:
        """Return each handler by its path."""
        return {"livez": self.livez, "readyz": self.readyz, "metrics": self.metrics}

    async def livez(self, _parts: tuple[str, ...], query: Mapping[str, str]) -> Page:
        """Answer whether the agent works; `?verbose` with every check."""
        return _answer(self._health.live(self._clock()), "livez", query)

    async def readyz(self, _parts: tuple[str, ...], query: Mapping[str, str]) -> Page:
        """Answer whether pods may come; `?verbose` with every check."""
        return _answer(self._health.ready(), "readyz", query)

    async def metrics(self, _parts: tuple[str, ...], _query: Mapping[str, str]) -> Page:
        """Answer with all metrics in Prometheus' text format."""
        return WELL, Text(CONTENT_TYPE, self._metrics.text())


def _answer(verdict: Verdict, probe: str, query: Mapping[str, str]) -> Page:
    text = page(verdict, probe, verbose="verbose" in query)
    return WELL if verdict.well else UNWELL, Text("text/plain; charset=utf-8", text.encode())
