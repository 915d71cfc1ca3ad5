// Where everything stands in the picture: machines in, boxes and lines out. Nothing here touches the document.

const ROOMY = { width: 150, height: 62 };
const CLOSE = { width: 92, height: 34 };
const ROUTER = { width: 150, height: 46 };
const GAP = 14;
const PAD = 14;
const HEAD = 26;
const BETWEEN = 26;
export const MANY = 12; // nodes, above which cards are small
export const DENSE = 60; // lines, above which only those that matter now are drawn
export const PLAIN = 30; // lines, above which those that are well have no mark

/**
 * Lay machines out for a width.
 * @param machines rows of nodes, with their keys
 * @param width pixels at hand
 * @param pairs of keys that lines go between
 */
export function layout(machines, width, pairs) {
  const routers = machines.filter((each) => each.kind === "router");
  const others = machines.filter((each) => each.kind !== "router");
  const card = others.length > MANY ? CLOSE : ROOMY;
  const racks = grouped(others);
  const shape = best(racks, card, width);
  const places = new Map();
  let y = 4;
  y = routerRows(routers, width, y, places);
  if (routers.length) y += others.length > MANY ? 48 : 64;
  const boxes = [];
  for (const line of shape.lines) {
    const total = line.reduce((sum, each) => sum + each.width, 0) + BETWEEN * (line.length - 1);
    let x = Math.max(0, (width - total) / 2);
    const height = Math.max(...line.map((each) => each.height));
    for (const rack of line) {
      boxes.push({ name: rack.name, x, y, width: rack.width, height });
      const room = (rack.width - 2 * PAD - (rack.columns - 1) * GAP) / rack.columns; // a long name makes cards wide
      rack.nodes.forEach((node, index) => {
        const column = index % rack.columns;
        const row = Math.floor(index / rack.columns);
        places.set(node.key, {
          x: x + PAD + column * (room + GAP), y: y + HEAD + row * (card.height + GAP),
          width: room, height: card.height, rack: rack.name, small: card === CLOSE, node,
        });
      });
      x += rack.width + BETWEEN;
    }
    y += height + 10 + Math.max(12, hanging(line.flatMap((each) => each.nodes), pairs, places) - y - height);
  }
  return { places, boxes, height: Math.max(60, y), width };
}

/** The lowest point of the lines between machines of one row, and of the marks on them. */
function hanging(nodes, pairs, places) {
  const keys = new Set(nodes.map((each) => each.key));
  let lowest = 0;
  for (const [a, b] of pairs) {
    if (!keys.has(a) || !keys.has(b)) continue;
    const [from, to] = [places.get(a), places.get(b)];
    if (from.y === to.y) lowest = Math.max(lowest, from.y + from.height + depth(Math.abs(from.x - to.x)) * 0.75 + 22);
  }
  return lowest;
}

const depth = (span) => Math.min(100, 26 + span * 0.1);

function grouped(nodes) {
  const racks = new Map();
  for (const node of nodes) {
    if (!racks.has(node.rack)) racks.set(node.rack, []);
    racks.get(node.rack).push(node);
  }
  return [...racks].map(([name, members]) => ({ name, nodes: members.sort(byName) }))
    .sort((a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name, "en", { numeric: true }));
}

const rank = (rack) => (rack.nodes.some((each) => each.kind === "node") ? 0 : 1);
const byName = (a, b) => a.name.localeCompare(b.name, "en", { numeric: true });

/** Choose how many columns racks have, so that the picture is as low as the width allows. */
function best(racks, card, width) {
  const most = Math.max(1, ...racks.map((each) => each.nodes.length));
  let chosen = null;
  for (let columns = 1; columns <= most; columns += 1) {
    const sized = racks.map((rack) => {
      const used = Math.min(columns, rack.nodes.length);
      const rows = Math.ceil(rack.nodes.length / used);
      return {
        ...rack, columns: used,
        width: Math.max(2 * PAD + used * card.width + (used - 1) * GAP, 40 + rack.name.length * 6.6),
        height: HEAD + PAD + rows * card.height + (rows - 1) * GAP,
      };
    });
    if (columns > 1 && sized.some((each) => each.width > width)) break;
    const lines = flow(sized, width);
    const height = lines.reduce((sum, line) => sum + Math.max(...line.map((each) => each.height)) + 84, 0);
    if (chosen === null || height <= chosen.height) chosen = { lines, height };
  }
  return chosen ?? { lines: [], height: 0 };
}

