from collections import Counter

from bgp_builders import A2, B1, TOR, attributes, network, told

from bgp.policy import Accepted, Reason, Refusal
from bgp.rib import AdjRibIn, AdjRibOut, LocRib, Told
from bgp.types import Attributes, Family, IPNetwork

PREFIX = network("10.65.2.0/26")
OTHER = network("10.65.3.0/26")
REFUSED = Refusal(Reason.OUTSIDE)
HERE = told(B1)


def filled(*prefixes: IPNetwork, said: Told = HERE) -> AdjRibIn:
    table = AdjRibIn()
    table.learn(prefixes, said)
    return table


# --- Adj-RIB-In


def test_what_is_said_twice_changes_nothing() -> None:
    table = AdjRibIn()
    assert table.learn([PREFIX, OTHER], HERE) == [PREFIX, OTHER]
    assert table.learn([PREFIX, OTHER], told(B1)) == []
    assert table.learn([OTHER], told(B1, med=5)) == [OTHER]


def test_prefixes_of_which_the_same_is_said_share_one_object() -> None:
    table = filled(PREFIX, OTHER)
    table.mark_stale()
    assert table.entries[PREFIX] is table.entries[OTHER]
    table.judge(lambda _, said: Accepted(said))
    assert table.entries[PREFIX] is table.entries[OTHER]


def test_what_is_refused_is_kept_and_does_not_compete() -> None:
    table = filled(PREFIX, said=told(B1, refusal=REFUSED))
    assert table.entries[PREFIX].refusal == REFUSED
    assert table.accepted(PREFIX) is None
    assert table.refused == 1


def test_withdrawing_what_was_never_said_changes_nothing() -> None:
    assert AdjRibIn().withdraw([PREFIX]) == []


def test_what_is_said_again_is_not_swept() -> None:
    table = filled(PREFIX, OTHER)
    assert table.mark_stale() == [PREFIX, OTHER]
    assert table.stale == 2
    assert table.mark_stale() == []
    assert table.learn([PREFIX], HERE) == [PREFIX]
    assert table.sweep() == [OTHER]
    assert set(table.entries) == {PREFIX}
    assert table.stale == 0


def test_each_family_is_swept_by_itself() -> None:
    six = network("fd00:65::/64")
    table = filled(PREFIX, six)
    table.mark_stale()
    assert table.sweep([Family.IPV6_UNICAST]) == [six]
    assert table.drop([Family.IPV6_UNICAST]) == []
    assert table.drop([Family.IPV4_UNICAST]) == [PREFIX]


def test_a_new_policy_is_asked_about_everything() -> None:
    table = filled(PREFIX, OTHER)

    def only_the_other(prefix: IPNetwork, said: Attributes) -> Accepted | Refusal:
        return REFUSED if prefix == PREFIX else Accepted(said)

    assert table.judge(only_the_other) == [PREFIX]
    assert table.judge(only_the_other) == []
    assert table.accepted(PREFIX) is None
    assert table.judge(lambda _, said: Accepted(said)) == [PREFIX]


def test_policy_is_asked_about_what_was_received_and_not_what_it_made_of_that() -> None:
    table = filled(PREFIX)
    raised = attributes("172.31.2.11", local_preference=500)
    assert table.judge(lambda _, __: Accepted(raised, "filter up, importV4 rule 1: everything")) == [PREFIX]
    assert table.entries[PREFIX].attributes == raised
    assert table.entries[PREFIX].received == HERE.received
    assert table.decided_by == Counter({"filter up, importV4 rule 1: everything": 1})
    assert table.judge(lambda _, said: Accepted(said)) == [PREFIX]
    assert table.entries[PREFIX] == HERE


# --- Loc-RIB


def test_the_best_path_changes_only_when_it_does() -> None:
    node, tor, loc_rib = AdjRibIn(), AdjRibIn(), LocRib()
    assert loc_rib.follow(TOR, tor, tor.learn([PREFIX], told(TOR, 64500, external=True))) == [PREFIX]
    assert loc_rib.best[PREFIX].path.peer == TOR
    assert loc_rib.follow(TOR, tor, [PREFIX]) == []
    assert loc_rib.follow(B1, node, node.learn([PREFIX], HERE)) == [PREFIX]
    assert (loc_rib.best[PREFIX].path.peer, loc_rib.best[PREFIX].rule) == (B1, "AS path length")
    assert loc_rib.follow(B1, node, node.clear()) == [PREFIX]
    assert loc_rib.follow(TOR, tor, tor.clear()) == [PREFIX]
    assert (loc_rib.best, loc_rib.contests) == ({}, {})


def test_a_loser_that_changes_moves_no_packets_and_is_known() -> None:
    node, tor, loc_rib = filled(PREFIX), filled(PREFIX, said=told(TOR, 64500)), LocRib()
    loc_rib.follow(B1, node, [PREFIX])
    assert loc_rib.follow(TOR, tor, [PREFIX]) == []
    assert [each.path.peer for each in loc_rib.best[PREFIX].beaten] == [TOR]


def test_prefixes_with_the_same_paths_share_one_choice() -> None:
    table, loc_rib = filled(PREFIX, OTHER), LocRib()
    loc_rib.follow(B1, table, [PREFIX, OTHER])
    assert loc_rib.best[PREFIX] is loc_rib.best[OTHER]


def test_a_prefix_that_is_named_twice_is_chosen_once() -> None:
    table, loc_rib = filled(PREFIX), LocRib()
    assert loc_rib.follow(B1, table, [PREFIX, PREFIX]) == [PREFIX]


