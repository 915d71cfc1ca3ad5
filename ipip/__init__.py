"""IP in IP (RFC 2003): what the tunnel should be, its header, and the drivers that make it so.

Reading order: `tunnel` (what a node's tunnel should be), `header` (the packets, as pure functions), then the effects:
`device` (chooses a driver, reads the tunnel back and makes it as wanted) on `links` (interfaces, over `netlink`) and
`shape` (what the device of every driver has). While one driver gives way to another, `substitute` carries, and `routes`
leads routes into and out of it.

The drivers: `kernel` is the ipip module and an nftables table. `ebpf` is tunnel.bpf.c, programs of ours at traffic
control: `bpf_object` reads what clang made of it, `bpf` is the system call, `traffic` where programs are attached. And
for kernels that have neither, `process` (the agent's side: starts, finds, configures) and the processes that carry
packets: `userspace` (their control socket), `queues` (how several share a tunnel), `carrier` (who may pass, and
whereto), `batch` (many packets at once, with offload.c), `messages` (the system calls).
Knows nothing of pools, nodes or BGP.
"""
