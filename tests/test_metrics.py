"""Metrics and probes: what is counted, and what a scrape over TCP brings, read by Prometheus' own parser."""

import asyncio
import contextlib
import errno
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from felix_py import api
from felix_py.api import CLIENTS, Page, TcpApi, Text
from felix_py.config import ListenAddress
from felix_py.health import Health
from felix_py.metrics import Metrics, PeerFacts
from felix_py.probes import Probes

Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


class TwoPeers:
    """A node as it might be."""

    def routes(self) -> Mapping[str, int]:
        return {"installed": 12, "missing": 1}

    def contested(self) -> int:
        return 2

    def peers(self) -> Iterable[PeerFacts]:
        counts = {
            ("ipv4 unicast", "received"): 5,
            ("ipv4 unicast", "accepted"): 4,
            ("ipv4 unicast", "advertised"): 1,
            ("ipv6 unicast", "received"): 2,
        }
        yield PeerFacts("172.31.1.1", "Established", 3, counts, {("sent", "keepalive"): 7})
        yield PeerFacts("172.31.1.12", "Active", 0, dict.fromkeys(counts, 0), {})
        counts = {("ipv6 unicast", "accepted"): 4}
        yield PeerFacts("fd31:1::1", "Established", 0, counts, {})

    def addresses(self) -> Mapping[tuple[str, str], int]:
        return {("pods", "free"): 60, ("pods", "assigned"): 4}

    def config_stale(self) -> bool:
        return True

    def filtered(self) -> Mapping[str, int]:
        return {"pod-spoofed": 7, "nat-outgoing": 0}

    def blocks(self) -> Mapping[tuple[str, str], int]:
        return {("pods", "claimed"): 5, ("pods", "free"): 1019}

    def tunnels(self) -> Mapping[str, int]:
        return {"tunl0": 2}

    def checks(self) -> Mapping[tuple[str, str], bool]:
        return {("live", "loop"): True, ("ready", "bgp"): False}


