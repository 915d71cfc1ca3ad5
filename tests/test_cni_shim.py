"""The static binary alone: what it answers without an agent, what it passes on, and that nothing makes it crash."""

import json
import os
import shutil
import socket
import subprocess
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).parent.parent / "felix_py" / "cni" / "felix-cni.c"
SHIM = Path(sysconfig.get_path("scripts"), "felix-cni")
STATUS = b'{"cniVersion": "1.1.0", "name": "pods"}'


def run(
    environment: dict[str, str], standard_input: bytes | int = b"", program: Path = SHIM
) -> subprocess.CompletedProcess[bytes]:
    channel: dict[str, Any] = (
        {"input": standard_input} if isinstance(standard_input, bytes) else {"stdin": standard_input}
    )
    return subprocess.run([program], env=environment, capture_output=True, timeout=30, check=False, **channel)


@contextmanager
def agent(folder: Path, answer: Callable[[socket.socket], None]) -> Iterator[dict[str, str]]:
    """Stand at the other end of the socket for one call; give the environment that leads there."""
    path = folder / "cni.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield {"FELIX_CNI_SOCKET": str(path)}
        thread.join(10)
        assert not thread.is_alive()


def read_all(connection: socket.socket) -> tuple[bytes, list[int]]:
    data, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 4)
    while piece := connection.recv(1 << 16):
        data += piece
    return data, list(descriptors)


def test_is_installed_and_static() -> None:
    assert os.access(SHIM, os.X_OK)
    assert SHIM.read_bytes()[:4] == b"\x7fELF", "a C compiler was missing when felix-py was installed"


def test_started_by_hand_it_says_what_it_is() -> None:
    done = run({})
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"felix-cni is a CNI plugin" in done.stderr


@pytest.mark.parametrize(
    ("standard_input", "version"),
    [
        (b"", "1.1.0"),
        (b'{"cniVersion": "0.4.0"}', "0.4.0"),
        (b'{"name": "x", "cniVersion"  :\n "0.3.1"}', "0.3.1"),
        (b'{"cniVersion": 5}', "1.0.0"),
        (b'{"cniVersion": "1.0.0-and-much-more-than-a-version"}', "1.0.0"),
        (b'{"cniVersion": "', "1.0.0"),
        (b'"cniVersion"', "1.0.0"),
    ],
)
def test_version_needs_no_agent(standard_input: bytes, version: str) -> None:
    done = run({"CNI_COMMAND": "VERSION"}, standard_input)
    assert done.returncode == 0
    assert json.loads(done.stdout) == {
        "cniVersion": version,
        "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    }


def test_version_needs_no_standard_input() -> None:
    done = run({"CNI_COMMAND": "VERSION"}, subprocess.DEVNULL)
    assert json.loads(done.stdout)["cniVersion"] == "1.1.0"


@pytest.mark.parametrize(("command", "code"), [("ADD", 11), ("DEL", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)])
def test_without_an_agent_the_runtime_is_told_to_come_again(tmp_path: Path, command: str, code: int) -> None:
    path = tmp_path / "cni.sock"
    done = run({"CNI_COMMAND": command, "FELIX_CNI_SOCKET": str(path)}, b'{"cniVersion": "0.4.0"}')
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "cniVersion": "0.4.0",
        "code": code,
        "msg": f"the agent does not answer at {path}: No such file or directory; start felix-agent on this node",
    }


