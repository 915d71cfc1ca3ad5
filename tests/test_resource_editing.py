"""What a file of resources becomes when one is put there or taken away: all else in it stays as people wrote it."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from felix_py.datastore import editing
from felix_py.model import Key

POOL: dict[str, Any] = {
    "apiVersion": "projectcalico.org/v3",
    "kind": "IPPool",
    "metadata": {"name": "default"},
    "spec": {"cidr": "10.65.0.0/16", "ipipMode": "Never"},
}
KEY = Key("IPPool", "default")

FILE = """\
# Our cluster; ask Ann before changing the AS.
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec:
  asNumber: 64512     # private
---
# Pods.
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: default
spec:
  cidr: 10.65.0.0/16
  ipipMode: Always    # since June
---
# The router.
kind: BGPPeer
apiVersion: projectcalico.org/v3
metadata: {name: tor}
spec: {peerIP: 172.31.1.1, asNumber: 64500}
"""


def test_one_of_several_is_replaced_where_it_stands() -> None:
    edit = editing.put({"a.yaml": FILE}, KEY, POOL)
    words = yaml.safe_dump(POOL, sort_keys=False).rstrip()
    head, _, rest = FILE.partition("apiVersion: projectcalico.org/v3\nkind: IPPool")
    tail = rest[rest.index("    # since June") :]
    assert edit == editing.Edit("a.yaml", head + words + tail)


def test_what_says_the_same_is_not_touched() -> None:
    document = yaml.safe_load(FILE.split("---")[1])
    assert editing.put({"a.yaml": FILE}, KEY, document) == editing.Edit("a.yaml", FILE)


def test_a_new_one_gets_a_file_of_its_name_or_stands_behind_what_is_there() -> None:
    words = yaml.safe_dump(POOL, sort_keys=False)
    assert editing.put({}, KEY, POOL) == editing.Edit("ippool-default.yaml", words)
    other = "kind: Node\nmetadata: {name: a1}\n"
    assert editing.put({"ippool-default.yaml": other}, KEY, POOL).text == f"{other}---\n{words}"


@pytest.mark.parametrize(
    ("kind", "name", "gone"),
    [
        pytest.param("BGPConfiguration", "default", "asNumber: 64512", id="the first"),
        pytest.param("IPPool", "default", "ipipMode", id="one in the middle"),
        pytest.param("BGPPeer", "tor", "172.31.1.1", id="the last"),
    ],
)
def test_one_of_several_is_taken_away_with_its_comments(kind: str, name: str, gone: str) -> None:
    edit = editing.take({"a.yaml": FILE}, Key(kind, name))
    assert edit is not None
    assert edit.text is not None
    assert gone not in edit.text
    left = [part.key for part in editing.parts(edit.text)]
    assert left == [part.key for part in editing.parts(FILE) if part.key != Key(kind, name)]
    kept = [line for part in FILE.split("---\n") if gone not in part for line in part.splitlines()]
    assert [line for line in edit.text.splitlines() if line != "---"] == kept


def test_a_file_goes_with_its_last_resource() -> None:
    text = "# alone\n" + yaml.safe_dump(POOL)
    assert editing.take({"a.yaml": text}, KEY) == editing.Edit("a.yaml", None)
    assert editing.take({"a.yaml": text}, Key("IPPool", "other")) is None


def test_a_document_on_the_line_of_its_separator_is_replaced() -> None:
    text = "--- {kind: IPPool, metadata: {name: default}}\n--- {kind: Node, metadata: {name: a1}}\n"
    edit = editing.put({"a.yaml": text}, KEY, POOL)
    assert [part.document for part in editing.parts(edit.text or "")] == [
        POOL,
        {"kind": "Node", "metadata": {"name": "a1"}},
    ]


SCALARS = st.one_of(st.integers(), st.booleans(), st.none(), st.text(max_size=12))
VALUES = st.recursive(
    SCALARS, lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=6), each, max_size=3)
)
FLOWS = st.sampled_from([None, True, False])
NAMES = ("p0", "p1", "p2", "p3")


def written(spec: object, name: str, *, flow: bool | None) -> str:
    return yaml.safe_dump({"kind": "IPPool", "metadata": {"name": name}, "spec": spec}, default_flow_style=flow)


@given(specs=st.lists(st.tuples(VALUES, FLOWS), min_size=4, max_size=4), which=st.sampled_from(NAMES), spec=VALUES)
def test_whatever_else_a_file_holds_it_says_the_same_afterwards(
    specs: list[tuple[object, bool | None]], which: str, spec: object
) -> None:
    text = "---\n".join(written(each, name, flow=flow) for name, (each, flow) in zip(NAMES, specs, strict=True))
    before = {part.key: part.document for part in editing.parts(text)}
    document = {"kind": "IPPool", "metadata": {"name": which}, "spec": spec}
    key = Key("IPPool", which)
    edit = editing.put({"a.yaml": text}, key, document)
    assert {part.key: part.document for part in editing.parts(edit.text or "")} == {**before, key: document}
    gone = editing.take({"a.yaml": edit.text or ""}, key)
    assert gone is not None
    left = {part.key: part.document for part in editing.parts(gone.text or "")}
    assert left == {other: value for other, value in before.items() if other != key}
