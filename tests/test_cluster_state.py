"""What is found of one kind stays the same object until something of that kind changes."""

from builders import block, node, pool
from test_agent import pod

from felix_py.model import BlockAffinity, IPPool, Key, WorkloadEndpoint
from felix_py.state import Absent, ClusterState, Present

WEB = pod("default/web", "cali1", "10.65.0.5/32")
BEFORE = ClusterState().after_all((node("a1", "172.31.1.11/24"), pool(), block("a1", "10.65.0.0/26")))


def test_pods_that_come_leave_what_is_known_of_pools() -> None:
    pools = BEFORE.of(IPPool)
    after = BEFORE.after_all((Present(Key("WorkloadEndpoint", WEB.name), WEB),))
    assert after.of(IPPool) is pools
    assert (BEFORE.of(WorkloadEndpoint), after.of(WorkloadEndpoint)) == ((), (WEB,))


def test_what_changes_and_what_goes_is_found_anew() -> None:
    (mine,) = BEFORE.of(BlockAffinity)
    assert BEFORE.after_all((Absent(Key("BlockAffinity", mine.name)),)).of(BlockAffinity) == ()
    (of_all,) = BEFORE.of(IPPool)
    assert BEFORE.after_all((pool(size=28),)).of(IPPool) != (of_all,)


def test_what_was_asked_for_is_no_part_of_the_state() -> None:
    asked, fresh = BEFORE.after_all(()), BEFORE.after_all(())
    asked.of(IPPool)
    assert asked == fresh
