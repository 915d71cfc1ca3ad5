"""The route engine: how fast routes get into the kernel, how soon a lost one is back, what holding them costs.

Whatever is measured beside another program runs in turn with it, in one call and in namespaces of its own. SIZE=
is how many routes a full table has (100,000), and scales all other numbers of routes; IDLE_SECONDS= shortens the rest.
"""

import sys

import route_moves
import route_rates
import route_repairs
import route_resync

PARTS = (
    route_rates.through_the_engine,
    route_rates.by_the_writer,
    route_resync.nothing_to_do,
    route_repairs.by_the_agent,
    route_moves.to_another_next_hop,
    route_rates.beside_bird,
)


def main() -> int:
    kept = [part() for part in PARTS]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
