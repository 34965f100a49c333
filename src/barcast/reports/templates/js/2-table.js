// One table for everything: search, sorting, pages, best values, intervals, CSV.

const isBlank = (value) => value === null || value === undefined || value === "";
const PAGE_SIZES = [25, 50, 100, 250];

// A text that a spreadsheet would run as a formula gets a leading apostrophe.
const csvText = (text) => {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};
const csvValue = (value) =>
  isBlank(value) ? "" : typeof value === "number" ? String(value) : csvText(String(value));

// Missing values stay last in both directions.
function compareValues(a, b, direction) {
  if (isBlank(a) || isBlank(b)) return isBlank(a) - isBlank(b);
  return a < b ? -direction : a > b ? direction : 0;
}

// A dash that says why there is nothing.
const missing = (reason) =>
  h("abbr", { role: "img", title: reason || t("table.missing"), "aria-label": reason || t("table.missing") }, MISSING);

/* A column: {key, title, help, format, better, value(i), low(i), high(i), seedSd(i), note(i), node(i), hidden, isOptional,
   isLong}. `title` and `help` are functions, so that they follow the language; an optional value may be blank,
   a long one may wrap. */
class Table {
  constructor(host, { name, caption, columns, length, search, bar = null, pageSize = 0, sort = null, foot = null }) {
    Object.assign(this, { host, name, caption, columns, length, search, bar, pageSize, foot });
    this.sort = sort;
    this.query = "";
    this.page = 0;
    this.order = null;
    this.buildFrame();
    this.paint();
    onPaint(() => this.paint());
  }

  buildFrame() {
    this.heading = h("h3", { "aria-hidden": "true" });
    this.searchBox = h("input", {
      type: "search",
      class: "search",
      autocomplete: "off",
      spellcheck: "false",
      oninput: () => this.setQuery(this.searchBox.value),
    });
    this.count = h("span", { class: "count", role: "status", "aria-live": "polite" });
    this.csvButton = h("button", { type: "button", class: "quiet", onclick: () => this.saveCsv() });
    const head = h("div", { class: "tools" }, this.heading, this.csvButton);
    const filter = this.search ? h("div", { class: "tools" }, this.searchBox, this.count) : null;
    this.table = h("table", { class: "data" });
    this.scroller = h("div", { class: "scroller", tabindex: "0", role: "region" }, this.table);
    this.pager = h("nav", { class: "pager" });
    this.footNote = h("p", { class: "foot" });
    const above = [head, this.bar, filter].filter(Boolean);
    this.host.replaceChildren(...above, this.scroller, this.pager, this.footNote);
  }

  setQuery(query) {
    this.query = query.trim().toLowerCase();
    this.page = 0;
    this.order = null;
    this.paintBody();
  }

  sortBy(column) {
    const first = column.better === "lower" || column.format === "text" ? 1 : -1;
    const isSame = this.sort && this.sort.key === column.key;
    if (!isSame) this.sort = { key: column.key, direction: first };
    else if (this.sort.direction === first) this.sort = { key: column.key, direction: -first };
    else this.sort = null;
    this.page = 0;
    this.paint();
    const again = [...this.table.querySelectorAll("th button")].find((b) => b.dataset.key === column.key);
    if (again) again.focus({ preventScroll: true });
  }

  rows() {
    if (this.order) return this.order;
    let order = Array.from({ length: this.length }, (_, i) => i);
    if (this.query) order = order.filter((i) => this.search(i).toLowerCase().includes(this.query));
    const column = this.sort && this.columns.find((c) => c.key === this.sort.key);
    if (column) {
      const keys = order.map((i) => [column.value(i), i]);
      keys.sort((a, b) => compareValues(a[0], b[0], this.sort.direction) || a[1] - b[1]);
      order = keys.map((pair) => pair[1]);
    }
    this.order = order;
    return order;
  }

  paint() {
    // What a search finds depends on the language.
    this.order = null;
    this.shown = this.columns.filter((column) => !(column.hidden && column.hidden()));
    const caption = this.caption();
    this.heading.textContent = caption;
    this.digits = new Map(this.shown.map((column) => [column, digitsFor(column.format, this.values(column))]));
    this.searchBox.placeholder = t("table.search");
    this.searchBox.setAttribute("aria-label", `${t("table.search")}: ${caption}`);
    this.csvButton.textContent = t("table.csv");
    this.scroller.setAttribute("aria-label", caption);
    this.pager.setAttribute("aria-label", `${t("table.pages")}: ${caption}`);
    this.footNote.textContent = this.foot ? this.foot() : "";
    const head = h("tr", {}, ...this.shown.map((column) => this.headCell(column)));
    this.body = h("tbody");
    this.table.replaceChildren(h("caption", { class: "offscreen" }, caption), h("thead", {}, head), this.body);
    this.paintBody();
  }

