"""`felixctl diag`: everything that a bug report needs in one file, without passwords."""

import argparse
import io
import os
import sys
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path

from felix_py.ctl import client

NOTE = """\
Made by `felixctl diag` on {node} at {when}.

agent/     what the agent answers: status, routes with reasons, sessions, paths, tunnels, events
host/      what the kernel and other programs say, and `felixctl doctor`
settings/  felix.yaml and resources

Passwords were taken out: files of secrets are not here, their contents were removed wherever they occurred, and so was
the value of every field whose name says that it is secret. Addresses and names of nodes and pods are still in it: look
through it before you give it to anybody.
"""


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    text = "gather what a bug report needs in one file, without passwords; run it as root on the node itself"
    parser = commands.add_parser("diag", help=text, description=text)
    parser.add_argument("file", nargs="?", metavar="FILE", help="default felix-diag-NODE-TIME.tar.gz in this folder")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the file; return 1 when it cannot be written."""
    if options.node is not None:
        raise client.NotFound(
            "diag gathers on the host that it runs on; for a node of a lab: "
            f"felix-lab exec {options.node} felixctl diag"
        )
    from felix_py.ctl import diag_gather, redaction  # noqa: PLC0415 - YAML and more, which only this one needs

    when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    name = f"felix-diag-{os.uname().nodename}-{when}"
    file = Path(options.file or f"{name}.tar.gz")
    secrets = diag_gather.secrets()
    note = ("README", NOTE.format(node=os.uname().nodename, when=when))
    parts = ((part, redaction.redacted(text, secrets)) for part, text in (note, *diag_gather.parts(options.path)))
    try:
        count = _write(file, name, parts)
    except OSError as error:
        print(f"felixctl: {file} cannot be written: {error.strerror}; give another FILE", file=sys.stderr)
        return 1
    print(
        f"{file}: {count} parts, {file.stat().st_size >> 10} kB, passwords removed; look through it before you share it"
    )
    return 0


def _write(file: Path, folder: str, parts: Iterable[tuple[str, str]]) -> int:
    """Write an archive that only its owner can read; return how many parts it has."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)  # a file that was there keeps its own mode otherwise
    count = 0
    with os.fdopen(descriptor, "wb") as stream, tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, text in parts:
            data = text.encode()
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(data))
            count += 1
    return count
