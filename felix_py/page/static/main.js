// Ties feed, store, picture, list and details together; one frame draws whatever messages have come before it.

import { Details } from "./details.js";
import { List } from "./list.js";
import { Picture } from "./picture.js";
import { Store } from "./store.js";
import { age, element, GLYPHS, orDash, plural, routeMeaning, sessionMeaning, stateWords } from "./words.js";

const RETRY = 2000; // milliseconds until a feed that was refused is asked for again

const at = (name) => document.getElementById(name);
const store = new Store();
const state = { table: "sessions", filter: "", chosen: null };
const dirty = new Set();
let frame = 0;
let began = null;

const details = new Details(at("details"), store, () => at("list").querySelector(".scroller")?.focus({ preventScroll: true }));
const list = new List(at("list"), (row) => details.open(state.table, row));
const picture = new Picture(at("picture"), at("picture-note"), choose);

function choose(key) {
  state.chosen = key;
  const node = store.tables.nodes.get(key);
  if (node) details.open("nodes", node);
  else if (!at("details").hidden) details.close();
  redraw("nodes", "sessions", "routes", "events");
}

// --- columns

const glyphed = (meaning, words) => `${GLYPHS[meaning]} ${words}`;
const several = () => [...store.tables.nodes.values()].filter((each) => each.kind === "node" && (each.asked || each.unreachable)).length > 1;
const NODE = { head: "Node", kind: "node", cell: (row) => row.node };

const COLUMNS = {
  sessions: [
    { head: "Peer", kind: "address wide", cell: (row) => row.peer },
    { head: "Name", kind: "name", cell: (row) => orDash(row.name) },
    { head: "AS", kind: "number minor", cell: (row) => orDash(row.asNumber) },
    { head: "Type", kind: "minor", cell: (row) => row.type },
    { head: "State", kind: "state", cell: (row) => glyphed(sessionMeaning(row.state), row.state), meaning: (row) => sessionMeaning(row.state) },
    { head: "For", kind: "age number", cell: (row) => age(row.since, store.now()) },
    { head: "Received", kind: "number minor", cell: (row) => String(row.received) },
    { head: "Accepted", kind: "number minor", cell: (row) => String(row.accepted) },
    { head: "Advertised", kind: "number minor", cell: (row) => String(row.advertised) },
    { head: "Last error", kind: "words past", cell: (row) => orDash(row.lastError) },
  ],
  routes: [
    { head: "Prefix", kind: "address wide", cell: (row) => row.prefix },
    { head: "Kind", kind: "minor", cell: (row) => row.kind },
    { head: "Next hop", kind: "address hop", cell: (row) => orDash(row.nextHop) },
    { head: "Device", kind: "address device", cell: (row) => orDash(row.device) },
    { head: "Encap", kind: "encap", cell: (row) => orDash(row.encapsulation) },
    { head: "From", kind: "words minor", cell: (row) => row.from },
    { head: "Age", kind: "age number", cell: (row) => age(row.since, store.now()) },
    { head: "State", kind: "state", cell: (row) => glyphed(routeMeaning(row.state), stateWords(row)), meaning: (row) => routeMeaning(row.state) },
  ],
  events: [
    { head: "Time", kind: "time", cell: (row) => clock(row.time) },
    { head: "About", kind: "about", cell: (row) => row.subject },
    { head: "What", kind: "words", cell: (row) => row.what },
    { head: "Cause", kind: "words cause", cell: (row) => orDash(row.cause) },
  ],
};
const NOTHING = { sessions: "No session", routes: "No route", events: "No event" };

const clock = (time) => new Date(time).toLocaleTimeString("en-GB");

// --- drawing

function redraw(...tables) {
  for (const name of tables) dirty.add(name);
  if (!frame) frame = requestAnimationFrame(draw);
}

function draw() {
  frame = 0;
  if (["nodes", "sessions", "tunnels"].some((name) => dirty.has(name))) {
    picture.draw(store, state.chosen);
    head();
  }
  if (dirty.has("routes") || dirty.has("sessions") || dirty.has("events") || dirty.has("nodes")) tables();
  dirty.clear();
  details.refresh();
  if (began !== null) {
    performance.measure("felix.update", { start: began });
    const start = began;
    began = null;
    const channel = new MessageChannel(); // its message comes when this frame has been handed over
    channel.port1.onmessage = () => performance.measure("felix.painted", { start });
    channel.port2.postMessage(null);
  }
}

