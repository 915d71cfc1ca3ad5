"""How a kind at the API server is followed: each cause of failure, and what comes next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from felix_py.datastore.kubernetes_watch import BUSY_LAST, JITTER, Cause, News, Next, Standing, after, cause_of

AT_7 = Standing("7")


@pytest.mark.parametrize(
    ("before", "news", "revision", "wait"),
    [
        pytest.param(Standing(), News(Cause.LISTED, "7"), "7", 0, id="a list is followed by a watch"),
        pytest.param(AT_7, News(Cause.MOVED, "8"), "8", 0, id="a change moves on"),
        pytest.param(AT_7, News(Cause.ENDED, lasted=1800), "7", 0, id="an ended watch is taken up at once"),
        pytest.param(AT_7, News(Cause.ENDED, lasted=0.1), "7", 0.25, id="but not without rest"),
        pytest.param(AT_7, News(Cause.GONE), None, 0, id="what is forgotten is listed"),
        pytest.param(Standing(), News(Cause.GONE), None, 0.25, id="a list that expires begins anew, with a rest"),
        pytest.param(AT_7, News(Cause.BROKEN), "7", 0.1, id="a lost connection is taken up where it was"),
        pytest.param(Standing("7", Cause.BROKEN, 9), News(Cause.BROKEN), "7", 1.2, id="and never later than this"),
        pytest.param(Standing("7", Cause.BROKEN, 9), News(Cause.BUSY), "7", 0.25, id="another reason is progress"),
        pytest.param(Standing("7", Cause.BUSY, 9), News(Cause.BUSY), "7", 30, id="a busy server is spared"),
        pytest.param(AT_7, News(Cause.BUSY, after=5), "7", 0.5, id="one that starts asks for too much"),
        pytest.param(Standing("7", Cause.BUSY, 4), News(Cause.BUSY, after=5), "7", 5, id="unless it insists"),
        pytest.param(AT_7, News(Cause.GARBLED), None, 0.25, id="half an answer is no base"),
        pytest.param(AT_7, News(Cause.DENIED), "7", 0.25, id="strangers come back with new credentials"),
        pytest.param(AT_7, News(Cause.FORBIDDEN), "7", 5, id="a right has to be granted first"),
        pytest.param(AT_7, News(Cause.UNKNOWN), None, 5, id="so has a kind to be defined"),
    ],
)  # fmt: skip
def test_what_comes_next(before: Standing, news: News, revision: str | None, wait: float) -> None:
    found = after(before, news, jitter=0)
    assert (found.standing.revision, found.wait) == (revision, wait)


def test_the_reason_has_the_servers_words() -> None:
    found = after(AT_7, News(Cause.FORBIDDEN, words='nodes is forbidden: User "felix" cannot list resource "nodes"'), 0)
    assert found.reason == 'we lack the right: nodes is forbidden: User "felix" cannot list resource "nodes"'
    assert found.renew


@pytest.mark.parametrize(
    ("status", "cause"),
    [(401, Cause.DENIED), (403, Cause.FORBIDDEN), (404, Cause.UNKNOWN), (410, Cause.GONE), (429, Cause.BUSY),
     (500, Cause.BUSY), (503, Cause.BUSY), (504, Cause.BUSY), (400, Cause.REFUSED), (422, Cause.REFUSED)],
)  # fmt: skip
def test_what_a_status_means(status: int, cause: Cause) -> None:
    assert cause_of(status) is cause


NEWS = st.builds(
    News,
    st.sampled_from(Cause),
    st.sampled_from(["8", "9"]),
    st.floats(0, 3600),
    st.floats(0, 1000),
)


@given(st.lists(NEWS, min_size=1, max_size=30), st.floats(0, 1))
def test_laws(history: list[News], jitter: float) -> None:
    standing = Standing()
    for news in history:
        found = after(standing, news, jitter)
        if news.cause is Cause.LISTED:
            assert found.standing == Standing(news.revision)
        assert found.wait <= (1 + JITTER) * 2 * BUSY_LAST
        failed = news.cause not in (Cause.LISTED, Cause.MOVED, Cause.ENDED, Cause.GONE)
        assert (found.wait > 0) >= failed, "a failure is never followed by a request at once"
        if news.cause is Cause.BROKEN:
            assert found.wait <= 1.5, "within 2 s of the server's return"
        standing = found.standing


@given(st.floats(0, 1))
def test_a_watch_that_is_forgotten_again_and_again_does_not_spin(jitter: float) -> None:
    first = after(AT_7, News(Cause.GONE), jitter)
    second = after(first.standing, News(Cause.GONE), jitter)
    assert (first.wait, isinstance(second, Next)) == (0, True)
    assert second.wait > 0
