"""Tells the container runtime of this host to ask felix-cni, once pods can be attached and no earlier."""

import json
from pathlib import Path

import structlog

from felix_py import durable

CONFLIST = {"cniVersion": "1.0.0", "name": "felix", "plugins": [{"type": "felix-cni"}]}

log = structlog.get_logger()


class Conflist:
    """The file in the runtime's folder of network configurations; runtimes take the first by name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done = False

    def put(self) -> None:
        """Write it, whole or not at all, where it is not there as it should be; once in the life of an agent."""
        if self._done:
            return
        self._done = True
        text = json.dumps(CONFLIST) + "\n"
        try:
            if not self._path.exists() or self._path.read_text(encoding="utf-8") != text:
                durable.write(self._path, text)
        except (OSError, UnicodeDecodeError) as error:
            log.warning("cni.conflist", reason=f"{self._path} cannot be written: {error}; mount its folder writable")
