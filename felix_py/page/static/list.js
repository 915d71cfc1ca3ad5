// A table of any length: only the rows in sight are in the document.

import { element } from "./words.js";

const SPARE = 6; // rows above and below those in sight

export class List {
  /** @param open is called with the row that somebody opens */
  constructor(holder, open) {
    this.open = open;
    this.head = element("div", { class: "head", role: "row" });
    this.body = element("div", { class: "rows" });
    this.scroller = element("div", { class: "scroller", role: "table", tabindex: "0" }, this.body);
    this.empty = element("p", { class: "empty" });
    holder.replaceChildren(this.head, this.scroller, this.empty);
    this.rows = [];
    this.columns = [];
    this.active = -1;
    this.scroller.addEventListener("scroll", () => this.#place(), { passive: true });
    this.scroller.addEventListener("keydown", (event) => this.#key(event));
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest("[data-index]");
      if (row) this.#activate(Number(row.dataset.index), true);
    });
  }

  /**
   * Show rows.
   * @param name of the table, for the style sheet
   * @param columns of {head, cell(row), kind, meaning(row)}
   * @param nothing what to say where there are none
   */
  show(name, columns, rows, nothing) {
    if (name !== this.name) {
      this.name = name;
      this.scroller.scrollTop = 0;
      this.active = -1;
      this.activeKey = null;
    }
    this.columns = columns;
    this.rows = rows;
    this.scroller.className = `scroller ${name}`;
    this.head.className = `head ${name}`;
    this.scroller.setAttribute("aria-label", name);
    this.scroller.setAttribute("aria-rowcount", String(rows.length));
    this.head.replaceChildren(...columns.map((each) => element("span", { class: each.kind, role: "columnheader" }, each.head)));
    this.empty.textContent = rows.length ? "" : nothing;
    this.scroller.hidden = rows.length === 0;
    this.height = parseFloat(getComputedStyle(this.scroller).getPropertyValue("--row")) || 32;
    if (this.activeKey) this.active = rows.findIndex((row) => row.key === this.activeKey);
    this.body.style.height = `${rows.length * this.height}px`;
    this.#place(true);
  }

  /** Write the rows in sight anew: they have changed, or time has passed. */
  refresh() {
    this.#place(true);
  }

  #place(anew = false) {
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / this.height) - SPARE);
    const seen = Math.ceil((this.scroller.clientHeight || 400) / this.height) + 2 * SPARE;
    const last = Math.min(this.rows.length, first + seen);
    if (!anew && first === this.first && last === this.last) return;
    this.first = first;
    this.last = last;
    const lines = [];
    for (let index = first; index < last; index += 1) lines.push(this.#line(index));
    this.body.replaceChildren(...lines);
    this.body.style.setProperty("--above", `${first * this.height}px`);
    this.scroller.setAttribute("aria-activedescendant", this.active >= first && this.active < last ? `row-${this.active}` : "");
  }

  #line(index) {
    const row = this.rows[index];
    const line = element("div", {
      class: index === this.active ? "row active" : "row", role: "row", id: `row-${index}`, "data-index": index, "aria-rowindex": index + 1,
    });
    for (const column of this.columns) {
      const words = column.cell(row);
      const cell = element("span", { class: column.kind, role: "cell", title: words.length > 18 ? words : null }, words);
      const meaning = column.meaning?.(row);
      if (meaning) cell.dataset.meaning = meaning;
      line.append(cell);
    }
    return line;
  }

  #key(event) {
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / this.height) - 1);
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (step !== undefined) {
      event.preventDefault();
      const from = this.active < 0 ? (step > 0 ? -1 : this.rows.length) : this.active;
      this.#activate(Math.max(0, Math.min(this.rows.length - 1, from + step)), false);
    } else if (event.key === "Enter" && this.active >= 0) {
      this.open(this.rows[this.active]);
    }
  }

  #activate(index, open) {
    this.active = index;
    this.activeKey = this.rows[index]?.key ?? null;
    const top = index * this.height;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    const bottom = top + this.height - this.scroller.clientHeight;
    if (bottom > this.scroller.scrollTop) this.scroller.scrollTop = bottom;
    this.#place(true);
    if (open) this.open(this.rows[index]);
  }
}
