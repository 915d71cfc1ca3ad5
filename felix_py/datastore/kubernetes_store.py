"""Opens the datastore of a Kubernetes cluster: waits until the API server answers, for nothing can be known before."""

import random
import time

import structlog

from felix_py.config import Config
from felix_py.datastore.api import Sight, Store
from felix_py.datastore.kubernetes import KubernetesDatastore
from felix_py.datastore.kubernetes_client import Client, Failed
from felix_py.datastore.kubernetes_node import NodeKeeper
from felix_py.datastore.kubernetes_reports import Reporter
from felix_py.datastore.kubernetes_rights import RightsKeeper
from felix_py.datastore.kubernetes_swaps import KubernetesSwaps
from felix_py.datastore.kubernetes_watch import Standing, after
from felix_py.kubernetes_resources import STORED
from felix_py.model import Fault, Invalid

TENDING = 600.0
"""Seconds between two looks at the blocks of the cluster: each of them lists all, and everybody does it."""

log = structlog.get_logger()


def opened(settings: Config, sight: Sight | None) -> Store:
    """Return the datastore, what changes blocks, and how this node's object and the status of its sessions are kept.

    It waits for as long as the API server cannot serve: what is in the kernel stays as it is meanwhile.

    Args:
        settings: of this node.
        sight: of the agent, of which the server is told; None where there is none, and nothing is told.

    Raises:
        Invalid: when nobody can say who we are.
    """
    try:
        client = Client(settings.kubeconfig, settings.kubernetes_servers)
    except Failed as failure:
        raise Invalid(Fault("datastore", "kubeconfig", str(failure))) from failure
    _wait(client)
    datastore = KubernetesDatastore(client, settings.node_name, settings.secret_directory)
    swaps = KubernetesSwaps(client, settings.state_directory)
    if sight is None:
        return Store(datastore, swaps, TENDING)
    keeper = NodeKeeper(client, settings, datastore, sight.ready)
    reporter = Reporter(client, settings.node_name, datastore, sight)
    rights = RightsKeeper(client, datastore)
    keeping = {"node": keeper.run, "reports": reporter.run, "rights": rights.run}
    return Store(datastore, swaps, TENDING, keeping, datastore.restored)


def _wait(client: Client) -> None:
    standing, said = Standing(), ""
    while True:
        try:
            client.ask("GET", STORED["IPAMBlock"].path, limit=1)
        except Failed as failure:
            following = after(standing, failure.news, random.random())  # noqa: S311 - no secret, only a spread
            standing = following.standing
            if following.reason != said:
                said = following.reason
                log.warning("datastore.away", kind="IPAMBlock", reason=said)
            time.sleep(following.wait)
            if following.renew:
                _renew(client)
        else:
            return


def _renew(client: Client) -> None:
    try:
        client.renew()
    except Failed as failure:
        log.warning("datastore.away", kind="IPAMBlock", reason=str(failure))
