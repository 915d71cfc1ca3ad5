"""IP in IP (RFC 2003): what the tunnel should be, its header, and the drivers that make it so.

Reading order: `tunnel` (what a node's tunnel should be), `header` (the packets, as pure functions), then the effects:
`device` (chooses a driver, reads the tunnel back and makes it as wanted) on `links` (interfaces, over `netlink`). Three
drivers: `kernel` (the ipip module and an nftables table); `ebpf` with tunnel.bpf.c (programs of ours at traffic
control), loaded by `bpf_object` (reads what clang made), `bpf` (the system call) and `traffic` (where they are attached);
and `process` (the agent's side: starts, finds, configures) with `userspace` and `carrier` (the process that carries
packets), for kernels that have neither.
Knows nothing of pools, nodes or BGP.
"""
