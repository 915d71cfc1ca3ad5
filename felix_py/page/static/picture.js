// Draws the topology as SVG: racks as boxes, machines as cards, sessions as lines, tunnels dashed.

import { DENSE, layout, line, PLAIN, ports } from "./layout.js";
import { nodeMeaning, orDash, plural, sessionMeaning } from "./words.js";

const SPACE = "http://www.w3.org/2000/svg";

function svg(name, attributes, ...children) {
  const made = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export class Picture {
  /** @param choose is called with the key of a machine that somebody has chosen, null for none */
  constructor(holder, note, choose) {
    this.holder = holder;
    this.note = note;
    this.choose = choose;
  }

  draw(store, chosen) {
    const width = Math.floor(this.holder.clientWidth);
    if (!width) return;
    const links = connections(store);
    const machines = [...store.tables.nodes.values()];
    const shown = links.length > DENSE
      ? links.filter((each) => each.meaning === "bad" || each.meaning === "warn" || each.a === chosen || each.b === chosen)
      : links;
    const plan = layout(machines, width, shown.map((each) => [each.a, each.b]));
    const beside = ports(shown, plan.places);
    this.note.textContent = shown.length < links.length
      ? "Many lines: choose a node to see its own; whatever is not established is always drawn."
      : "";
    const root = svg("svg", { width, height: plan.height, viewBox: `0 0 ${width} ${plan.height}`, role: "group", "aria-label": summary(machines, links) });
    for (const box of plan.boxes) root.append(rackBox(box));
    const below = svg("g", {});
    const marks = svg("g", {});
    this.plain = shown.length > PLAIN;
    for (const each of shown) this.#connect(root, each.meaning === "good" ? below : marks, plan.places, each, chosen, beside.get(each));
    root.append(below);
    for (const box of plan.boxes) root.append(text(box.x + 14, box.y + 18, "rack-name", box.name));
    for (const [key, place] of plan.places) root.append(this.#card(key, place, chosen));
    root.append(marks);
    const focused = document.activeElement?.closest?.("[data-key]")?.dataset.key;
    this.holder.replaceChildren(root);
    if (focused && this.holder.contains(root)) root.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  #connect(root, marks, places, link, chosen, beside) {
    const a = places.get(link.a);
    const b = places.get(link.b);
    if (!a || !b) return;
    const faded = chosen && link.meaning === "good" && link.a !== chosen && link.b !== chosen ? " faded" : "";
    const tunnel = link.kind === "tunnel";
    const found = line(a, b, beside ? [beside[link.a], beside[link.b]] : [0, 0], tunnel ? 8 : 0);
    const path = svg("path", {
      class: `${link.kind} ${link.meaning}${faded}`, d: found.path, "data-link": `${link.kind} ${link.a} ${link.b}`,
    });
    path.append(Object.assign(svg("title", {}), { textContent: link.rows.map(link.kind === "tunnel" ? tunnelWords : sessionWords).join("\n") }));
    root.append(path);
    const marked = link.meaning === "good" ? !tunnel && !this.plain : true;
    if (marked) marks.append(glyph(link.meaning, found.x, found.y, faded));
  }

  #card(key, place, chosen) {
    const { node } = place;
    const meaning = nodeMeaning(node);
    const card = svg("g", {
      class: `card ${node.kind} ${meaning}${key === chosen ? " chosen" : ""}`, transform: `translate(${place.x} ${place.y})`,
      tabindex: "0", role: "button", "aria-pressed": String(key === chosen), "aria-label": cardWords(node), "data-key": key,
    });
    const narrow = place.small;
    card.append(svg("rect", { width: place.width, height: place.height, rx: node.kind === "router" ? 22 : 7 }));
    card.append(text(narrow ? 10 : place.router ? 20 : 12, narrow ? 21 : 21, "name", fitted(node.name, narrow ? 9 : 14)));
    if (!narrow) {
      const address = node.addresses[0] ?? "no address";
      card.append(text(place.router ? 20 : 12, place.router ? 36 : 38, "address", place.router && node.asNumber ? `AS ${node.asNumber}` : address));
      if (!place.router) card.append(text(12, 53, "counts", counts(node)));
    }
    if (node.kind === "node") card.append(glyph(meaning, place.width - (narrow ? 12 : 14), narrow ? 17 : 17, ""));
    const act = () => this.choose(key === chosen ? null : key);
    card.addEventListener("click", act);
    card.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        act();
      }
    });
    return card;
  }
}

