"""Histories of changes that are the same for both kernels: whatever is asked for, both answer and hold the same."""

import random
from collections.abc import Callable, Iterator

from contract_ipv6 import SIX, siblings, six
from contract_labs import ADD, APPEND, BEFORE, REPLACE, FakeLab, Lab
from contract_objects import BOTH, GROUP, ONE, TWO, VIA_CALI1, VIA_ETH0
from contract_routes import REMOTE, via

from felix_py.kernel import next_hop_codec
from felix_py.kernel.objects import NextHop, NextHopObject, Route, RouteKey, RouteType, Scope
from felix_py.kernel.wire import Mode, Verb

MODES = (ADD, REPLACE, APPEND, BEFORE, Mode.REPLACE, Mode.APPEND, Mode.NONE)
KEYS = (REMOTE, RouteKey(REMOTE.dst, metric=7))
ROUTES = (
    via(12),
    via(13),
    via(12, protocol=4),
    via(13, device="cali1"),
    Route(device="cali1", scope=Scope.LINK),
    Route(device="eth0", scope=Scope.LINK, mtu=1400),
    Route(RouteType.BLACKHOLE),
    Route(RouteType.UNREACHABLE, protocol=4),
    Route(hops=(NextHop(via(12).via, "eth0", onlink=True), NextHop(via(13).via, "cali1", onlink=True))),
    Route(hops=(NextHop(via(13).via, "eth0", onlink=True, weight=2), NextHop(via(12).via, "eth0", onlink=True))),
    Route(through=ONE),
    Route(through=GROUP),
)
KEYS6 = (SIX, RouteKey(SIX.dst, metric=7))
SIBLINGS = (six(12), six(13), six(14, protocol=4), siblings(six(12), six(13)), siblings(six(13), six(14)))
ALONE = (Route(device="cali1"), Route(device="eth0", protocol=4), Route(RouteType.BLACKHOLE))
"""Under keys of their own: beside siblings the kernel forgets about them, in dumps and when their link goes down."""

OBJECTS = (
    (ONE, VIA_ETH0),
    (ONE, NextHopObject(NextHop(via(77).via, "eth0", onlink=True))),
    (TWO, VIA_CALI1),
    (GROUP, BOTH),
)

Step = tuple[str, Callable[[Lab], object]]


def change(verb: Verb, mode: Mode, key: RouteKey, route: Route) -> Callable[[Lab], object]:
    return lambda lab: lab.foreign(verb, mode, lab.body(key, route))


def put_object(mode: Mode, number: int, entry: NextHopObject) -> Callable[[Lab], object]:
    return lambda lab: lab.foreign(Verb.NEW_NEXT_HOP, mode, next_hop_codec.encode(number, entry, lab.indexes))


def delete_object(number: int) -> Callable[[Lab], object]:
    return lambda lab: lab.foreign(Verb.DELETE_NEXT_HOP, Mode.NONE, next_hop_codec.by_number(number))


def link(action: str) -> Callable[[Lab], object]:
    return {
        "down": lambda lab: lab.down("cali1"),
        "up": lambda lab: lab.up("cali1"),
        "no address": lambda lab: lab.address("del", "eth0", "172.31.1.11/24"),
        "address": lambda lab: lab.address("add", "eth0", "172.31.1.11/24"),
    }[action]


def steps(choice: random.Random, count: int) -> Iterator[Step]:
    """Return a history: what is done, in words, and how. `choice` decides."""
    up, address = True, True
    for _ in range(count):
        kind = choice.choices(("put", "delete", "object", "link"), (10, 4, 3, 1))[0]
        key = choice.choice((*KEYS, *KEYS6))
        route = choice.choice({SIX: SIBLINGS, KEYS6[1]: ALONE}.get(key, ROUTES))
        # How IPv6 takes back a multipath route of which it has one next hop already is nothing to rely on.
        mode = choice.choice((ADD, REPLACE) if key == SIX and route.hops else MODES)
        if kind == "put":
            yield f"put {mode!r} {key} {route}", change(Verb.NEW_ROUTE, mode, key, route)
        elif kind == "delete":
            yield f"delete {key} {route}", change(Verb.DELETE_ROUTE, Mode.NONE, key, route)
        elif kind == "object" and choice.random() < 0.7:
            number, entry = choice.choice(OBJECTS)
            mode = choice.choice((ADD, REPLACE))
            yield f"object {mode!r} {number} {entry}", put_object(mode, number, entry)
        elif kind == "object":
            number = choice.choice((ONE, TWO, GROUP))
            yield f"object delete {number}", delete_object(number)
        elif choice.random() < 0.5:
            up = not up
            action = "up" if up else "down"
            yield action, link(action)
        else:
            address = not address
            action = "address" if address else "no address"
            yield action, link(action)


def held(lab: Lab) -> dict[str, object]:
    """Return what a kernel holds, with names in place of indexes."""
    objects = sorted(lab.wire.dump_next_hops())
    return {
        **{str(key): lab.stack(key) for key in (*KEYS, *KEYS6)},
        "objects": [next_hop_codec.decode(body, lab.names) for body in objects],
    }


def same_history(seed: int) -> Callable[[Lab], None]:
    """Return a case: a lab goes through a history together with the fake."""

    def case(lab: Lab) -> None:
        fake, done = FakeLab(), []
        for words, do in steps(random.Random(seed), 60):  # noqa: S311 - nothing to keep secret
            done.append(words)
            answers = do(lab), do(fake)
            states = held(lab), held(fake)
            told = lab.route_events(), told_to(lab, fake)
            for real, made in (answers, states, told):
                assert real == made, "\n".join([f"{real}", "is not", f"{made}", *done])

    return case


def told_to(lab: Lab, fake: FakeLab) -> list[tuple[Verb, Mode, int, Route]]:
    """Return what the fake has told, with the other one's port for that of whoever changed it."""
    ports = {fake.foreign_port: lab.foreign_port}
    return [(verb, mode, ports.get(port, port), route) for verb, mode, port, route in fake.route_events()]
