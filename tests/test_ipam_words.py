"""How blocks are written down, and what an interface says of its pod: read back as they were, rubbish in words."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Network
from typing import Any

import pytest
from allocation_store import WEB, addresses
from hypothesis import given
from hypothesis import strategies as st

from felix_py import ipam_resources, ledger
from felix_py.ipam import Block, Holder
from felix_py.ledger import Attachment
from felix_py.model import NodeName

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
moments = st.none() | st.datetimes(timezones=st.just(UTC))


@given(
    st.dictionaries(st.integers(0, 63), st.builds(Holder, names, names.map(NodeName), moments), max_size=9),
    st.dictionaries(st.integers(64, 127), moments, max_size=9),
    st.none() | names.map(NodeName),
)
def test_a_block_is_read_back_as_it_was_written(
    held: dict[int, Holder], released: dict[int, datetime | None], affinity: NodeName | None
) -> None:
    block = Block(IPv4Network("10.65.0.0/25"), affinity, held, released)
    again = ipam_resources.block(json.loads(json.dumps(ipam_resources.block_document(block))))
    assert again == block
    assert list(again.released) == list(released), "and in the order of their release"
    assert json.loads(ipam_resources.block_text(block)) == ipam_resources.block_document(block)


@given(st.recursive(st.none() | names, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=6))
def test_rubbish_is_refused_in_words(rubbish: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        ipam_resources.block(rubbish)


@pytest.mark.parametrize(
    "attachment",
    [
        pytest.param(replace(WEB, mac="", netns="", created=None), id="pod"),
        pytest.param(
            Attachment("c2", "net1", "default/web-0/net1", "cali2", pod="default/web-0"), id="second interface"
        ),
        pytest.param(Attachment("c3", "eth0", "container/c3", "cali3", network="pods"), id="no orchestrator"),
    ],
)
@pytest.mark.parametrize("held", [("10.65.0.1",), ("10.65.0.1", "10.65.0.2"), ()])
def test_a_pod_is_known_again_by_the_note_on_its_interface(attachment: Attachment, held: tuple[str, ...]) -> None:
    whole = replace(attachment, addresses=addresses(*held))
    assert ledger.from_note(ledger.note(whole), whole.host_interface, routed=addresses("10.65.0.9")) == whole


@pytest.mark.parametrize(
    "note",
    [
        "",
        "felix",
        "felix c1 eth0 pods 10.65.0.2",
        "somebody else's note with seven words here",
        "felix c1 eth0 pods 10.65.0.2 a b",
        "felix c1 eth0 pods 10.65.0.2 ",
        "felix c1 eth0 pods 10.65.0.256 default/web-0",
    ],
)
def test_an_interface_without_our_note_only_keeps_the_addresses_routed_to_it(note: str) -> None:
    found = ledger.from_note(note, "cali1", addresses("10.65.0.1"))
    assert (found.container_id, found.addresses) == ("", addresses("10.65.0.1"))
