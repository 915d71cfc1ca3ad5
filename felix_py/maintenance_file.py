"""Keeps what people want of BGP over restarts: `maintenance.json` of the state directory."""

from pathlib import Path

import structlog

from bgp.speaker_words import SpeakerSettings
from felix_py import durable
from felix_py.maintenance import Maintenance, decode, encode

FILE = "maintenance.json"

MODE = 0o600
"""Root alone: it is nobody else's business, and the messages are people's own words."""

log = structlog.get_logger()


class MaintenanceFile:
    """What people want now, on disk as well as far as the disk allows.

    Attributes:
        value: what holds.
        problem: why it would not survive a restart, or has not survived one, in a sentence; None where it does.
    """

    def __init__(self, directory: Path) -> None:
        """Read the file; one that is damaged is reported, and nothing is taken from it."""
        self._path = directory / FILE
        self.problem: str | None = None
        self.value = self._read()

    def put(self, value: Maintenance) -> None:
        """Let it hold from now on; where it cannot be written it holds all the same, and `problem` says so."""
        self.value = value
        try:
            durable.write(self._path, encode(value), mode=MODE)
        except OSError as error:
            self._report(f"{self._path} cannot be written: {error.strerror}; what was asked is forgotten at a restart")
        else:
            self.problem = None

    def applied(self, settings: SpeakerSettings) -> SpeakerSettings:
        """Return settings as people want them; what was asked about peers that they do not have is forgotten."""
        known = self.value.among(peer.address for peer in settings.peers)
        if known != self.value:
            self.put(known)
        return self.value.applied(settings)

    def _read(self) -> Maintenance:
        try:
            return decode(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Maintenance()
        except OSError as error:
            self._report(f"{self._path} cannot be read: {error.strerror}; no session is disabled, and nothing drains")
        except ValueError as error:  # also UnicodeDecodeError and JSONDecodeError
            why = " ".join(str(error).split())
            self._report(
                f"{self._path} is damaged ({why}); no session is disabled, and nothing drains: ask for it again"
            )
        return Maintenance()

    def _report(self, sentence: str) -> None:
        self.problem = sentence
        log.warning("datastore.fault", fault=sentence)
