"""The page of a whole lab in a real browser: live within two seconds, quiet, usable at every width, by keyboard too."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, browser
from labs import PROGRAM, felix_lab, lab_name, on_machine, standing

from felix_py.lab import machines
from felix_py.lab.state import Lab

pytestmark = [pytest.mark.browser, pytest.mark.netns]

NAME = lab_name("page")
WIDTHS = [(1280, 900), (390, 844)]
THEMES = ["light", "dark"]

ALL_WELL = (
    "document.querySelectorAll('#picture path.session').length === 10 && !document.querySelector('#picture .bad')"
)
"""Six sessions between four nodes, and one of each with the router."""

CONTRAST = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => { for (let n = node; n; n = n.parentElement) {
    const found = rgb(getComputedStyle(n).backgroundColor); if (found[3] === 255) return found; }
    return rgb(getComputedStyle(document.documentElement).backgroundColor); };
  const poor = [];
  const texts = 'h1, h2, h3, p, dt, dd, li, button, .row span, .head span, .legend span, svg text';
  for (const node of document.querySelectorAll(texts)) {
    if (!node.textContent.trim() || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(rgb(node.namespaceURI.endsWith('svg') ? style.fill : style.color)), light(behind(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${node.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return poor;
})()
"""
"""Texts with less contrast than WCAG 2.2 asks for (1.4.3: 4.5 to 1)."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with standing(NAME) as lab:
        yield lab


@pytest.fixture(scope="module")
def address(lab: Lab) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [*PROGRAM, "--name", lab.name, "page", "--listen", f"127.0.0.1:{port}"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert "http://" in said, said
        yield next(word for word in said.split() if word.startswith("http://"))
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Browser]:
    with browser() as page:
        page.look(*WIDTHS[0], "light")
        page.open(address)
        page.until(ALL_WELL, 30)
        yield page


@pytest.fixture(autouse=True)
def quiet(page: Browser) -> Iterator[None]:
    """Hold every test to it: the console has nothing to complain of."""
    yield
    assert page.complaints == []


def filtered(page: Browser, words: str) -> None:
    page.evaluate(f"document.getElementById('filter').value = '{words}'")
    page.evaluate("document.getElementById('filter').dispatchEvent(new Event('input'))")


def test_a_session_dies_and_the_picture_shows_it_within_two_seconds(page: Browser, lab: Lab) -> None:
    line = "document.querySelector('#picture path.session[data-link=\"session a1 b1\"]')"
    assert page.evaluate(f"{line}.classList.contains('good')")
    # Whoever waits begins before the session dies, so that the clock is the browser's and counts all of it.
    page.evaluate(
        "void (window.seen = new Promise((done) => new MutationObserver(() => {"
        f" if ({line}?.classList.contains('bad'))"
        " done(performance.timeOrigin + performance.now()); })"
        ".observe(document.getElementById('picture'), {childList: true, subtree: true})))"
    )
    began = float(page.evaluate("performance.timeOrigin + performance.now()"))
    assert on_machine(lab.name, "a1", "felixctl", "bgp", "disable", "172.31.2.11").status == 0
    seen = float(page.evaluate("Promise.race([window.seen, new Promise((done) => setTimeout(() => done(-1), 10000))])"))
    assert 0 < seen - began < 2000, f"{seen - began} ms"
    assert page.evaluate("document.getElementById('health').textContent").startswith("✕")
    assert "172.31.2.11 (b1) is Idle" in page.evaluate("document.getElementById('problems').textContent")
    assert on_machine(lab.name, "a1", "felixctl", "bgp", "enable", "172.31.2.11").status == 0
    page.until(f"{line}?.classList.contains('good') && document.getElementById('problems').hidden", 30)


def test_an_agent_that_does_not_answer_is_shown_as_such_and_comes_back(page: Browser, lab: Lab) -> None:
    assert felix_lab(lab.name, "fail", "b2.agent").status == 0
    # It is started again within a second or two; what is sure is that it started twice.
    page.until("[...document.querySelectorAll('.card.node')].every((each) => each.classList.contains('good'))", 30)
    page.until(ALL_WELL, 30)


def test_a_route_tells_why_in_the_words_of_felixctl(page: Browser, lab: Lab) -> None:
    page.evaluate("document.getElementById('tab-routes').click()")
    page.until("document.querySelector('.scroller.routes .row')")
    filtered(page, "a1 10.65.2.0/26 tunl0")
    page.until("document.querySelectorAll('.row').length === 1")
    page.evaluate("document.querySelector('.row').click()")
    page.until("document.querySelector('#details h3')")
    shown = page.evaluate("document.getElementById('details').textContent")
    told = on_machine(lab.name, "a1", "felixctl", "routes", "10.65.2.0/26", "--why").out
    sentences = [
        line.split("because", 1)[1].strip() for line in told.splitlines() if line.strip().startswith("because")
    ]
    assert len(sentences) >= 2
    for sentence in sentences:
        assert sentence in shown
    page.evaluate("document.querySelector('.close').click()")
    filtered(page, "")


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_every_width_and_theme_is_legible_and_scrolls_one_way_only(
    page: Browser, address: str, width: int, height: int, theme: str, tmp_path: Path
) -> None:
    page.look(width, height, theme)
    page.open(address)
    for table in ("sessions", "routes", "events"):
        page.evaluate(f"document.getElementById('tab-{table}').click()")
        page.until(f"document.querySelector('.scroller.{table} .row')")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(
            "document.querySelector('.scroller').scrollWidth <= document.querySelector('.scroller').clientWidth"
        )
        assert page.evaluate(CONTRAST) == []
    page.screenshot(tmp_path / f"page-{width}-{theme}.png")
    page.look(*WIDTHS[0], "light")
    page.open(address)


def test_the_keyboard_reaches_everything(page: Browser, address: str) -> None:
    page.open(address)
    page.evaluate("document.querySelector('[data-key=\"a1\"]').focus()")
    page.press("Enter")
    page.until("document.querySelector('[data-key=\"a1\"]').getAttribute('aria-pressed') === 'true'")
    assert page.evaluate("document.activeElement.dataset.key") == "a1", "the focus stays where it was"
    page.until(
        "!document.getElementById('chosen').hidden && document.querySelector('#details h2').textContent === 'a1'"
    )
    page.press("Enter")
    page.until("document.getElementById('chosen').hidden")
    page.evaluate("document.getElementById('tab-sessions').focus()")
    page.press("ArrowRight")
    page.until("document.getElementById('tab-routes').getAttribute('aria-selected') === 'true'")
    page.evaluate("document.querySelector('.scroller').focus()")
    page.press("ArrowDown", "ArrowDown", "Enter")
    page.until(
        "!document.getElementById('details').hidden && document.querySelector('.row.active').dataset.index === '1'"
    )
    page.evaluate("document.querySelector('.close').focus()")
    page.press("Escape")
    page.until("document.getElementById('details').hidden")
    page.press("/")
    page.until("document.activeElement.id === 'filter'")


def test_an_agents_own_page_shows_what_it_knows_itself(lab: Lab, tmp_path: Path) -> None:
    with browser(machines.enter(lab, "a1")) as own:
        own.look(*WIDTHS[0], "light")
        own.open("http://127.0.0.1:9099/")
        own.until("document.getElementById('title').textContent === 'a1'")
        # Its four sessions, and the router that no resource names; of the others' sessions it knows nothing.
        own.until("document.querySelectorAll('#picture path.session.good').length === 4")
        assert own.evaluate("document.querySelectorAll('.card.router').length") == 1
        assert own.evaluate("document.querySelectorAll('.card.node.none').length") == 3
        assert own.evaluate("document.querySelectorAll('#picture path.tunnel').length") == 2
        own.evaluate("document.getElementById('tab-routes').click()")
        own.until("document.querySelectorAll('.row').length === 7")
        own.screenshot(tmp_path / "agent.png")
        assert own.complaints == []