def samples(text: str) -> Samples:
    families = text_string_to_metric_families(text)
    return {
        (each.name, tuple(sorted(each.labels.items()))): each.value for family in families for each in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


def test_what_is_counted_comes_out() -> None:
    metrics = Metrics()
    metrics.applied(0.004)
    metrics.resynced(0.3)
    metrics.repaired("route deleted", 2)
    metrics.wrote("put", 10)
    metrics.refused(errno.ENETUNREACH)
    metrics.refused(9999)
    metrics.events_lost()
    metrics.conntrack_purged(17)
    metrics.cni("ADD", 0.05)
    metrics.logged({"event": "route.put", "dst": "x"})
    found = samples(metrics.text().decode())
    assert value(found, "felix_apply_seconds_bucket", le="0.0025") == 0
    assert value(found, "felix_apply_seconds_bucket", le="0.005") == 1
    assert value(found, "felix_resync_seconds_sum") == 0.3
    assert value(found, "felix_route_repairs_total", cause="route deleted") == 2
    assert value(found, "felix_route_writes_total", kind="put") == 10
    assert value(found, "felix_route_writes_total", kind="delete") == 0
    assert value(found, "felix_netlink_refusals_total", errno="ENETUNREACH") == 1
    assert value(found, "felix_netlink_refusals_total", errno="9999") == 1
    assert value(found, "felix_events_lost_total") == 1
    assert value(found, "felix_conntrack_entries_purged_total") == 17
    assert value(found, "felix_cni_seconds_count", command="ADD") == 1
    assert value(found, "felix_log_events_total", event="route.put") == 1
    assert value(found, "process_resident_memory_bytes") > 1 << 20
    assert not [name for name, _ in found if name.endswith("_created")]


def test_facts_are_read_when_somebody_asks() -> None:
    metrics = Metrics()
    metrics.expose(TwoPeers())
    found = samples(metrics.text().decode())
    assert value(found, "felix_routes", state="installed") == 12
    assert value(found, "felix_routes_contested") == 2
    assert value(found, "felix_bgp_session_state", peer="172.31.1.1", state="Established") == 1
    assert value(found, "felix_bgp_session_state", peer="172.31.1.12", state="Established") == 0
    assert value(found, "felix_bgp_session_state", peer="172.31.1.12", state="Active") == 1
    assert value(found, "felix_bgp_routes", peer="172.31.1.1", family="ipv4 unicast", kind="accepted") == 4
    assert value(found, "felix_bgp_routes", peer="172.31.1.1", family="ipv6 unicast", kind="received") == 2
    assert value(found, "felix_bgp_routes", peer="fd31:1::1", family="ipv6 unicast", kind="accepted") == 4
    assert value(found, "felix_bgp_session_flaps_total", peer="172.31.1.1") == 3
    assert value(found, "felix_bgp_messages_total", peer="172.31.1.1", direction="sent", kind="keepalive") == 7
    assert value(found, "felix_ipam_addresses", pool="pods", state="free") == 60
    assert value(found, "felix_config_stale") == 1
    assert value(found, "felix_netfilter_packets_total", counter="pod-spoofed") == 7
    assert value(found, "felix_netfilter_packets_total", counter="nat-outgoing") == 0
    assert value(found, "felix_ipam_blocks", pool="pods", state="free") == 1019
    assert value(found, "felix_tunnel_remotes", device="tunl0") == 2
    assert value(found, "felix_health_check", probe="live", check="loop") == 1
    assert value(found, "felix_health_check", probe="ready", check="bgp") == 0


def test_two_agents_of_one_process_do_not_share_a_registry() -> None:
    first, second = Metrics(), Metrics()
    first.wrote("put", 5)
    assert value(samples(second.text().decode()), "felix_route_writes_total", kind="put") == 0
    first.expose(TwoPeers())
    with pytest.raises(ValueError, match="Duplicated"):
        first.expose(TwoPeers())


# --- over TCP


def serving(work: Callable[[TcpApi], Awaitable[Any]], health: Health | None = None) -> Any:
    """Run `work` while probes are served on a port of the kernel's choice."""

    async def scenario() -> Any:
        metrics = Metrics()
        metrics.expose(TwoPeers())
        probes = Probes(health or Health(0.0, {"loop": 90.0}), metrics, clock=lambda: 10.0)
        server = TcpApi(ListenAddress("127.0.0.1", 0), probes.all(), setting="metricsAddress")
        serving = asyncio.create_task(server.serve())
        await server.listening.wait()
        try:
            return await work(server)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    return asyncio.run(scenario())


def fetch(port: int, path: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def asked(path: str, health: Health | None = None) -> tuple[int, str, str]:
    answer: tuple[int, str, str] = serving(lambda server: asyncio.to_thread(fetch, server.port, path), health)
    return answer


def test_a_scrape_over_tcp_is_what_prometheus_reads() -> None:
    status, content_type, text = asked("/metrics")
    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert value(samples(text), "felix_routes", state="missing") == 1


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        pytest.param("/livez", 200, "ok\n", id="live"),
        pytest.param("/livez?verbose", 200, "[+]loop ok\nlivez check passed\n", id="live, verbose"),
        pytest.param("/readyz", 503, "[-]inSync failed: not in sync yet\nreadyz check failed\n", id="not ready"),
        pytest.param(
            "/healthz",
            404,
            '{"error": "/healthz is not known here; known are /livez, /readyz, /metrics"}',
            id="unknown",
        ),
        pytest.param("/", 404, '{"error": "/ is not known here; known are /livez, /readyz, /metrics"}', id="root"),
    ],
)
def test_probes(path: str, status: int, text: str) -> None:
    found = asked(path, Health(0.0, {"loop": 90.0}, {"inSync": lambda: "not in sync yet"}))
    assert (found[0], found[2]) == (status, text)


