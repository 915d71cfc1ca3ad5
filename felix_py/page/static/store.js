// The tables as the server tells them: all of it once, then what has changed.

import { natural, sortable } from "./words.js";

export class Store {
  constructor() {
    this.tables = Object.fromEntries(["about", "nodes", "sessions", "tunnels", "routes", "events"].map((name) => [name, new Map()]));
    this.skew = 0; // the server's clock less this browser's
    this.machines = new Map(); // by address
    this.orders = new Map(); // keys of a table in order, until one comes or goes
  }

  /** Rows of a table in order: by prefix or address, events the newest first. */
  sorted(name) {
    const table = this.tables[name];
    if (!this.orders.has(name)) {
      const [less, more] = name === "events" ? [1, -1] : [-1, 1];
      const rows = [...table.values()].sort((a, b) => (a.order < b.order ? less : more));
      this.orders.set(name, rows.map((row) => row.key));
    }
    return this.orders.get(name).map((key) => table.get(key));
  }

  now() {
    return Date.now() / 1000 + this.skew;
  }

  /** Take a message; return the names of the tables that have changed. */
  take(kind, message) {
    this.skew = message.now - Date.now() / 1000;
    const changed = new Set();
    const moved = new Set();
    if (kind === "whole") {
      for (const [name, rows] of Object.entries(this.tables)) {
        rows.clear();
        changed.add(name);
        moved.add(name);
      }
    }
    for (const [name, keys] of Object.entries(message.gone)) {
      for (const key of keys) this.tables[name]?.delete(key);
      changed.add(name);
      moved.add(name);
    }
    for (const [name, rows] of Object.entries(message.put)) {
      const table = this.tables[name];
      if (!table) continue;
      changed.add(name);
      for (const [key, row] of Object.entries(rows)) {
        if (!table.has(key)) moved.add(name);
        row.key = key;
        prepare[name]?.(row);
        table.set(key, row);
      }
    }
    for (const name of moved) this.orders.delete(name);
    if (changed.has("nodes")) this.#index();
    return changed;
  }

  #index() {
    this.machines.clear();
    for (const [key, node] of this.tables.nodes) {
      for (const address of node.addresses) this.machines.set(address, key);
    }
  }
}

/** What is worked out once for each row: how it sorts, and what the filter looks into. */
const prepare = {
  routes(row) {
    row.order = `${sortable(row.prefix)} ${natural(row.node)}`;
    row.text = [row.node, row.prefix, row.kind, row.nextHop, row.device, row.encapsulation, row.from, row.state, row.reason]
      .filter(Boolean).join(" ").toLowerCase();
  },
  sessions(row) {
    row.order = `${natural(row.node)} ${sortable(row.peer)}`;
    row.text = [row.node, row.peer, row.name, row.asNumber, row.type, row.state, row.lastError].filter(Boolean).join(" ").toLowerCase();
  },
  events(row) {
    row.order = row.time;
    row.text = [row.node, row.subject, row.what, row.cause, row.event].filter(Boolean).join(" ").toLowerCase();
  },
};
