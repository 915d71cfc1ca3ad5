"""The agent of one node: what should this node's kernel hold, and make it so.

Reading order, which is also the order of imports from the bottom up:

1. `model`, `kernel.objects`: the nouns of the cluster and of the kernel.
2. `state`: what we know, as a value; news come as Present, Absent and InSync.
3. `calc`: from knowledge and BGP's best paths to the wish, a `KernelState`, each entry with its reason.
4. `kernel.route_codec`, `kernel.fib`, `kernel.reconcile`: routes as bytes, the kernel's mirror, the table that decides.
5. `kernel.engine`, `kernel.work`: what is due, and its writing; `kernel.wire` is the seam, `kernel.rtnetlink` behind.
6. `kernel.kernel` and `turn`: interfaces, routes, tunnels and parameters together, and one turn at them.
7. `datastore`, `cni`, `bgp`, `ipip`: where news come from, and what carries packets where the kernel does not.
8. `agent`: the loop that turns all of it; `api` and `ctl` show what it thought.

Data flows one way: datastore and BGP -> ClusterState -> desired -> engine -> kernel. Only the agent writes the kernel.
"""


def __getattr__(name: str) -> str:
    """Look up `__version__` when somebody asks: reading the package's metadata costs felixctl 20 ms otherwise."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - see above

    try:
        return version("felix-py")
    except PackageNotFoundError:  # a checkout that was never installed
        return "0+unknown"