def delete(folder: Path, container: str, program: Path = SHIM, **more: str) -> subprocess.CompletedProcess[bytes]:
    variables = {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": container, "CNI_IFNAME": "eth0", **more}
    return run({**variables, "FELIX_CNI_SOCKET": str(folder / "run" / "cni.sock")}, STATUS, program)


def test_a_del_without_an_agent_is_left_as_a_note_in_the_form_of_a_call(tmp_path: Path) -> None:
    for _ in range(2):
        done = delete(tmp_path, "c1", CNI_NETNS="")
        assert (done.returncode, done.stdout) == (0, b"")
    (note,) = (tmp_path / "run" / "cni-deletions").iterdir()
    assert note.name == "c1@eth0"
    call = b"felix-cni 1\0CNI_COMMAND=DEL\0CNI_CONTAINERID=c1\0CNI_NETNS=\0CNI_IFNAME=eth0\0\0" + STATUS
    assert note.read_bytes() == call


@pytest.mark.parametrize("container", ["", "../c1", "a/b", "c 1", "x" * 121, "\xff"])
def test_a_del_whose_names_cannot_be_a_files_leaves_no_note(tmp_path: Path, checked: Path, container: str) -> None:
    done = delete(tmp_path, container, checked)
    assert (done.returncode, done.stderr) == (1, b"")
    assert json.loads(done.stdout)["code"] == 11
    assert not (tmp_path / "run").exists()


def test_a_del_that_cannot_be_written_down_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("no folder")
    assert json.loads(delete(tmp_path, "c1").stdout)["code"] == 11


def test_a_del_is_left_as_a_note_when_the_agent_dies_before_it_answers(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "run" / "cni.sock"))
        listener.listen()

        def die() -> None:
            connection, _ = listener.accept()
            listener.close()
            connection.close()

        thread = threading.Thread(target=die)
        thread.start()
        done = delete(tmp_path, "c1")
        thread.join(10)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"it does this DEL when it starts" in done.stderr
    assert [each.name for each in (tmp_path / "run" / "cni-deletions").iterdir()] == ["c1@eth0"]


def test_a_socket_that_nobody_serves_any_more(tmp_path: Path) -> None:
    path = tmp_path / "cni.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    done = run({"CNI_COMMAND": "ADD", "FELIX_CNI_SOCKET": str(path)}, STATUS)
    assert "Connection refused" in json.loads(done.stdout)["msg"]


@pytest.mark.parametrize("path", ["/nowhere/" + "x" * 200, '/"quotes"\\and\x07bells', "/\xff\xfe"])
def test_odd_socket_paths_still_give_json(path: str) -> None:
    done = run({"CNI_COMMAND": "ADD", "FELIX_CNI_SOCKET": path}, STATUS)
    assert json.loads(done.stdout)["code"] == 11


def test_passes_on_variables_input_and_descriptor(tmp_path: Path) -> None:
    seen: list[bytes | list[int]] = []
    place = tmp_path / "namespace"
    place.write_text("what is behind the descriptor")

    def answer(connection: socket.socket) -> None:
        data, descriptors = read_all(connection)
        seen.append(data)
        seen.append([len(descriptors)])
        with os.fdopen(descriptors[0], "rb") as file:
            seen.append(file.read())
        connection.sendall(b'0{"ips": []}\n')

    with agent(tmp_path, answer) as environment:
        done = run(
            {"CNI_COMMAND": "ADD", "CNI_NETNS": str(place), "CNI_ARGS": "", "SECRET": "x", **environment}, STATUS
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, b'{"ips": []}\n', b"")
    call = b"felix-cni 1\0CNI_COMMAND=ADD\0CNI_NETNS=" + str(place).encode() + b"\0CNI_ARGS=\0\0" + STATUS
    assert seen == [call, [1], b"what is behind the descriptor"]


@pytest.mark.parametrize(
    ("answer", "status", "out"),
    [(b"0", 0, b""), (b'1{"code": 7}\n', 1, b'{"code": 7}\n'), (b"0" + b"x" * 100_000, 0, b"x" * 100_000)],
    ids=["nothing to say", "an error", "much to say"],
)
def test_prints_the_answer_and_takes_its_status(tmp_path: Path, answer: bytes, status: int, out: bytes) -> None:
    def speak(connection: socket.socket) -> None:
        read_all(connection)
        connection.sendall(answer)

    with agent(tmp_path, speak) as environment:
        done = run({"CNI_COMMAND": "DEL", **environment}, STATUS)
    assert (done.returncode, done.stdout) == (status, out)


def test_an_answer_ends_with_its_line(tmp_path: Path) -> None:
    told = threading.Event()

    def speak(connection: socket.socket) -> None:
        read_all(connection)
        connection.sendall(b'0{"ips": ')
        connection.sendall(b"[]}\n")
        assert told.wait(10), "the shim waits for the end of the stream"

    with agent(tmp_path, speak) as environment:
        done = run({"CNI_COMMAND": "ADD", **environment}, STATUS)
        told.set()
    assert (done.returncode, done.stdout) == (0, b'{"ips": []}\n')


