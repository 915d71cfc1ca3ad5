"""The way of one packet, hop by hop: each machine's kernel is asked what it would do, and the next machine after it.

Reading order: `words` (packet, question, answer), `encapsulations` (the table of tunnels), `seams` (the kernel as
we see it), `rules` (of policy routing), `conditions` (of packet filters), `filters` and `refusals` (why a packet ends),
`passing` (one packet at one machine; pure), `sight` (the real kernel), `walk` (from machine to machine), `documents`
(all of it as JSON).
"""
