"""The tunnel's contract and the interoperation of all drivers, under a kernel that has the ipip module."""

import os
import sys

import guest
import pytest

pytestmark = [pytest.mark.vm, pytest.mark.alone]


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


def test_kernel_and_ebpf_drivers_keep_the_contract_and_all_drivers_talk_to_each_other() -> None:
    options = ["-q", "--color=no", "-p", "no:cacheprovider", "-k", "kernel or ebpf"]
    files = ["tests/netns/test_ipip_device.py", "tests/netns/test_ipip_interop.py"]
    outcome = guest.run([sys.executable, "-m", "pytest", *options, *files], seconds=600)
    assert outcome.status == 0, outcome.output
    assert " passed" in outcome.output
    assert "skipped" not in outcome.output
