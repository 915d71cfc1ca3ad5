"""The table that decides about one identity: wish and fact in, verdict out."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from felix_py.kernel import route_codec
from felix_py.kernel.objects import KernelState, PutSysctl, PutTunnel, Route, RouteKey
from felix_py.kernel.reconcile import Verdict, after_routes, judge, parameters_and_tunnels
from felix_py.kernel.wire import Mode
from ipip.tunnel import Tunnel

REMOTE = RouteKey(IPv4Network("10.65.1.0/26"))
ADD, REPLACE = Mode.CREATE | Mode.EXCLUSIVE, Mode.CREATE | Mode.REPLACE


def body(via: str, protocol: int = 80) -> bytes:
    route = Route(via=IPv4Address(via), device="eth0", protocol=protocol)
    return route_codec.Encoder({"eth0": 2})(REMOTE, route)


WANT, OLD, BOOT, STATIC = body("172.31.1.12"), body("172.31.1.13"), body("172.31.1.99", 3), body("172.31.1.98", 4)


@pytest.mark.parametrize(
    ("want", "stack", "verdict"),
    [
        pytest.param(None, (), Verdict("nobody wants it"), id="neither wanted nor there"),
        pytest.param(None, (OLD,), Verdict("nobody wants it", delete=(OLD,)), id="ours, not wanted"),
        pytest.param(None, (STATIC, OLD), Verdict("nobody wants it", delete=(OLD,)), id="ours behind somebody's"),
        pytest.param(None, (STATIC,), Verdict("nobody wants it"), id="somebody's, not wanted by us"),
        pytest.param(WANT, (), Verdict("nothing stands there", WANT, ADD), id="missing"),
        pytest.param(WANT, (WANT,), Verdict("it stands there"), id="as wanted"),
        pytest.param(WANT, (WANT, OLD), Verdict("it stands there", delete=(OLD,)), id="an old one behind it"),
        pytest.param(WANT, (WANT, STATIC), Verdict("it stands there"), id="somebody's behind it"),
        pytest.param(WANT, (OLD,), Verdict("replaced in place", WANT, REPLACE), id="differs"),
        pytest.param(WANT, (BOOT,), Verdict("replaced in place", WANT, REPLACE), id="left by a tool: taken over"),
        pytest.param(
            WANT, (OLD, WANT), Verdict("it stands behind another", delete=(OLD,)), id="an old one in front of it"
        ),
        pytest.param(
            WANT, (BOOT, OLD), Verdict("replaced in place", WANT, REPLACE, delete=(OLD,)), id="taken over, old one goes"
        ),
        pytest.param(
            WANT, (STATIC,), Verdict("somebody else's, left alone", in_the_way=STATIC), id="an administrator's stays"
        ),
        pytest.param(
            WANT,
            (STATIC, OLD),
            Verdict("somebody else's, left alone", delete=(OLD,), in_the_way=STATIC),
            id="an administrator's stays, an old one of ours goes",
        ),
        pytest.param(
            WANT,
            (STATIC, WANT),
            Verdict("somebody else's, left alone", in_the_way=STATIC),
            id="an administrator's stays, ours stays behind it",
        ),
    ],
)
def test_verdict(want: bytes | None, stack: tuple[bytes, ...], verdict: Verdict) -> None:
    assert judge(want, stack, lambda each: route_codec.protocol_of(each) == 80) == verdict


def test_a_drifted_parameter_is_set_again() -> None:
    want = KernelState(sysctls={"net/ipv4/conf/cali1/proxy_arp": "1"})
    have = KernelState(sysctls={"net/ipv4/conf/cali1/proxy_arp": "0"})
    assert tuple(parameters_and_tunnels(want, have)) == (PutSysctl("net/ipv4/conf/cali1/proxy_arp", "1"),)
    assert tuple(parameters_and_tunnels(want, want)) == ()


def test_a_tunnel_is_put_before_routes_and_removed_after_them() -> None:
    tunnel = Tunnel(local=IPv4Address("172.31.1.11"), mtu=1480)
    wanted, nothing = KernelState(tunnels={"tunl0": tunnel}), KernelState()
    assert tuple(parameters_and_tunnels(wanted, nothing)) == (PutTunnel(tunnel),)
    assert tuple(parameters_and_tunnels(wanted, wanted)) == ()
    assert [step.name for step in after_routes(nothing, wanted)] == ["tunl0"]
