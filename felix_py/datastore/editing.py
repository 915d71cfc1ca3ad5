"""What a file of resources becomes when one is put into it or taken out; all else stays as people wrote it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from felix_py import resources
from felix_py.model import Key

NotYaml = yaml.YAMLError

SEPARATOR = re.compile(r"^---(?=\s|$)", re.MULTILINE)
"""What begins a further document of a YAML stream (YAML 1.1, section 9.2)."""

COLLECTIONS = (yaml.SequenceNode, yaml.MappingNode)


@dataclass(frozen=True, slots=True)
class Part:
    """One document of a file.

    Attributes:
        document: what it says.
        key: which resource it is about; None where it does not say.
        begin: where it begins with its separator and the comments above it.
        start, end: of what it says.
    """

    document: object
    key: Key | None
    begin: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Edit:
    """What a file becomes.

    Attributes:
        file: its name.
        text: all that it holds then; None: it is removed, nothing would be left in it.
    """

    file: str
    text: str | None


def parts(text: str) -> tuple[Part, ...]:
    """Return the documents of a file, in their order.

    Raises:
        yaml.YAMLError: when it is none.
    """
    return tuple(_parts(text))


def _parts(text: str) -> Iterator[Part]:
    nodes = list(yaml.compose_all(text, yaml.SafeLoader))
    documents = list(yaml.safe_load_all(text))
    before = 0
    for node, document in zip(nodes, documents, strict=True):
        separators = [each.start() for each in SEPARATOR.finditer(text, before, node.start_mark.index)]
        end = _end(node)
        if document is not None:
            begin = separators[-1] if separators else before
            yield Part(document, resources.key_of(document), begin, node.start_mark.index, end)
        before = end


def _end(node: yaml.Node) -> int:
    """Return where a document's last word ends; PyYAML has block collections reach to whatever comes after them."""
    if isinstance(node, COLLECTIONS) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def put(texts: Mapping[str, str], key: Key, document: Mapping[str, Any]) -> Edit:
    """Return what becomes of which file, so that a resource is as a document says.

    It takes the place of the one that is there, wherever that stands; a new one gets a file of its own name.

    Args:
        texts: name and contents of every file.
        key: of the resource.
        document: all of it.

    Raises:
        yaml.YAMLError: when one of the files is no YAML.
    """
    words = yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True)
    found = _find(texts, key)
    if found is not None:
        file, part = found
        text = texts[file]
        if part.document == document:
            return Edit(file, text)
        gap = "" if part.start == 0 or text[part.start - 1] == "\n" else "\n"  # a block cannot begin behind `---`
        rest = text[part.end :]
        return Edit(file, text[: part.start] + gap + words.rstrip("\n") + (rest or "\n"))
    file = f"{key.kind}-{key.name}.yaml".lower().replace("/", "-")
    before = texts.get(file, "")
    return Edit(file, f"{before.rstrip()}\n---\n{words}" if before.strip() else words)


def take(texts: Mapping[str, str], key: Key) -> Edit | None:
    """Return what becomes of which file when a resource goes; None where none holds it.

    Raises:
        yaml.YAMLError: when one of the files is no YAML.
    """
    found = _find(texts, key)
    if found is None:
        return None
    file, part = found
    every = parts(texts[file])
    if len(every) == 1:
        return Edit(file, None)
    later = [each.begin for each in every if each.begin > part.begin]
    text = texts[file][: part.begin] + (texts[file][later[0] :] if later else "")
    return Edit(file, text.rstrip() + "\n")


def _find(texts: Mapping[str, str], key: Key) -> tuple[str, Part] | None:
    return next(((file, part) for file, text in texts.items() for part in parts(text) if part.key == key), None)
