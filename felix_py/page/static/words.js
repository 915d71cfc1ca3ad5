// What things are called, how old they are, and how well they are: the same words as felixctl's.

/** State of a session: what it means, which the picture shows by colour and by shape. */
export function sessionMeaning(state) {
  if (state === "Established") return "good";
  return state === "OpenSent" || state === "OpenConfirm" || state === "Connect" ? "warn" : "bad";
}

/** State of a route. */
export function routeMeaning(state) {
  return { installed: "good", stale: "warn", differs: "warn" }[state] ?? "bad";
}

/** How a node is: `good`, `bad`, or `none` where it was not asked. */
export function nodeMeaning(node) {
  if (node.kind !== "node") return "none";
  if (node.unreachable) return "bad";
  if (!node.asked) return "none";
  return node.healthy ? "good" : "warn";
}

export const GLYPHS = { good: "●", warn: "◆", bad: "✕", none: "○" };

/** How long ago a time was, in the two largest units: 4s, 3m12s, 5h02m, 8d04h. */
export function age(since, now) {
  if (since === null || since === undefined) return "-";
  const seconds = Math.max(0, Math.floor(now - since));
  for (const [unit, size, lesser, part] of [["d", 86400, "h", 3600], ["h", 3600, "m", 60], ["m", 60, "s", 1]]) {
    if (seconds >= size) {
      return `${Math.floor(seconds / size)}${unit}${String(Math.floor((seconds % size) / part)).padStart(2, "0")}${lesser}`;
    }
  }
  return `${seconds}s`;
}

export function orDash(value) {
  return value === null || value === undefined || value === "" ? "-" : String(value);
}

/** State of a route with its reason, where there is one to tell. */
export function stateWords(row) {
  return row.reason && row.state !== "stale" ? `${row.state}: ${row.reason}` : row.state;
}

export function plural(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

/** A key by which prefixes and addresses sort as numbers do, IPv4 first. */
export function sortable(text) {
  const [address, length = ""] = text.split("/");
  if (!address.includes(":")) {
    return "4" + address.split(".").map((part) => part.padStart(3, "0")).join("") + length.padStart(3, "0");
  }
  const [head, tail = ""] = address.split("::");
  const front = head ? head.split(":") : [];
  const back = tail ? tail.split(":") : [];
  const zeros = Array(Math.max(0, 8 - front.length - back.length)).fill("0");
  return "6" + [...front, ...zeros, ...back].map((part) => part.padStart(4, "0")).join("") + length.padStart(3, "0");
}

/** A key by which names with numbers sort as people expect: n2 before n10. */
export function natural(name) {
  return name.replace(/\d+/g, (digits) => digits.padStart(9, "0"));
}

/** Make an element; what is given as text stays text, whatever it looks like. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}
