"""Guesses of what a pod will be given: right as long as nobody else is at the blocks, and harmless when wrong."""

from pathlib import Path

from allocation_store import A1, BLOCK, WEB, addresses, holders, numbered, store

from felix_py.allocations import Allocations, AlreadyAttached, Attach
from felix_py.datastore.swaps import FolderSwaps
from felix_py.ledger import Attachment
from felix_py.model import IPAddress, NodeName


def started(folder: Path) -> Allocations:
    """Return a store that has given an address, so that it knows its block."""
    pods = store(folder)
    pods.attach(WEB)
    return pods


def foreseen(pods: Allocations, wish: Attach) -> Attach:
    (asks,) = pods.foresee([wish])
    assert isinstance(asks, Attach)
    return asks


def guessed(asks: Attach) -> tuple[IPAddress, ...]:
    return asks.guess.addresses if asks.guess is not None else ()


def borrower(folder: Path) -> Allocations:
    """Return the store of another node, which has no block of its own."""
    made = Allocations(FolderSwaps(folder), NodeName("b1"), living=lambda: ())
    made.addresses.own.cluster = store(folder).addresses.own.cluster
    return made


def test_what_is_guessed_is_given(tmp_path: Path) -> None:
    pods = started(tmp_path)
    asks = foreseen(pods, Attach(numbered(2)))
    assert guessed(asks) == addresses("10.65.0.1")
    assert pods.attach_all([asks]) == [asks.guess]


def test_nobody_is_guessed_the_address_of_another_one_who_has_not_asked_yet(tmp_path: Path) -> None:
    pods = started(tmp_path)
    several = [foreseen(pods, Attach(numbered(number))) for number in (2, 3)]
    assert [guessed(each) for each in several] == [addresses("10.65.0.1"), addresses("10.65.0.2")]
    assert pods.attach_all(several[::-1]) == [each.guess for each in several[::-1]]


def test_a_guess_binds_nobody(tmp_path: Path) -> None:
    pods = started(tmp_path)
    asks = foreseen(pods, Attach(numbered(2)))
    assert pods.attach(numbered(3)).addresses == addresses("10.65.0.1")
    (given,) = pods.attach_all([asks])
    assert isinstance(given, Attachment)
    assert given.addresses == addresses("10.65.0.2")


def test_an_address_that_another_node_has_borrowed_is_given_to_nobody_else(tmp_path: Path) -> None:
    pods = started(tmp_path)
    other = borrower(tmp_path)
    assert other.attach(numbered(9)).addresses == addresses("10.65.0.1")
    asks = foreseen(pods, Attach(numbered(2)))
    assert guessed(asks) == addresses("10.65.0.1"), "of the other node nothing is known here"
    (given,) = pods.attach_all([asks])
    assert isinstance(given, Attachment)
    assert given.addresses == addresses("10.65.0.2")
    assert [*holders(pods)] == [*addresses("10.65.0.0", "10.65.0.1", "10.65.0.2")]


def test_what_was_guessed_and_not_given_is_guessed_again(tmp_path: Path) -> None:
    pods = started(tmp_path)
    asks = foreseen(pods, Attach(numbered(2)))
    pods.attach_all([asks])
    pods.detach(pods.attachments()[-1])
    assert pods.block(BLOCK).affinity == A1
    rest = [guessed(foreseen(pods, Attach(numbered(number)))) for number in range(3, 10)]
    assert addresses("10.65.0.1") in rest


def test_nothing_is_guessed_before_anything_is_known_nor_for_who_wants_one_address(tmp_path: Path) -> None:
    assert foreseen(store(tmp_path), Attach(WEB)).guess is None
    pods = started(tmp_path)
    assert foreseen(pods, Attach(numbered(2), addresses("10.65.0.5"))).guess is None


def test_those_who_come_together_are_guessed_different_addresses_as_many_as_there_are(tmp_path: Path) -> None:
    pods = started(tmp_path)
    several = pods.foresee([Attach(numbered(number)) for number in range(2, 10)])
    wishes = [each for each in several if isinstance(each, Attach)]
    assert len(wishes) == 8
    everything = [f"10.65.0.{last}" for last in range(1, BLOCK.num_addresses)]
    assert [guessed(each) for each in wishes] == [addresses(text) for text in everything] + [()]


def test_a_second_interface_of_the_same_name_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    refused, asks = started(tmp_path).foresee([Attach(WEB), Attach(numbered(2))])
    assert isinstance(refused, AlreadyAttached)
    assert str(refused) == "container c1 has eth0 already, with 10.65.0.0; DEL it first"
    assert isinstance(asks, Attach)
    assert guessed(asks) == addresses("10.65.0.1")
