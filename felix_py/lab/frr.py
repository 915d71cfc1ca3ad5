"""Runs FRR where its own service manager is not: zebra beside, then this process becomes bgpd.

`python -m felix_py.lab.frr` in a machine's namespaces. What /etc/frr/frr.conf says is told to both by `vtysh -b`, just
as FRR's own start script does once its daemons answer.
"""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

ZEBRA, BGPD = Path("/usr/lib/frr/zebra"), Path("/usr/lib/frr/bgpd")
RUN = Path("/run/frr")

COMMON = ("-P", "0", "--log", "stdout")
"""Listen to vtysh only, not on TCP as well."""

USER = "frr"
"""Whom both become, as on any machine; the folder of their sockets is theirs."""

DEADLINE = 10.0
"""Seconds until a daemon must answer on its socket."""

POLL = 0.01


def answers(daemon: str) -> bool:
    """Say whether a daemon listens to vtysh."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(RUN / f"{daemon}.vty")) == 0


def wait(daemon: str) -> None:
    """Wait until a daemon listens to vtysh.

    Raises:
        TimeoutError: when it does not.
    """
    deadline = time.monotonic() + DEADLINE
    while not answers(daemon):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{daemon} does not answer at {RUN}/{daemon}.vty")
        time.sleep(POLL)


def configure() -> None:
    """Tell both daemons what the file says, once they answer."""
    wait("bgpd")
    subprocess.run(["vtysh", "-b"], check=True)


def run() -> None:
    """Start what does not run yet, and become bgpd."""
    if not answers("zebra"):
        subprocess.run([ZEBRA, "-d", *COMMON], check=True)
        wait("zebra")
    (RUN / "bgpd.vty").unlink(missing_ok=True)  # of one that was killed
    # setsid forks and leaves: bgpd, which this process becomes, has no child that it knows nothing of.
    subprocess.run(["setsid", "--fork", sys.executable, "-m", __spec__.name, "configure"], check=True)
    os.execv(BGPD, [str(BGPD), *COMMON])  # noqa: S606 - no shell is what we want


if __name__ == "__main__":
    configure() if sys.argv[1:] == ["configure"] else run()
