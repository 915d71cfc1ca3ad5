"""Asks the API server at the start whether this node has all rights that it needs, and names those that it lacks.

Some are used seldom, as the one to remove a block: whoever lacks it would hear of that only when it is too late.
"""

import asyncio
import random

from felix_py import kubernetes_rights
from felix_py.datastore.kubernetes import KubernetesDatastore
from felix_py.datastore.kubernetes_client import Client, Failed
from felix_py.datastore.kubernetes_watch import RULES, Cause
from felix_py.kubernetes_rights import Right

SUBJECT = "rights"

AGAIN_FIRST, AGAIN_LAST = 10.0, 120.0
"""Seconds until it is asked again where something is missing, or there was no answer: first, and after doubling."""

JITTER = 0.25
"""Of each wait, at most: nodes that lack the same right do not ask at the same moment."""


class RightsKeeper:
    """Says in the datastore's faults which rights this node lacks, until it lacks none."""

    def __init__(self, client: Client, datastore: KubernetesDatastore) -> None:
        self._client = client
        self._datastore = datastore

    async def run(self) -> None:
        """Ask until nothing is missing, and stay."""
        pause = AGAIN_FIRST
        while await self._lacks_some():
            await asyncio.sleep(pause * (1 + JITTER * random.random()))  # noqa: S311 - no secret, only a spread
            pause = min(2 * pause, AGAIN_LAST)
        await asyncio.Event().wait()

    async def _lacks_some(self) -> bool:
        """Ask once, and take note of the answer; say whether to ask again."""
        try:
            missing = await asyncio.to_thread(self.missing)
        except Failed as failure:
            # Who may not even ask is told of each right as it is used; a server that is away is another's fault.
            if failure.news.cause is not Cause.FORBIDDEN:
                return True
            sentence = f"cannot be asked for: {RULES[Cause.FORBIDDEN].reason}: {failure}"
            self._datastore.note(SUBJECT, (sentence,))
            return True
        self._datastore.note(SUBJECT, tuple(map(kubernetes_rights.problem, missing)))
        return bool(missing)

    def missing(self) -> tuple[Right, ...]:
        """Return the rights that this node lacks now: one request where it lacks none, and one for each in doubt.

        Raises:
            Failed: with the reason.
        """
        answer = self._client.ask("POST", kubernetes_rights.REVIEW_RULES, kubernetes_rights.RULES_QUESTION)
        doubtful = kubernetes_rights.doubtful(answer["status"].get("resourceRules") or ())
        return tuple(right for right in doubtful if not self._has(right))

    def _has(self, right: Right) -> bool:
        question = kubernetes_rights.access_question(right)
        return bool(self._client.ask("POST", kubernetes_rights.REVIEW_ACCESS, question)["status"]["allowed"])
