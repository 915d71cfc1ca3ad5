"""Veths whose pods are gone: the kernel takes 20 ms to remove one, and the runtime does not wait for it.

DEL marks the interface, and a thread removes all that are marked together, which takes as long as a single one. The
mark stands on the interface, so that an agent that is killed in between leaves nothing that the next one does not know.
"""

import errno
import threading

import structlog

from felix_py.kernel import link_changes, links
from felix_py.kernel.links import LinkRefused

log = structlog.get_logger()


class Graves:
    """Removes marked veths in a thread, which stays in the network namespace of the thread that makes this."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._waiting = self._closed = False
        self._thread = threading.Thread(target=self._work, name="graves", daemon=True)
        self._thread.start()

    def dig(self) -> None:
        """Say that an interface was marked; return at once."""
        with self._news:
            self._waiting = True
            self._news.notify()

    def close(self) -> None:
        """Remove what is marked, and end."""
        with self._news:
            self._closed = True
            self._news.notify()
        self._thread.join()

    def _work(self) -> None:
        while self._next():
            try:
                bury()
            except (LinkRefused, OSError) as refusal:
                log.warning("cni.refused", reason=f"interfaces of pods that are gone stay: {refusal}")

    def _next(self) -> bool:
        """Wait until there is something to do; say whether there is."""
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._closed)
            waiting, self._waiting = self._waiting, False
            return waiting


def mark(host_interface: str) -> None:
    """Mark a veth to be removed; one that is gone is done.

    Raises:
        LinkRefused: when the kernel does not let us.
    """
    with links.open_socket() as sock:
        try:
            links.carry_out(sock, [link_changes.doom(host_interface)])
        except LinkRefused as refusal:
            if refusal.code != errno.ENODEV:
                raise


def bury() -> None:
    """Remove every marked veth, and with each the pod's end and its routes; returns when they are gone.

    Raises:
        LinkRefused: when the kernel does not let us.
    """
    with links.open_socket() as sock:
        try:
            links.carry_out(sock, [link_changes.delete_doomed()])
        except LinkRefused as refusal:
            if refusal.code != errno.ENODEV:
                raise
