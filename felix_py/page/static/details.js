// One route, session, node or event whole: what `felixctl routes --why` and `felixctl bgp peer` say, asked for when opened.

import { age, element, orDash, routeMeaning, sessionMeaning, stateWords } from "./words.js";

export class Details {
  /** @param closed is called when the panel closes */
  constructor(panel, store, closed) {
    this.panel = panel;
    this.store = store;
    this.closed = closed;
    this.asked = 0;
    this.panel.addEventListener("keydown", (event) => event.key === "Escape" && this.close());
  }

  close() {
    this.asked += 1;
    this.shown = null;
    this.panel.hidden = true;
    this.panel.replaceChildren();
    this.closed();
  }

  async open(table, row) {
    this.shown = { table, key: row.key, state: signature(row) };
    if (table === "routes") await this.#fetched(row.prefix, `/page/route/${encodeURIComponent(row.node)}?prefix=${encodeURIComponent(row.prefix)}`, route);
    else if (table === "sessions") await this.#fetched(row.peer, `/page/session/${encodeURIComponent(row.node)}/${encodeURIComponent(row.peer)}`, session);
    else this.#put(table === "nodes" ? row.name : row.subject, table === "nodes" ? node(row) : event(row));
  }

  /** Ask again where what is shown has changed. */
  refresh() {
    if (!this.shown) return;
    const row = this.store.tables[this.shown.table].get(this.shown.key);
    if (row && signature(row) !== this.shown.state) this.open(this.shown.table, row);
  }

  async #fetched(title, path, write) {
    const number = (this.asked += 1);
    let parts;
    try {
      const answer = await fetch(path);
      const document = await answer.json();
      parts = answer.ok ? write(document, this.store.now()) : [element("p", { class: "fault" }, document.error ?? answer.statusText)];
    } catch (error) {
      parts = [element("p", { class: "fault" }, `not answered: ${error.message}`)];
    }
    if (number === this.asked) this.#put(title, parts);
  }

  #put(title, parts) {
    const close = element("button", { class: "close", "aria-label": "Close details" }, "×");
    close.addEventListener("click", () => this.close());
    const inside = this.panel.contains(document.activeElement);
    this.panel.replaceChildren(element("div", { class: "title" }, element("h2", {}, title), close), ...parts);
    this.panel.hidden = false;
    if (inside) close.focus();
  }
}

const signature = (row) => JSON.stringify([row.state, row.reason, row.nextHop, row.from, row.healthy, row.problems, row.accepted, row.since]);

function pairs(facts) {
  const list = element("dl", {});
  for (const [name, value] of facts) {
    if (value === null || value === undefined || value === "") continue;
    list.append(element("dt", {}, name), element("dd", {}, String(value)));
  }
  return list;
}

function sentences(title, lines) {
  return lines.length ? [element("h3", {}, title), element("ul", {}, ...lines.map((each) => element("li", {}, each)))] : [];
}

function badge(words, meaning) {
  return element("p", { class: "badge", "data-meaning": meaning }, words);
}

function route(document, now) {
  const row = document.routes[0];
  if (!row) return [element("p", { class: "fault" }, "this route is gone")];
  const since = row.since ? Date.parse(row.since) / 1000 : null;
  return [
    badge(stateWords(row), routeMeaning(row.state)),
    pairs([["route", row.wanted ?? row.installed], ["from", row.from], ["for", age(since, now)], ["carried by", row.driver]]),
    ...sentences("because", row.why),
    ...sentences("candidates", row.candidates.map((each) => `${each.route}, ${each.from}: ${each.verdict}`)),
    ...sentences("BGP paths", (row.paths ?? []).map((path) => `from ${path.peer}, next hop ${path.nextHop}: ${mark(path)}: ${path.reason}`)),
  ];
}

function mark(path) {
  if (!path.accepted) return "refused";
  return path.best ? "best" : path.eligible ? "not best" : "not eligible";
}

function session(peer, now) {
  const since = peer.since ? Date.parse(peer.since) / 1000 : null;
  return [
    badge(peer.state, sessionMeaning(peer.state)),
    pairs([
      ["name", peer.name], ["AS", peer.asNumber], ["type", peer.type], ["for", age(since, now)],
      ["last error", peer.lastError], ["why", peer.why],
      ["local", peer.connection.local], ["remote", peer.connection.remote], ["dialled by", peer.connection.dialledBy],
      ["hold time", peer.holdTime.negotiated === null ? null : `${peer.holdTime.negotiated} s`],
      ["graceful restart", peer.gracefulRestart.state], ["flaps", peer.flaps],
      ["received", `${peer.received}, ${peer.accepted} accepted`], ["advertised", peer.advertised],
    ]),
    ...sentences("history", [...peer.history].reverse().map((each) => `${each.time.slice(11, 19)} ${each.state}: ${each.cause}`)),
  ];
}

function node(row) {
  const health = row.unreachable ? "bad" : !row.asked ? "none" : row.healthy ? "good" : "warn";
  const words = { bad: "does not answer", none: row.kind === "node" ? "not asked: its own page knows" : row.kind, good: "well", warn: "has problems" }[health];
  return [
    badge(words, health),
    pairs([
      ["rack", row.rack], ["addresses", row.addresses.join(", ")], ["AS", row.asNumber], ["blocks", row.blocks.join(", ")],
      ["sessions", row.sessions ? row.sessions.off ?? `${row.sessions.established} of ${row.sessions.configured} established` : null],
      ["routes", row.routes ? Object.entries(row.routes).map(([state, count]) => `${count} ${state}`).join(", ") : null],
      ["pods", row.pods], ["pod MTU", row.podMTU],
      ["tunnels", row.tunnels?.map((each) => `${each.device} by ${each.driver}`).join(", ")], ["version", row.version],
    ]),
    ...sentences("problems", row.problems ?? []),
  ];
}

function event(row) {
  return [pairs([["time", row.time], ["node", row.node], ["what", row.what], ["cause", orDash(row.cause)], ["event", row.event]])];
}