def test_a_loop_that_hangs_makes_the_agent_dead() -> None:
    assert asked("/livez", Health(0.0, {"loop": 5.0}))[0] == 503


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"HTTP/1.1 400", id="TLS"),
        pytest.param(b"DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 405", id="another method"),
        pytest.param(b"GET /met", b"HTTP/1.1 400", id="half a request"),
    ],
)
def test_rubbish_does_no_harm(sent: bytes, answered: bytes) -> None:
    async def work(server: TcpApi) -> tuple[bytes, int]:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(sent)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer[:12], (await asyncio.to_thread(fetch, server.port, "/livez"))[0]

    assert serving(work) == (answered, 200)


def test_slow_clients_are_cut_off_and_never_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "DEADLINE", 0.3)

    async def work(server: TcpApi) -> tuple[list[bytes], bytes, int]:
        opened = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(CLIENTS)]
        for _, writer in opened:
            writer.write(b"GET /liv")
        too_many, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            refused = await too_many.read()
        except ConnectionResetError:
            refused = b""
        writer.close()
        cut = await asyncio.gather(*(_rest(reader) for reader, _ in opened))
        for _, each in opened:
            each.close()
        return cut, refused, (await asyncio.to_thread(fetch, server.port, "/livez"))[0]

    assert serving(work) == ([b""] * CLIENTS, b"", 200)


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


def test_an_end_waits_for_no_client() -> None:
    clients: list[socket.socket] = []

    async def work(server: TcpApi) -> float:
        clients.append(socket.create_connection(("127.0.0.1", server.port)))
        clients[0].sendall(b"GET /liv")
        assert (await asyncio.to_thread(fetch, server.port, "/livez"))[0] == 200  # by then the one before is accepted
        return time.monotonic()

    began_to_end: float = serving(work)
    assert time.monotonic() - began_to_end < 2
    with clients[0] as client:
        client.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""


def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "DEADLINE", 0.2)
    size = 32 << 20

    async def big(_parts: tuple[str, ...], _query: Mapping[str, str]) -> Page:
        return 200, Text("text/plain", b"x" * size)

    async def scenario() -> int:
        server = TcpApi(ListenAddress("127.0.0.1", 0), {"big": big}, setting="metricsAddress")
        serving = asyncio.create_task(server.serve())
        await server.listening.wait()
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
            while not server._clients:  # noqa: ASYNC110 - until it is heard, which nothing announces
                await asyncio.sleep(0)
            async with asyncio.timeout(5):
                while server._clients:  # noqa: ASYNC110 - until it is given up, the same
                    await asyncio.sleep(0.01)
            client.settimeout(5)
            received = await asyncio.to_thread(drained, client)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        return received

    assert asyncio.run(scenario()) < size


def drained(client: socket.socket) -> int:
    received = 0
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(1 << 20):
            received += len(data)
    return received


def test_a_port_in_use_is_a_warning_that_names_the_setting_and_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "LISTEN_AGAIN", 0.01)

    async def scenario() -> tuple[list[str], int]:
        with socket.create_server(("127.0.0.1", 0)) as other, capture_logs() as logged:
            address = ListenAddress("127.0.0.1", other.getsockname()[1])
            server = TcpApi(address, {}, setting="metricsAddress")
            serving = asyncio.create_task(server.serve())
            while not logged:  # noqa: ASYNC110 - until it was said, which nothing announces
                await asyncio.sleep(0)
            other.close()
            await asyncio.wait_for(server.listening.wait(), 5)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            return [f"{entry['event']} {entry['reason']}" for entry in logged], address.port

    said, port = asyncio.run(scenario())
    reason = "Address already in use; free it, or give another metricsAddress, or none"
    assert said == [f"metrics.refused 127.0.0.1:{port} cannot be listened on: {reason}"]


@pytest.mark.slow
def test_the_library_alone_opens_no_port_and_starts_no_thread() -> None:
    script = "import threading, felix_py.metrics as m; m.Metrics().text(); print(threading.active_count())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
