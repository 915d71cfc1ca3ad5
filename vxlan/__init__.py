"""VXLAN (RFC 7348) between nodes: what the devices should be and hold, and the effects that make it so.

Reading order: `tunnel` (what a node's device should be, as a value; which hardware address a node's device has),
`entries` (neighbours and forwarding entries as bytes), then the effects: `links` (one interface), `wire` (entries by
the hundred), `watch` (hears what others change), `device` (reads a device back and makes it so, over all of these).

The kernel carries every packet. Nothing is learned from packets: each other node has one neighbour and one forwarding
entry, which are wanted, read back and repaired as routes are. Knows nothing of pools, nodes or BGP; of `ipip` it takes
how one speaks to rtnetlink.
"""