function text(x, y, name, words) {
  return Object.assign(svg("text", { x, y, class: name }), { textContent: words });
}

const fitted = (words, most) => (words.length > most ? `${words.slice(0, most - 1)}…` : words);

function rackBox(box) {
  return svg("g", { class: "rack" }, svg("rect", { x: box.x, y: box.y, width: box.width, height: box.height, rx: 12 }));
}

function glyph(meaning, x, y, faded) {
  const at = { transform: `translate(${x} ${y})`, class: `mark${faded}` };
  if (meaning === "good") return svg("g", at, svg("circle", { class: "glyph good", r: 3.5 }));
  if (meaning === "warn") return svg("g", at, svg("path", { class: "glyph warn", d: "M0-5.5 5.5 0 0 5.5-5.5 0z" }));
  if (meaning === "none") return svg("g", at, svg("circle", { class: "glyph none", r: 3.5 }));
  return svg("g", at, svg("circle", { class: "behind", r: 9 }), svg("path", { class: "cross bad", d: "M-4-4 4 4M4-4-4 4" }));
}

function counts(node) {
  if (node.kind === "host") return "host";
  if (node.unreachable) return "agent does not answer";
  if (!node.asked) return node.blocks[0] ?? "no block";
  return `${plural(node.routes.installed, "route")}, ${plural(node.pods, "pod")}`;
}

function cardWords(node) {
  const how = { good: "well", warn: "has problems", bad: "does not answer", none: "" }[nodeMeaning(node)];
  return [node.kind, node.name, orDash(node.addresses[0]), node.kind === "host" ? "" : counts(node), how].filter(Boolean).join(", ");
}

function summary(machines, links) {
  const down = links.filter((each) => each.kind === "session" && each.meaning !== "good").length;
  const sessions = links.filter((each) => each.kind === "session").length;
  return `${plural(machines.length, "machine")}, ${plural(sessions, "session")}, ${down} of them not established`;
}

const WORSE = { good: 0, warn: 1, bad: 2 };

/** Sessions and tunnels between two machines each, whoever told of them; of two opinions the worse counts. */
export function connections(store) {
  const found = new Map();
  const add = (kind, row, address, meaning) => {
    const to = store.machines.get(address);
    if (!to || to === row.node || !store.tables.nodes.has(row.node)) return;
    const [a, b] = row.node < to ? [row.node, to] : [to, row.node];
    const name = `${kind} ${a} ${b}`;
    const known = found.get(name);
    if (!known) found.set(name, { kind, a, b, meaning, rows: [row] });
    else {
      if (WORSE[meaning] > WORSE[known.meaning]) known.meaning = meaning;
      known.rows.push(row);
    }
  };
  for (const row of store.tables.tunnels.values()) add("tunnel", row, row.remote, row.obstacle ? "bad" : "good");
  for (const row of store.tables.sessions.values()) add("session", row, row.peer, sessionMeaning(row.state));
  return [...found.values()];
}

function tunnelWords(row) {
  const words = `${row.node} to ${row.remote}: ${row.encapsulation} by ${orDash(row.driver)}, ${plural(row.prefixes, "prefix", "prefixes")}`;
  return row.obstacle ? `${words}; ${row.obstacle}` : words;
}

function sessionWords(row) {
  const error = row.state !== "Established" && row.lastError ? `: ${row.lastError}` : "";
  return `${row.node} to ${row.peer} (${row.name}) ${row.state}${error}`;
}