  headCell(column) {
    const isSorted = this.sort && this.sort.key === column.key;
    const direction = isSorted ? (this.sort.direction > 0 ? "ascending" : "descending") : "none";
    const unit = column.format === "basis_points" ? h("span", { class: "unit" }, t("unit.bp")) : null;
    const button = h(
      "button",
      { type: "button", "data-key": column.key, title: column.help ? column.help() : null,
        onclick: () => this.sortBy(column) },
      h("span", {}, column.title()), unit,
      h("span", { class: "arrow", "aria-hidden": "true" }, isSorted ? (this.sort.direction > 0 ? "↑" : "↓") : "↕"),
    );
    return h("th", { scope: "col", "aria-sort": direction, class: column.format === "text" ? "text" : "num" }, button);
  }

  values(column) {
    return Array.from({ length: this.length }, (_, i) => column.value(i));
  }

  // The best value as it is shown: what looks equal is marked together, and nothing where all are equal.
  best(column) {
    const values = column.better ? this.values(column).filter(isNumber) : [];
    const show = (value) => format(column.format, value, { digits: this.digits.get(column) });
    if (new Set(values.map(show)).size < 2) return null;
    return show(column.better === "higher" ? Math.max(...values) : Math.min(...values));
  }

  cell(column, i, best, isHeading) {
    const kind = column.format !== "text" ? "num" : column.isLong ? "text long" : "text";
    const content = this.content(column, i, best, isHeading);
    return isHeading ? h("th", { class: kind, scope: "row" }, ...content) : h("td", { class: kind }, ...content);
  }

  content(column, i, best, isHeading) {
    if (column.node) return [column.node(i)];
    const value = column.value(i);
    const note = column.note ? column.note(i) : "";
    if (isBlank(value)) return column.isOptional ? [] : [missing(note)];
    const digits = this.digits.get(column);
    const text = format(column.format, value, { digits });
    const range = column.low ? interval(column.format, column.low(i), column.high(i), digits) : "";
    const spread = column.seedSd && isNumber(column.seedSd(i)) ? t("table.seeds", { sd: format(column.format, column.seedSd(i), { digits }) }) : "";
    const star = note ? h("abbr", { role: "img", class: "star", title: note, "aria-label": note }, "*") : "";
    const isBest = text === best;
    const shown = isBest ? h("span", { class: "best", title: t("table.best") }, text) : isHeading ? h("span", { class: "row-name" }, text) : text;
    return [shown, star, range && h("span", { class: "range" }, range), spread && h("span", { class: "range" }, spread)];
  }

  paintBody() {
    const order = this.rows();
    const size = this.pageSize || order.length;
    const pages = Math.max(1, Math.ceil(order.length / Math.max(size, 1)));
    this.page = Math.min(this.page, pages - 1);
    const visible = order.slice(this.page * size, (this.page + 1) * size);
    const best = this.shown.map((column) => (this.pageSize ? null : this.best(column)));
    this.body.replaceChildren(
      ...visible.map((i) => h("tr", {}, ...this.shown.map((column, c) => this.cell(column, i, best[c], c === 0)))),
    );
    if (!visible.length) {
      const none = h("td", { class: "text none", colspan: String(this.shown.length) }, t("table.none"));
      this.body.append(h("tr", {}, none));
    }
    this.count.textContent = this.pageSize
      ? t("table.count", { shown: grouped.format(order.length), all: grouped.format(this.length) })
      : "";
    this.paintPager(pages);
  }

  paintPager(pages) {
    this.pager.hidden = !this.pageSize || this.length <= PAGE_SIZES[0];
    if (this.pager.hidden) return;
    const go = (page) => () => {
      this.page = page;
      this.paintBody();
    };
    const step = (label, glyph, page, isOff) =>
      h("button", { type: "button", class: "quiet", "aria-label": label, title: label, disabled: isOff, onclick: go(page) }, glyph);
    const sizes = h(
      "select",
      { "aria-label": t("table.size"), onchange: (event) => {
        this.pageSize = Number(event.target.value);
        this.page = 0;
        this.paintBody();
      } },
      ...PAGE_SIZES.map((size) => h("option", { value: String(size), selected: size === this.pageSize }, t("table.per", { n: size }))),
    );
    const { page } = this;
    const held = [...this.pager.children].indexOf(document.activeElement);
    this.pager.replaceChildren(
      step(t("table.first"), "«", 0, page === 0),
      step(t("table.previous"), "‹", page - 1, page === 0),
      h("span", { class: "count" }, t("table.page", { page: page + 1, pages })),
      step(t("table.next"), "›", page + 1, page >= pages - 1),
      step(t("table.last"), "»", pages - 1, page >= pages - 1),
      sizes,
    );
    if (held >= 0) this.pager.children[held].focus({ preventScroll: true });
  }

  saveCsv() {
    const withRange = (column, suffix, read) => ({ key: `${column.key}_${suffix}`, value: read });
    const columns = this.columns.flatMap((column) =>
      column.low ? [column, withRange(column, "low", column.low), withRange(column, "high", column.high)] : [column],
    );
    const lines = [columns.map((column) => csvText(column.key)).join(",")];
    for (const i of this.rows()) lines.push(columns.map((column) => csvValue(column.value(i))).join(","));
    download(`${this.name}.csv`, `${lines.join("\r\n")}\r\n`);
  }
}
