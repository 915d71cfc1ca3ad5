"""What is secret, and taken out of texts before anybody else sees them; pure.

Two nets, since either alone has holes: values of fields whose names say that they are secret, wherever they stand; and
the values that are known to be passwords, whatever they are called there.
"""

import re
from collections.abc import Iterable

REMOVED = "REMOVED"
"""What stands in the place of a secret."""

NAME = r"[\w.-]*(?:passw(?:or)?d|passphrase|secret|token|credential|api[_-]?key|private[_-]?key|md5)[\w.-]*"
"""Names of fields that hold secrets, in any case."""

NOT_SECRET = re.compile(r"(?:directory|ref|file|path)\Z", re.IGNORECASE)
"""Ends of names that say where a secret is, and not what."""

FIELD = re.compile(
    rf"""(?P<head>^[ \t]*(?:-[ \t]+)?|[{{,&?;][ \t]*|[ \t])   # begins a line, or stands in it
    (?P<name>["']?{NAME}["']?)
    (?P<sign>[ \t]*[:=][ \t]*)
    (?P<value>"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[|>][+-]?[ \t]*\n(?:[ \t]+[^\n]*(?:\n|\Z))+|[^\s,}}{{\]\[][^\n,}}]*)""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)

SHORT = 4
"""Characters: shorter values are taken out only where they stand alone, or no text would be left."""


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text without its secrets.

    Args:
        text: YAML, JSON, settings of other programs, logs.
        secrets: values that are known to be secret.
    """
    # The longest first: one may be a part of another.
    for value in sorted({each for each in secrets if each.strip()}, key=len, reverse=True):
        if len(value) >= SHORT:
            text = text.replace(value, REMOVED)
        else:
            text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", REMOVED, text)
    return FIELD.sub(_field, text)


def _field(found: re.Match[str]) -> str:
    if NOT_SECRET.search(found["name"].strip("\"'")) or found["value"] in ("null", "~", "true", "false"):
        return found[0]
    tail = "\n" if found["value"].endswith("\n") else ""
    # In JSON a bare word would be no value.
    quote = '"' if found["value"].startswith('"') or found["name"].startswith('"') else ""
    return f"{found['head']}{found['name']}{found['sign']}{quote}{REMOVED}{quote}{tail}"
