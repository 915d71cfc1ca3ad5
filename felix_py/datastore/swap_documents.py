"""What stands in the file of a block or a claim, behind how it begins: from values to JSON, and back."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from felix_py import ipam_resources
from felix_py.claims import Found, Stored
from felix_py.datastore.api import Damaged
from felix_py.datastore.copies import Copy
from felix_py.ipam import Block
from felix_py.model import BlockAffinity, Invalid, Key
from felix_py.resources import parse


def parsed(key: Key, path: str, copy: Copy) -> Found:
    """Read a copy that is whole.

    Raises:
        Damaged: for what is none of ours.
    """
    try:
        document = json.loads(copy.document)
        if not isinstance(document, dict) or document.get("kind") != key.kind:
            raise ValueError(f"it does not begin as ours do, or is no {key.kind}")  # noqa: TRY301 - as for no JSON
        value = _value(key, document, path)
    except Invalid as invalid:
        raise Damaged(key, path, "; ".join(fault.message for fault in invalid.faults)) from invalid
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(key, path, " ".join(str(error).split())) from error
    return Found(value, copy.revision)


def _value(key: Key, document: Mapping[str, Any], where: str) -> Stored:
    """Read a document.

    Raises:
        Invalid, ValueError, KeyError, TypeError: for what is none of ours.
    """
    value = ipam_resources.block(document["spec"]) if key.kind == "IPAMBlock" else parse(document, where)[1]
    if not isinstance(value, Block | BlockAffinity):
        raise TypeError(f"it is no {key.kind}")
    return value


def rest(key: Key, value: Stored) -> bytes:
    """Return what follows the head of a file."""
    if isinstance(value, Block):
        spec = ipam_resources.block_text(value)
    else:
        spec = json.dumps(ipam_resources.affinity_document(value))
    return f', "name": {json.dumps(key.name)}}}{_kind(key.kind)}{spec}}}'.encode()


@cache
def _kind(kind: str) -> str:
    document = json.dumps({"apiVersion": ipam_resources.CRD_VERSION, "kind": kind})
    return f', {document[1:-1]}, "spec": '


def single(found: Found, following: bytes) -> bytes:
    """Return the file of what has no second copy."""
    return f'{{"metadata": {{"resourceVersion": "{found.revision}"'.encode() + following + b"\n"
