"""Passwords of sessions: where they may lie, what refuses them, and that a change of the file is a change at once."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from test_directory import NODE, write

from felix_py.datastore import secrets
from felix_py.datastore.directory import DirectoryDatastore
from felix_py.model import Key, Secret
from felix_py.state import Absent, Event, InSync, Present

PEER = """
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: 172.31.1.1, asNumber: 64500, password: {secretKeyRef: {name: tor, key: password}}}
"""


def secret(folder: Path, text: str | bytes, mode: int = 0o600, name: str = "tor/password") -> Path:
    """Write a password as a careful operator does: nobody else can read it at any moment."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.touch(0o600)
    temporary.write_bytes(text if isinstance(text, bytes) else text.encode())
    temporary.chmod(mode)
    temporary.rename(path)
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [("s3cret", "s3cret"), ("s3cret\n", "s3cret"), ("s3cret\r\n", "s3cret"), (" a b ", " a b "), ("x" * 80, "x" * 80)],
)
def test_a_password_is_the_file_without_its_last_line_end(tmp_path: Path, text: str, value: str) -> None:
    secret(tmp_path, text)
    assert secrets.read("tor/password", tmp_path) == Secret("tor/password", value)


def test_a_password_may_lie_elsewhere(tmp_path: Path) -> None:
    path = secret(tmp_path, "s3cret", name="elsewhere")
    assert secrets.read(str(path), Path("/nowhere")).value == "s3cret"


def test_a_group_may_read_it(tmp_path: Path) -> None:
    secret(tmp_path, "s3cret", 0o640)
    assert secrets.read("tor/password", tmp_path).value == "s3cret"


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        pytest.param(
            lambda _: None,
            "{path} does not exist; write the password into it, with mode 0600",
            id="missing",
        ),
        pytest.param(
            lambda folder: secret(folder, "s3cret", 0o644),
            "{path} is open to others (mode 0644); run `chmod 0600 {path}` "
            "(in Kubernetes, give the volume defaultMode: 0400), and change the password",
            id="world-readable",
        ),
        pytest.param(
            lambda folder: secret(folder, "s3cret", 0o620),
            "{path} is open to others (mode 0620); run `chmod 0600 {path}` "
            "(in Kubernetes, give the volume defaultMode: 0400), and change the password",
            id="writable by a group",
        ),
        pytest.param(lambda folder: secret(folder, "\n"), "{path} is empty; write the password into it", id="empty"),
        pytest.param(
            lambda folder: secret(folder, "x" * 81),
            "{path} is longer than 80 octets, which is the most that TCP MD5 takes",
            id="too long",
        ),
        pytest.param(
            lambda folder: secret(folder, b"\xff\xfe"), "{path} is no UTF-8; write the password as text", id="no text"
        ),
        pytest.param(
            lambda folder: (folder / "tor" / "password").mkdir(parents=True),
            "{path} is no regular file; give a file with the password",
            id="a directory",
        ),
        pytest.param(
            lambda folder: ((folder / "tor").mkdir(), os.mkfifo(folder / "tor" / "password")),
            "{path} is no regular file; give a file with the password",
            id="a pipe, which would never end",
        ),
    ],
)
def test_what_refuses_a_password(tmp_path: Path, prepare: Callable[[Path], object], sentence: str) -> None:
    prepare(tmp_path)
    found = secrets.read("tor/password", tmp_path)
    assert found == Secret("tor/password", problem=sentence.format(path=tmp_path / "tor" / "password"))
    assert "s3cret" not in str(found)


async def told(store: DirectoryDatastore, *steps: Callable[[], object]) -> list[list[Event]]:
    """Take what is told of secrets at first, and what each step causes."""
    found: list[list[Event]] = []
    events = store.events()
    for step in (lambda: None, *steps):
        step()
        news: list[Event] = []
        while not news:
            batch = await asyncio.wait_for(anext(events), 5)
            news = [each for each in batch if not isinstance(each, InSync) and each.key.kind == "Secret"]
        found.append(news)
    await events.aclose()  # type: ignore[attr-defined]
    return found


def present(value: str | None = None, problem: str | None = None) -> list[Event]:
    return [Present(Key("Secret", "tor/password"), Secret("tor/password", value, problem))]


def test_a_password_is_followed_from_before_it_exists_to_after_it_is_wanted(tmp_path: Path) -> None:
    resources, folder = tmp_path / "resources", tmp_path / "secrets"
    resources.mkdir()
    write(resources / "node.yaml", NODE)
    write(resources / "peer.yaml", PEER)
    path = folder / "tor" / "password"

    def mount() -> None:
        folder.mkdir()
        secret(folder, "first")

    with structlog.testing.capture_logs() as logged:
        missing, first, rotated, opened, closed, unwanted = asyncio.run(
            told(
                DirectoryDatastore(resources, folder),
                mount,
                lambda: secret(folder, "second"),
                lambda: path.chmod(0o644),
                lambda: path.chmod(0o600),
                (resources / "peer.yaml").unlink,
            )
        )
    assert missing == present(problem=f"{path} does not exist; write the password into it, with mode 0600")
    assert (first, rotated, closed) == (present("first"), present("second"), present("second"))
    assert isinstance(opened[0], Present)
    assert isinstance(opened[0].value, Secret)
    assert opened[0].value.value is None
    assert unwanted == [Absent(Key("Secret", "tor/password"))]
    assert any(str(path) in str(each) for each in logged)
    assert not any(word in str(each) for each in logged for word in ("first", "second"))


def test_a_mounted_secret_is_replaced_whole(tmp_path: Path) -> None:
    """Kubernetes swaps a symbolic link to a directory; the file itself is never written."""
    resources, folder = tmp_path / "resources", tmp_path / "secrets"
    resources.mkdir()
    write(resources / "peer.yaml", PEER)
    mounted = folder / "tor"
    for version in ("one", "two"):
        (mounted / version).mkdir(parents=True)
        secret(mounted, version, name=f"{version}/password")
    (mounted / "..data").symlink_to("one")
    (mounted / "password").symlink_to("..data/password")

    def swap() -> None:
        (mounted / "..data_tmp").symlink_to("two")
        (mounted / "..data_tmp").rename(mounted / "..data")

    assert asyncio.run(told(DirectoryDatastore(resources, folder), swap)) == [present("one"), present("two")]
