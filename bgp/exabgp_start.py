"""Starts the process that holds the sessions, without the look-up of this host's domain that ExaBGP makes at import.

Where no DNS server answers, it takes five seconds, and is for a capability (hostname) that we do not send.
"""

import socket
import sys


def main() -> int:
    """Run until the agent closes our input."""
    socket.getfqdn = lambda name="": name or socket.gethostname()
    from bgp import exabgp_child  # noqa: PLC0415 - not before the line above

    return exabgp_child.main()


if __name__ == "__main__":
    sys.exit(main())