function flow(racks, width) {
  const lines = [];
  let used = Infinity;
  for (const rack of racks) {
    if (used + BETWEEN + rack.width > width) {
      lines.push([]);
      used = -BETWEEN;
    }
    lines.at(-1).push(rack);
    used += BETWEEN + rack.width;
  }
  return lines;
}

function routerRows(routers, width, top, places) {
  const perLine = Math.max(1, Math.floor((width + GAP) / (ROUTER.width + GAP)));
  const sorted = [...routers].sort(byName);
  let y = top;
  for (let start = 0; start < sorted.length; start += perLine) {
    const line = sorted.slice(start, start + perLine);
    const spread = Math.min(GAP * 4, line.length > 1 ? (width - line.length * ROUTER.width) / (line.length - 1) : 0);
    let x = (width - line.length * ROUTER.width - (line.length - 1) * spread) / 2;
    for (const node of line) {
      places.set(node.key, { x, y, ...ROUTER, rack: "", router: true, node });
      x += ROUTER.width + spread;
    }
    y += ROUTER.height + GAP;
  }
  return routers.length ? y - GAP : y;
}

/**
 * Give every line its place at the lower edge of the machines of a row: the nearest outermost, so that none cross.
 * @param links of {a, b}; returned is a map from each link to its two places beside the middle
 */
export function ports(links, places) {
  const sides = new Map();
  for (const link of links) {
    const [a, b] = [places.get(link.a), places.get(link.b)];
    if (!a || !b || Math.abs(a.y - b.y) >= 2) continue;
    for (const [from, to] of [[link.a, link.b], [link.b, link.a]]) {
      const side = `${from} ${places.get(to).x > places.get(from).x ? 1 : -1}`;
      if (!sides.has(side)) sides.set(side, []);
      sides.get(side).push({ link, from, span: Math.abs(a.x - b.x) });
    }
  }
  const found = new Map();
  for (const [side, ends] of sides) {
    const sign = side.endsWith(" -1") ? -1 : 1;
    const half = places.get(ends[0].from).width / 2 - 10;
    const step = Math.min(13, (half - 6) / Math.max(1, ends.length - 1));
    ends.sort((p, q) => p.span - q.span || (p.link.kind < q.link.kind ? -1 : 1));
    ends.forEach((end, index) => {
      if (!found.has(end.link)) found.set(end.link, {});
      found.get(end.link)[end.from] = sign * (half - index * step);
    });
  }
  return found;
}

/**
 * A line between two places: down and up again between machines of one row, and from lower edge to upper edge else.
 * @param beside where it begins and ends, beside the middles, for machines of one row
 * @param lane how far aside it runs, for others
 */
export function line(a, b, beside = [0, 0], lane = 0) {
  const middle = (place) => place.x + place.width / 2;
  if (Math.abs(a.y - b.y) < 2) {
    const [x1, x2] = [middle(a) + beside[0], middle(b) + beside[1]];
    const y = a.y + a.height;
    const deep = y + depth(Math.abs(a.x - b.x)) + lane;
    return { path: `M${x1} ${y}C${x1} ${deep} ${x2} ${deep} ${x2} ${y}`, x: (x1 + x2) / 2, y: y + (deep - y) * 0.75 };
  }
  const [upper, lower] = a.y < b.y ? [a, b] : [b, a];
  const toward = (middle(lower) - middle(upper)) / 8;
  const x1 = middle(upper) + Math.max(-upper.width / 3, Math.min(upper.width / 3, toward)) + lane;
  const x2 = middle(lower) + lane;
  const [y1, y2] = [upper.y + upper.height, lower.y];
  const half = (y1 + y2) / 2;
  return { path: `M${x1} ${y1}C${x1} ${half} ${x2} ${half} ${x2} ${y2}`, ...near(x1, y1, x2, y2) };
}

/** The point of a line some pixels above its lower end, where no card is in the way. */
function near(x1, y1, x2, y2) {
  const want = Math.max((y1 + y2) / 2, y2 - 46);
  for (let t = 0.5; t <= 1; t += 0.02) {
    const y = y1 + (y2 - y1) * (1.5 * t - 1.5 * t * t + t * t * t);
    if (y >= want) return { x: x1 + (x2 - x1) * (3 * t * t - 2 * t * t * t), y };
  }
  return { x: x2, y: y2 };
}
