"""A route speaker: prefixes and peers in, best paths with their reasons out; nothing of pools or tunnels.

Read in this order:

1. `types`: paths, attributes, and what speaker and wire say to each other.
2. `decision`: which of several paths is the best, and by which rule each other one lost.
3. `filters`, `policy`, `export_policy`: which paths are not wanted, what is told to whom, and why (`policy_facts`: what
   they have to know; `communities`, `prefix_table`, `spans`, `ipv4_prefix`: what they are made of).
4. `rib`: Adj-RIB-In, Loc-RIB, Adj-RIB-Out.
5. `peering`: which sessions a node holds.
6. `speaker`: the machine; it has no socket and no clock, and can be told anything in a test. What it is told and what
   it wants done: `speaker_words`. What it knows of a peer: `session`. What it does, by noun: `importing` (what peers
   say, judged), `exporting` (what peers are told, by difference), `session_policies`, `holding` (whom the wire was told
   to hold sessions with), `limits` (too many prefixes), `keeping` (graceful restart, route refresh), `waiting` (for
   whom, and how long). `moved`: what has changed in the Loc-RIB, for who asks now and then.
7. `exabgp_codec`, `exabgp_attributes`, `exabgp_events`: the machine's words as ExaBGP's text, and ExaBGP's JSON as the
   machine's words.
   `exabgp_updates`, `update_codec`, `attribute_codec`, `prefixes`: UPDATEs, which come as they are on the wire, as the
   machine's words; `update_faults`: what is done about malformed ones.
8. `exabgp_process`, `child_process`: the real wire, a process of its own, and who keeps it alive (`supervision`: when
   it is taken for stuck, and how soon a dead one is started again).
9. `exabgp_start`, `exabgp_child`, `exabgp_reactor`, `exabgp_dialling`, `exabgp_wire`, `exabgp_timers`,
   `exabgp_options`, `exabgp_shortcuts`: what runs there.
10. `report`, `policy_report`, `path_report`: what people and metrics see; `notification`: error codes in words.
11. `faults`: why a session is not up, as a table of sentences; `drops`: what the kernel has dropped, the evidence.

```
 configure() ─▶ Speaker ─Announce, Withdraw, HoldSessions─▶ codec ─text─▶ child (ExaBGP) ─▶ peers
                  │  ▲                                                       │
 best_paths() ◀───┘  ├─PeerUp, PeerDown, ... ────────────────── events ◀─JSON┤
                     └─UpdateReceived, EndOfRib ──────── update_codec ◀─bytes┘
```
"""
