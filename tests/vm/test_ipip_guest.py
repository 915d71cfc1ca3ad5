"""Under a kernel of Debian's: all drivers of the tunnel, for it has the ipip module, and pods' networks."""

import os
import re
import sys

import guest
import pytest

pytestmark = [pytest.mark.vm, pytest.mark.alone]

PATIENCE = 1800.0
"""Seconds, for an emulated processor on a machine that is busy: one that is idle needs a tenth."""

RAN = re.compile(r"\[.*kernel.*\] PASSED")
"""What the report says of a test with the kernel's driver; without a module such tests are left out, not skipped."""


@pytest.fixture(scope="module", autouse=True)
def needs() -> None:
    reason = guest.missing()
    if reason is not None and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.parametrize("status", [0, 7])
def test_the_guest_hands_back_output_and_exit_status(status: int) -> None:
    outcome = guest.run(["sh", "-c", f"echo 'from \"the\" guest'; exit {status}"], seconds=120)
    assert outcome == guest.Outcome(status, 'from "the" guest\n')


def test_a_guest_that_takes_too_long_is_ended() -> None:
    assert guest.run(["sleep", "600"], seconds=1).status == guest.TIMED_OUT


@pytest.mark.parametrize(
    ("name", "drivers"),
    [
        # Our programs besides, which this older kernel's verifier judges as well.
        pytest.param("test_ipip_device", "kernel or ebpf", id="the contract of a tunnel"),
        pytest.param("test_ipip_interop", "kernel", id="it talks to every driver, over narrow paths as well"),
        pytest.param("test_driver_changes", "kernel", id="it gives way to every driver, and takes over from it"),
    ],
)
def test_what_needs_the_module_holds_under_a_kernel_that_has_it(name: str, drivers: str) -> None:
    options = ["-v", "--color=no", "-p", "no:cacheprovider", "-k", drivers, "--durations=5"]
    outcome = guest.run([sys.executable, "-m", "pytest", *options, f"tests/netns/{name}.py"], seconds=PATIENCE)
    assert outcome.status == 0, outcome.output
    assert "skipped" not in outcome.output
    assert RAN.search(outcome.output), f"none with the kernel's driver: {outcome.output}"


def test_pods_networks_are_made_under_a_kernel_that_is_older() -> None:
    """Linux before 6.8 takes note of a carrier when it finds the time, and not when it is asked."""
    files = [f"tests/netns/{name}.py" for name in ("test_pod_veths", "test_jobs", "test_ipip_ebpf")]
    options = ["-v", "--color=no", "-p", "no:cacheprovider"]
    outcome = guest.run([sys.executable, "-m", "pytest", *options, *files], seconds=PATIENCE)
    assert outcome.status == 0, outcome.output
    assert "skipped" not in outcome.output