function head() {
  const nodes = [...store.tables.nodes.values()].filter((each) => each.kind === "node");
  const asked = nodes.filter((each) => each.asked || each.unreachable);
  const problems = asked.flatMap((each) => (each.problems ?? []).map((words) => (asked.length > 1 ? `${each.name}: ${words}` : words)));
  const title = store.tables.about.get("page")?.title ?? plural(asked.length, "node");
  at("title").textContent = title;
  document.title = `${problems.length ? `${plural(problems.length, "problem")} · ` : ""}${title} · felix`;
  const health = at("health");
  health.dataset.meaning = problems.length ? "bad" : "good";
  health.textContent = problems.length ? `✕ ${plural(problems.length, "problem")}` : "● all well";
  const sessions = [...store.tables.sessions.values()];
  const up = sessions.filter((each) => each.state === "Established").length;
  const routes = {};
  let left = 0;
  for (const each of asked) {
    for (const [name, count] of Object.entries(each.routes ?? {})) routes[name] = (routes[name] ?? 0) + count;
    left += each.routesLeftOut ?? 0;
  }
  const facts = [["sessions", `${up} of ${sessions.length}`], ...Object.entries(routes).map(([name, count]) => [name, count.toLocaleString("en")])];
  if (left) facts.push(["not listed", left.toLocaleString("en")]);
  at("counts").replaceChildren(...facts.map(([name, words]) => element("div", {}, element("dt", {}, name), element("dd", {}, words))));
  at("problems").hidden = problems.length === 0;
  at("problems").querySelector("ul").replaceChildren(
    ...problems.slice(0, 5).map((each) => element("li", {}, each)),
    ...(problems.length > 5 ? [element("li", { class: "more" }, `and ${problems.length - 5} more`)] : []));
}

function tables() {
  const chosen = store.tables.nodes.get(state.chosen);
  const button = at("chosen");
  button.hidden = !chosen;
  button.textContent = chosen ? `${chosen.name} ×` : "";
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const name = tab.dataset.table;
    tab.setAttribute("aria-selected", String(name === state.table));
    tab.tabIndex = name === state.table ? 0 : -1;
    tab.querySelector("b").textContent = store.tables[name].size.toLocaleString("en");
  }
  at("list").setAttribute("aria-labelledby", `tab-${state.table}`);
  const many = several();
  const rows = store.sorted(state.table).filter(
    (row) => words.every((word) => row.text.includes(word)) && (!chosen || about(row, state.chosen, chosen, many)));
  const columns = many ? [NODE, ...COLUMNS[state.table]] : COLUMNS[state.table];
  const filtered = words.length || chosen ? " here; take the filter away to see all" : " yet";
  list.show(many ? `${state.table} several` : state.table, columns, rows, NOTHING[state.table] + filtered);
}

/** Whether a row has to do with a machine: it is its own, or leads to one of its addresses. */
function about(row, key, machine, many) {
  if (many && row.node === key) return true;
  if (!many && machine.asked) return true;
  if (row.peer) return machine.addresses.includes(row.peer);
  if (row.nextHop) return row.nextHop.split(",").some((hop) => machine.addresses.includes(hop));
  return machine.addresses.some((address) => (row.subject ?? "").includes(address));
}

// --- what people do

for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.addEventListener("click", () => show(tab.dataset.table));
  tab.addEventListener("keydown", (event) => {
    const tabs = [...document.querySelectorAll("[role=tab]")];
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
    show(next.dataset.table);
    next.focus();
  });
}

function show(table) {
  state.table = table;
  history.replaceState(null, "", `#${table}`);
  if (!at("details").hidden) details.close();
  redraw(table);
}

at("filter").addEventListener("input", (event) => {
  state.filter = event.target.value;
  redraw(state.table);
});
at("chosen").addEventListener("click", () => choose(null));
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && event.target !== at("filter")) {
    event.preventDefault();
    at("filter").focus();
  }
});
new ResizeObserver(() => redraw("nodes", "routes")).observe(at("picture"));
setInterval(() => state.table !== "events" && !document.hidden && list.refresh(), 1000);
if (["#sessions", "#routes", "#events"].includes(location.hash)) state.table = location.hash.slice(1);

// --- the feed

function follow() {
  const feed = new EventSource("/page/feed");
  const take = (event) => {
    began ??= performance.now();
    const changed = store.take(event.type, JSON.parse(event.data));
    link("live", "live");
    redraw(...changed);
  };
  feed.addEventListener("whole", take);
  feed.addEventListener("news", take);
  feed.addEventListener("error", () => {
    link("lost", "not connected: what is shown is old");
    if (feed.readyState === EventSource.CLOSED) setTimeout(follow, RETRY);
  });
}

function link(name, words) {
  at("link").dataset.state = name;
  at("link-words").textContent = words;
}

follow();
