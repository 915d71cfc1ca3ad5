"""Who may look at a page: nobody by way of a stranger's name, and by default nobody from another machine."""

import pytest

from felix_py.page.gate import Reach, refusal


@pytest.mark.parametrize("host", ["127.0.0.1:9099", "127.0.0.1", "[::1]:9099", "[::1]", "localhost:9099", "localhost"])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine_may_look(host: str, address: str) -> None:
    assert refusal(Reach.LOOPBACK, host, address) is None


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("rebound.example.com:9099", id="a name that leads here"),
        pytest.param("127.0.0.1.example.com", id="a name that begins like an address"),
        pytest.param("localhost.example.com", id="a name that begins like localhost"),
        pytest.param("127.0.0.1:9099:1", id="no host at all"),
        pytest.param("", id="an empty one"),
        pytest.param(None, id="none"),
    ],
)
@pytest.mark.parametrize("reach", [Reach.LOOPBACK, Reach.ENABLED])
def test_a_strangers_name_opens_nothing(reach: Reach, host: str | None) -> None:
    found = refusal(reach, host, "127.0.0.1")
    assert found is not None
    assert "open it by its address" in found


@pytest.mark.parametrize("address", ["172.31.1.12", "fe80::1", "::ffff:172.31.1.12", None, "no address"])
def test_other_machines_may_look_only_where_the_settings_say_so(address: str | None) -> None:
    found = refusal(Reach.LOOPBACK, "172.31.1.11:9099", address)
    assert found is not None
    assert "page: Enabled" in found
    assert refusal(Reach.ENABLED, "172.31.1.11:9099", address) is None
