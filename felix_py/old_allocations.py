"""Reads the file in which a node kept its allocations until they moved into the datastore's blocks."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Any

from felix_py.ledger import Attachment
from felix_py.model import IPAddress

FILE = "allocations.json"
FORMAT = 1
"""Number of the file's format; a reader refuses what it does not know instead of guessing."""

TEXTS = ("container_id", "interface", "name", "host_interface", "pod", "network", "mac", "netns")
"""Fields of an attachment that are text in the file as well."""


@dataclass(frozen=True, slots=True)
class OldAllocations:
    """What the file held.

    Attributes:
        handles: addresses that no pod holds, by handle: the tunnel's.
    """

    attachments: tuple[Attachment, ...]
    handles: Mapping[str, IPAddress]


def decode(text: str) -> OldAllocations:
    """Read the file.

    Raises:
        ValueError: with what is wrong, for anything else.
    """
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"it is not of format {FORMAT}")
    try:
        return OldAllocations(
            tuple(_attachment(each) for each in document["attachments"]),
            {str(handle): ip_address(address) for handle, address in document["handles"].items()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it lacks something or has it in the wrong shape: {error}") from error


def _attachment(document: Mapping[str, Any]) -> Attachment:
    texts = {name: document[name] for name in TEXTS}
    if not all(isinstance(value, str) for value in texts.values()):
        raise TypeError(f"an attachment holds {texts!r}")
    created = document["created"]
    return Attachment(
        **texts,
        addresses=tuple(map(ip_address, document["addresses"])),
        created=datetime.fromisoformat(created) if created else None,
    )