@pytest.mark.parametrize("answer", [b"", b"hello", b"\0"], ids=["nothing", "no status", "zero"])
def test_an_agent_that_dies_meanwhile_is_told_apart_from_an_answer(tmp_path: Path, answer: bytes) -> None:
    def speak(connection: socket.socket) -> None:
        read_all(connection)
        connection.sendall(answer)

    with agent(tmp_path, speak) as environment:
        done = run({"CNI_COMMAND": "ADD", **environment}, STATUS)
    assert json.loads(done.stdout) == {
        "cniVersion": "1.1.0",
        "code": 11,
        "msg": "the agent went away before it answered; see its log",
    }


def test_a_fifo_for_a_namespace_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    done = run({"CNI_COMMAND": "ADD", "CNI_NETNS": str(tmp_path / "fifo"), "FELIX_CNI_SOCKET": "/nowhere"}, STATUS)
    assert json.loads(done.stdout)["code"] == 11


def test_too_much_input_is_refused(tmp_path: Path) -> None:
    done = run({"CNI_COMMAND": "ADD", "FELIX_CNI_SOCKET": str(tmp_path / "s")}, STATUS + b" " * (1 << 20))
    assert json.loads(done.stdout)["msg"] == "the configuration on standard input has more than 1 MiB; shorten it"


def test_exactly_as_much_as_fits_is_passed_on(tmp_path: Path) -> None:
    lengths: list[int] = []

    def speak(connection: socket.socket) -> None:
        lengths.append(len(read_all(connection)[0]))
        connection.sendall(b"0")

    with agent(tmp_path, speak) as environment:
        assert run({"CNI_COMMAND": "ADD", **environment}, STATUS.ljust(1 << 20)).returncode == 0
    assert lengths == [(1 << 20) + len(b"felix-cni 1\0CNI_COMMAND=ADD\0\0")]


@pytest.fixture(scope="session")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same program with address and undefined-behaviour checks, which abort at the first fault."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc: apt-get install gcc")
    program = tmp_path_factory.mktemp("shim") / "felix-cni"
    flags = ("-g", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined")
    subprocess.run(["gcc", *flags, "-fno-sanitize-recover=all", "-o", program, SOURCE], check=True)
    return program


def odd_calls() -> Iterator[tuple[dict[str, str], bytes]]:
    """Give calls of every sort of oddity, the same ones each time."""
    random = Random(7)  # noqa: S311 - no secret
    pieces = (b'"cniVersion"', b":", b'"', b"1.0.0", b"{", b"}", b"\0", b" ", b"\xff", b"9" * 30, b"\\", b"\n")
    for number in range(40):
        text = b"".join(random.choice(pieces) for _ in range(random.randrange(12)))
        value = "".join(random.choice('ab/.\x01"\\%s\x7f') for _ in range(random.randrange(40)))
        command = random.choice(("ADD", "VERSION", "STATUS", "x" * 5000, value or "GC"))
        yield (
            {"CNI_COMMAND": command, "CNI_ARGS": value * 50, "CNI_NETNS": value, "FELIX_CNI_SOCKET": f"/{value}"},
            text,
        )
        if number % 20 == 0:
            yield {"CNI_COMMAND": "ADD", "CNI_ARGS": "x" * 120_000, "FELIX_CNI_SOCKET": "/n"}, text * 80_000


def test_hostile_input_never_crashes_it(checked: Path) -> None:
    for environment, standard_input in odd_calls():
        done = run(environment, standard_input, checked)
        assert done.returncode in (0, 1), done.stderr.decode(errors="replace")
        assert done.stderr == b""
        json.loads(done.stdout)


def test_hostile_answers_never_crash_it(checked: Path, tmp_path: Path) -> None:
    for number, answer in enumerate((b"", b"0", b"9", b"\xff" * 10, b"0" + b"\0" * 1000, b"0" + b"x" * (3 << 20))):

        def speak(connection: socket.socket, answer: bytes = answer) -> None:
            read_all(connection)
            try:
                connection.sendall(answer)
            except BrokenPipeError:
                assert len(answer) > 1 << 20

        folder = tmp_path / str(number)
        folder.mkdir()
        with agent(folder, speak) as environment:
            done = run({"CNI_COMMAND": "ADD", **environment}, STATUS, checked)
        assert done.stderr == b""
        assert done.returncode in (0, 1, 9)