def test_a_path_with_a_next_hop_that_cannot_be_reached_waits() -> None:
    node, other, loc_rib = filled(PREFIX), filled(PREFIX, OTHER, said=told(A2, 64500)), LocRib()
    loc_rib.follow(B1, node, [PREFIX])
    loc_rib.follow(A2, other, [PREFIX, OTHER])
    assert loc_rib.next_hops == {A2, B1}
    assert loc_rib.reach({B1: "eth0 is down"}) == [PREFIX]
    assert loc_rib.best[PREFIX].path.peer == A2
    assert loc_rib.reach({B1: "eth0 is down", A2: "eth1 is down"}) == [PREFIX, OTHER]
    assert loc_rib.best == {}
    assert loc_rib.next_hops == {A2, B1}, "who asks whether they can be reached must go on asking"
    assert loc_rib.reach({}) == [PREFIX, OTHER]
    assert loc_rib.best[PREFIX].path.peer == B1


def test_a_path_that_comes_with_a_next_hop_that_cannot_be_reached_waits_too() -> None:
    table, loc_rib = filled(PREFIX), LocRib()
    loc_rib.reach({B1: "eth0 is down"})
    assert loc_rib.follow(B1, table, [PREFIX]) == [PREFIX], "people are to see that it waits"
    assert (loc_rib.best, loc_rib.waiting[PREFIX].path.peer) == ({}, B1)
    assert loc_rib.follow(B1, table, [PREFIX]) == []
    assert loc_rib.reach({}) == [PREFIX]
    assert (loc_rib.best[PREFIX].path.peer, loc_rib.waiting) == (B1, {})
    loc_rib.reach({B1: "eth0 is down"})
    assert loc_rib.follow(B1, table, table.clear()) == [PREFIX]
    assert (loc_rib.best, loc_rib.waiting) == ({}, {})


def test_what_waits_is_what_would_be_the_best_of_all_that_wait() -> None:
    node, other, loc_rib = filled(PREFIX), filled(PREFIX, said=told(A2, 64500)), LocRib()
    loc_rib.reach({B1: "eth0 is down", A2: "eth0 is down"})
    assert loc_rib.follow(A2, other, [PREFIX]) == [PREFIX]
    assert loc_rib.follow(B1, node, [PREFIX]) == [PREFIX]
    assert (loc_rib.waiting[PREFIX].path.peer, loc_rib.waiting[PREFIX].rule) == (B1, "AS path length")
    assert loc_rib.reach({B1: "eth0 is down"}) == [PREFIX]
    assert (loc_rib.best[PREFIX].path.peer, loc_rib.waiting) == (A2, {})


def test_the_next_hops_that_matter_are_those_of_accepted_paths_and_one_object_until_others_do() -> None:
    node, other, loc_rib = filled(PREFIX, OTHER), filled(PREFIX, said=told(A2, 64500)), LocRib()
    assert loc_rib.next_hops == frozenset()
    loc_rib.follow(B1, node, [PREFIX, OTHER, PREFIX])
    loc_rib.follow(A2, other, [PREFIX])
    both = loc_rib.next_hops
    assert both == {A2, B1}
    loc_rib.follow(B1, node, node.withdraw([PREFIX]))
    assert loc_rib.next_hops is both, "another prefix has it still"
    loc_rib.follow(B1, node, node.learn([OTHER], told(B1, med=5)))
    assert loc_rib.next_hops is both, "the attributes differ, and not the next hop"
    loc_rib.follow(B1, node, node.judge(lambda _, __: REFUSED))
    assert loc_rib.next_hops == {A2}
    loc_rib.follow(A2, other, other.clear())
    assert loc_rib.next_hops == frozenset()


def test_a_table_that_arrives_waits_counts_and_is_asked_about_as_prefixes_one_by_one_do() -> None:
    at_once, one_by_one = LocRib(), LocRib()
    said, table = told(B1), filled(PREFIX, OTHER)
    for obstacles in ({}, {B1: "eth0 is down"}):
        for each in (at_once, one_by_one):
            each.reach(obstacles)
        assert at_once.learn(table, [PREFIX, OTHER], said) == one_by_one.follow(B1, table, [PREFIX, OTHER])
        assert at_once == one_by_one
        assert at_once.next_hops == {B1}
        assert at_once.learn(table, [], said) == []
        gone = filled()
        assert [each.follow(B1, gone, [PREFIX, OTHER]) for each in (at_once, one_by_one)] == [[PREFIX, OTHER]] * 2
        assert at_once.next_hops == frozenset()


# --- Adj-RIB-Out


def test_what_has_to_be_said_is_the_difference_to_what_was_said() -> None:
    table, plain, tagged = AdjRibOut(), attributes(None), attributes(None, communities=((64512, 1),))
    assert table.become({PREFIX: plain, OTHER: plain}) == ({PREFIX: plain, OTHER: plain}, [])
    assert table.become({PREFIX: tagged, OTHER: plain}) == ({PREFIX: tagged}, [])
    assert table.become({PREFIX: tagged}) == ({}, [OTHER])
    assert table.become({PREFIX: tagged}) == ({}, [])


def test_what_was_not_looked_at_stays() -> None:
    table, plain = AdjRibOut(), attributes(None)
    table.become({PREFIX: plain})
    assert table.become({}, [OTHER]) == ({}, [])
    assert table.become({OTHER: plain}, [OTHER]) == ({OTHER: plain}, [])
    assert table.become({}, [PREFIX]) == ({}, [PREFIX])
    assert table.prefixes == {OTHER}
