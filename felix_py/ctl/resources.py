"""`felixctl get`, `apply` and `delete`: resources of the embedded datastore, in files where people find them again."""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from felix_py import resources, settings_file
from felix_py.ctl import client, output
from felix_py.ctl.output import Column
from felix_py.datastore import changing
from felix_py.datastore.changing import Change, Standing
from felix_py.model import Fault, Invalid, Key

PLURALS = {"BlockAffinity": "blockaffinities"}
"""Where it is not the singular with an s."""

KINDS: Mapping[str, str] = {
    word: kind
    for kind in resources.KINDS
    for word in (kind, kind.lower(), PLURALS.get(kind, f"{kind.lower()}s"))
}  # fmt: skip
"""What people type for a kind."""

COLUMNS = (
    Column("KIND", lambda row: row["kind"]),
    Column("NAME", lambda row: row["name"]),
    Column("FILE", lambda row: row["file"]),
    Column("STATE", lambda row: row["state"], lambda row: "good" if row["state"] == "in force" else "bad"),
)


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the three commands."""
    for verb, text, run in (
        ("get", "resources of this node's resource folder: which file has them, and are they in force", get),
        ("apply", "put resources into this node's resource folder: all of them, or none if one is wrong", apply),
        ("delete", "take resources out of this node's resource folder", delete),
    ):
        command = commands.add_parser(verb, help=text, description=text)
        if verb != "apply":
            command.add_argument("kind", nargs="?", metavar="KIND", type=_kind, help="as ippool, or IPPool")
            command.add_argument("names", nargs="*", metavar="NAME", help="of which; `get` shows all without")
        file = command.add_argument(
            "-f", "--filename", metavar="FILE", help="resources as YAML or JSON; - is standard input"
        )
        file.required = verb == "apply"
        if verb != "get":
            command.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
        command.add_argument("--folder", type=Path, metavar="DIR", help="of resources (default: what felix.yaml says)")
        command.set_defaults(run=run)


def get(options: argparse.Namespace) -> int:
    """Print resources; return 1 when one that was named is not there, or is not in force."""
    try:
        found = changing.listed(_folder(options))
        wanted = _named(options)
    except Invalid as invalid:
        return _refused(invalid)
    chosen = [each for each in found if _is_wanted(each, options.kind, wanted)]
    if options.output in ("json", "yaml"):
        one = len(chosen) == 1 and len(wanted) == 1
        output.document(chosen[0].document if one else _list(chosen), options.output)
    elif chosen or not wanted:
        output.table(COLUMNS, [_row(each) for each in chosen])
    missing = wanted - {each.key for each in chosen}
    for key in sorted(missing, key=str):
        print(f"felixctl: there is no {key}; `felixctl get {key.kind}` lists those that are there", file=sys.stderr)
    return 1 if missing or any(each.fault for each in chosen) else 0


def apply(options: argparse.Namespace) -> int:
    """Put what the file says into the folder; return 2 when nothing was changed for a fault."""
    try:
        folder = _folder(options)
        documents = _documents(options.filename)
        return _say(options, changing.apply(folder, documents, options.filename, dry=options.dry_run))
    except Invalid as invalid:
        return _refused(invalid)
    except OSError as error:
        return _unwritten(error)


def delete(options: argparse.Namespace) -> int:
    """Take what is named out of the folder; return 2 when nothing was changed for a fault."""
    try:
        keys = sorted(_named(options), key=str)
        return _say(options, changing.delete(_folder(options), keys, dry=options.dry_run))
    except Invalid as invalid:
        return _refused(invalid)
    except OSError as error:
        return _unwritten(error)


def _kind(word: str) -> str:
    if word not in KINDS:
        raise argparse.ArgumentTypeError(f"{word!r} is no kind of resource; known are {', '.join(resources.KINDS)}")
    return KINDS[word]


def _folder(options: argparse.Namespace) -> Path:
    """Return the folder that is meant: the one given, that of a lab's node, or this node's own.

    Raises:
        Invalid: when there is none, or the settings are wrong.
    """
    if options.folder is not None:
        return Path(options.folder)
    if options.node is not None:
        return Path(options.path).parents[3] / "resources"  # LAB/nodes/NODE/run/agent.sock
    settings = settings_file.read(None)
    if settings.datastore == "kubernetes":
        raise Invalid(Fault("datastore", "", "is a Kubernetes API server here; use kubectl, as `kubectl get ippools`"))
    return settings.resource_directory


def _named(options: argparse.Namespace) -> set[Key]:
    """Return the resources that the command line names, or the file that it names.

    Raises:
        Invalid: when the file cannot be read, or holds what is no resource.
    """
    if options.filename is None:
        return {Key(options.kind, name) for name in options.names} if options.kind else set()
    if options.kind is not None:
        raise Invalid(Fault("--filename", "", f"stands beside {options.kind}; give names or a file, not both"))
    keys = [resources.key_of(document) for document in _documents(options.filename)]
    if None in keys or not keys:
        sentence = "holds something that is no resource, or nothing; each needs a kind and a name"
        raise Invalid(Fault(options.filename, "", sentence))
    return {key for key in keys if key is not None}


def _documents(name: str) -> Sequence[object]:
    """Return what a file holds; a List (as of `get -o yaml`) is what stands in it.

    Raises:
        Invalid: when it cannot be read.
    """
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text()
        found = [each for each in yaml.safe_load_all(text) if each is not None]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise Invalid(Fault(name, "", f"cannot be read: {why}")) from error
    return [part for each in found for part in _items(each)]


def _items(document: object) -> Iterable[object]:
    if isinstance(document, Mapping) and document.get("kind") == "List" and isinstance(document.get("items"), list):
        return list(document["items"])
    return [document]


def _is_wanted(each: Standing, kind: str | None, wanted: set[Key]) -> bool:
    return each.key in wanted if wanted else kind is None or each.key.kind == kind


def _row(each: Standing) -> dict[str, str]:
    state = "in force" if each.fault is None else f"not in force: {each.fault}"
    return {"kind": each.key.kind, "name": each.key.name, "file": str(each.path), "state": state}


def _list(chosen: Iterable[Standing]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "items": [dict(each.document) for each in chosen]}


def _say(options: argparse.Namespace, changes: Iterable[Change]) -> int:
    rows = [
        {"kind": each.key.kind, "name": each.key.name, "what": each.what, "file": str(each.path)} for each in changes
    ]
    if options.output in ("json", "yaml"):
        output.document({"changes": rows, "dryRun": options.dry_run}, options.output)
        return 0
    for row in rows:
        would = " (dry run)" if options.dry_run else ""
        print(f"{row['kind']} {row['name']} {row['what']}, {row['file']}{would}")
    return 0


def _refused(invalid: Invalid) -> int:
    for fault in invalid.faults:
        print(f"felixctl: {fault}", file=sys.stderr)
    return client.EXIT_REFUSED


def _unwritten(error: OSError) -> int:
    print(f"felixctl: {error.filename} cannot be written: {error.strerror}; become its owner, or root", file=sys.stderr)
    return client.EXIT_REFUSED
