"""What happens to sessions and paths, as log events."""

import structlog

from bgp.speaker_words import ManyPrefixes, PathsRefused, SessionDown, SessionUp
from bgp.types import UpdateFaulty

REMEMBERED = 10_000
"""Refused paths and malformed UPDATEs that are not logged again; beyond that they are, before they fill the memory."""

log = structlog.get_logger()


class SessionLog:
    """Logs once what a peer may say again and again."""

    def __init__(self) -> None:
        self._told: set[tuple[object, ...]] = set()

    def note(self, effect: SessionUp | SessionDown | PathsRefused | ManyPrefixes) -> None:
        """Log what the speaker says of a session."""
        match effect:
            case SessionUp(peer):
                log.info("bgp.session.up", peer=str(peer.address), name=peer.name, asn=peer.asn)
            case SessionDown(peer, reason, kept):
                log.warning("bgp.session.down", peer=str(peer.address), name=peer.name, reason=reason, kept=kept)
            case PathsRefused(address, prefixes, refusal):
                if self._first_time(address, prefixes[0], refusal):
                    first, reason = str(prefixes[0]), str(refusal)
                    log.info("bgp.path.refused", prefix=first, prefixes=len(prefixes), peer=str(address), reason=reason)
            case ManyPrefixes(peer, count, limit):
                log.warning("bgp.prefixes.many", peer=str(peer.address), prefixes=count, maximum=limit.maximum)

    def malformed(self, fault: UpdateFaulty) -> None:
        """Log an UPDATE that was not as RFC 4271 and RFC 7606 want it."""
        if self._first_time(fault.peer, fault.sentence):
            log.warning("bgp.update.malformed", peer=str(fault.peer), reason=fault.sentence)

    def _first_time(self, *what: object) -> bool:
        if what in self._told:
            return False
        if len(self._told) >= REMEMBERED:
            self._told.clear()
        self._told.add(what)
        return True
