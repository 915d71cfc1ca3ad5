"""IP in IP (RFC 2003): what the tunnel should be, its header, and the drivers that make it so.

Reading order: `tunnel` (what a node's tunnel should be), `header` (the packets, as pure functions), then the
effects: `device` (chooses and drives the kernel's module or the userspace driver) and `userspace` (the process that
carries packets on kernels that lack the module). Knows nothing of pools, nodes or BGP.
"""
