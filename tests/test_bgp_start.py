"""The child's start: it must not wait for a DNS server that does not answer."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import socket

def no_look_up(*_):
    raise AssertionError("the resolver was asked")

socket.gethostbyaddr = socket.getaddrinfo = no_look_up
from bgp.exabgp_start import main
raise SystemExit(main())
"""


def test_nobody_asks_the_resolver_before_the_first_line_is_read() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_exabgp_alone_would_ask() -> None:
    script = SCRIPT.replace("from bgp.exabgp_start import main", "from bgp.exabgp_child import main")
    done = subprocess.run(
        [sys.executable, "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert "the resolver was asked" in done.stderr
