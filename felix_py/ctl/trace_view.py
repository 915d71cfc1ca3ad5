"""How a trace is shown: a line for each look into a machine's tables, then where the packet ends, and why."""

from collections.abc import Iterator, Mapping
from typing import Any

from felix_py.ctl import output
from felix_py.ctl.output import Column, or_dash
from felix_py.kernel import flow
from felix_py.kernel.flow import Flow

Row = Mapping[str, Any]

MEANINGS = {"dropped": "bad", "delivered": "good", "not asked": "warning"}

COLUMNS = (
    Column("HOP", lambda row: row["hop"]),
    Column("AT", lambda row: row["machine"]),
    Column("IN", lambda row: or_dash(row["arrives"])),
    Column("ROUTE", lambda row: or_dash(row["route"])),
    Column("FROM", lambda row: or_dash(row["from"])),
    Column("OUT", lambda row: or_dash(row["device"])),
    Column("MTU", lambda row: or_dash(row["mtu"])),
    Column("WHAT", lambda row: row["what"], lambda row: MEANINGS.get(row["verdict"])),
)


def show(document: Row, *, why: bool = False) -> None:
    """Print a trace: who to whom, the table, what could not be judged, and the end.

    Args:
        document: the trace, with `source` and `destination`.
        why: print the reasons for each route as well.
    """
    ends = f"{_end(document['source'])} to {_end(document['destination'])}"
    print(output.paint(ends + _carried(document), "bold"))
    rows = list(_rows(document))
    output.table(COLUMNS, rows)
    for row in rows:
        for sentence in row["why"] if why else ():
            print(f"{row['machine']}: because {sentence}")
        for sentence in row["notes"]:
            print(output.paint(f"{row['machine']}: {sentence}", "warning"))
    print(*_last(document))


def status(document: Row) -> int:
    """Return the exit status: 1 where the packet does not arrive."""
    return 1 if document["delivered"] is False else 0


def _end(end: Row) -> str:
    return f"{end['address']} ({end['name']})" if end["name"] != end["address"] else str(end["address"])


def _carried(document: Row) -> str:
    protocol, source, target = (document[name] for name in ("protocol", "sourcePort", "destinationPort"))
    return f", {Flow(flow.protocol(protocol), source, target)}" if protocol is not None else ""


def _last(document: Row) -> Iterator[str]:
    words, meaning = {
        True: ("delivered:", "good"),
        False: ("dropped:", "bad"),
        None: ("not known:", "warning"),
    }[document["delivered"]]
    yield output.paint(words, meaning)
    yield document["reason"]
    if document["mtu"] is not None and document["delivered"] is not False:
        yield f"(packets of up to {document['mtu']} bytes)"


def _rows(document: Row) -> Iterator[dict[str, Any]]:
    for number, hop in enumerate(document["hops"], 1):
        if not hop["asked"]:
            fields = dict.fromkeys(("arrives", "route", "from", "device", "mtu"))
            what = f"not asked: {hop['inferred']}"
            unasked = {"verdict": "not asked", "what": what, "why": [], "notes": []}
            yield {"hop": str(number), "machine": hop["machine"], **fields, **unasked}
        for look, leg in enumerate(hop["legs"]):
            name = hop["machine"] if not look else ""
            proto = f"proto {leg['protocol']}" if leg["protocol"] else None
            yield {
                **leg,
                "hop": str(number) if not look else "",
                "machine": name or hop["machine"],
                "from": leg["from"] or proto,
                "what": _what(leg),
            }


def _what(leg: Row) -> str:
    match leg["verdict"]:
        case "dropped":
            return f"dropped: {leg['reason']}"
        case "encapsulated" | "decapsulated":
            return f"{leg['verdict']}: {leg['tunnel']}"
        case "delivered":
            return f"delivered: {leg['reason']}"
    return str(leg["reason"])
