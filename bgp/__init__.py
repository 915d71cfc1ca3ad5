"""A route speaker: prefixes and peers in, best paths with their reasons out; nothing of pools or tunnels.

Read in this order:

1. `types`: paths, attributes, and what speaker and wire say to each other.
2. `decision`: which of several paths is the best, and by which rule each other one lost.
3. `policy`: which paths are not wanted at all, and why.
4. `rib`: Adj-RIB-In, Loc-RIB, Adj-RIB-Out.
5. `peering`: which sessions a node holds.
6. `session`, `speaker`: the machine; it has no socket and no clock, and can be told anything in a test.
7. `exabgp_codec`, `exabgp_events`: the machine's words as ExaBGP's text, and ExaBGP's JSON as the machine's words.
8. `exabgp_process`, `child_process`: the real wire, a process of its own, and who keeps it alive.
9. `exabgp_start`, `exabgp_child`, `exabgp_reactor`: what runs in that process.
10. `report`: what people and metrics see; `notification`: error codes in words.

```
 configure() ─▶ Speaker ─Announce, Withdraw, HoldSessions─▶ codec ─text─▶ child (ExaBGP) ─▶ peers
                  │  ▲                                                       │
 best_paths() ◀───┘  └──UpdateReceived, PeerUp, EndOfRib, ...── events ◀─JSON┘
```
"""
