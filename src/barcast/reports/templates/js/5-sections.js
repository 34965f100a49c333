// Tables and drawings of the sections, top to bottom.

const title = (key) => () => t(key);

// ---- head: cards and warnings --------------------------------------------------------------------------

const dateRange = ({ first_session: first, last_session: last }) =>
  h("span", {}, h("span", { class: "whole" }, `${first} –`), " ", h("span", { class: "whole" }, last));

function scoreCard(card, { name, format: kind, value, low, high, segment, note }) {
  const details = [interval(kind, low, high), term("segment", segment), pick(note)].filter(Boolean).join(" · ");
  return card(pick(name), format(kind, value, { unit: true }), details, true);
}

function paintCards() {
  const { data, headline } = REPORT;
  const card = (name, value, note, isWide) =>
    h("div", { class: isWide ? "card wide" : "card" }, h("dt", {}, name), h("dd", {}, value), h("dd", { class: "note" }, note));
  const openings = REPORT.test_openings;
  const horizons = REPORT.horizons.length ? REPORT.horizons : [REPORT.horizon];
  const elsewhere = REPORT.test_openings_elsewhere;
  const openedNote = sentences(t("card.opened_note"), elsewhere ? t("card.opened_elsewhere", { n: elsewhere }) : "");
  const cards = [
    card(t("card.model"), REPORT.model, t("card.model_note", { horizon: horizons.join(t("list.comma")), delay: REPORT.delay })),
    card(t("card.symbols"), grouped.format(data.num_symbols), `${term("market", data.market)} · ${term("frequency", data.frequency)}`),
    card(t("card.rows"), grouped.format(data.num_rows), t("card.rows_note", { version: data.store_version })),
    card(t("card.sessions"), grouped.format(data.num_sessions), dateRange(data)),
    card(t("card.test"), openings ? t("card.opened", { n: openings }) : t("card.sealed"), openings ? openedNote : t("card.sealed_note")),
  ];
  byId("cards").replaceChildren(headline ? scoreCard(card, headline) : card(t("card.score"), MISSING, t("card.no_score"), true), ...cards);
}

function paintNotices() {
  const notices = REPORT.warnings.map(pick);
  if (REPORT.data.survivors_only) notices.unshift(t("notice.survivors"));
  if (REPORT.small_universe) notices.unshift(t("notice.small_universe"));
  const host = byId("notices");
  host.hidden = !notices.length;
  host.replaceChildren(h("h2", {}, t("notice.title")), h("ul", {}, ...notices.map((text) => h("li", {}, text))));
}

// ---- comparison ----------------------------------------------------------------------------------------

const VIEWS = ["skill", "errors", "direction", "order", "cost"];

// Below a model's name: what kind of row it is, and what to type where the name is a translation.
const rowSubtitle = (row) =>
  [rowKind(row) === "model" ? "" : t(`table.${rowKind(row)}`), pick(row.name) === row.typed ? "" : row.typed].filter(Boolean).join(" · ");

function comparisonColumns(comparison, isShown) {
  const { rows } = comparison;
  const name = {
    key: "model", title: title("table.row"), format: "text", value: (i) => rows[i].name.en,
    node: (i) => h("span", { class: `row-name ${rowKind(rows[i])}` }, h("span", {}, pick(rows[i].name)),
      rowSubtitle(rows[i]) ? h("small", {}, rowSubtitle(rows[i])) : null),
  };
  const numbers = comparison.columns.map((column, c) => ({
    hidden: () => !isShown(column.view),
    key: column.key, title: () => pick(column.title), help: () => pick(column.help), format: column.format, better: column.better,
    value: (i) => (column.format === "text" ? rows[i].cells[c].text : rows[i].cells[c].value),
    ...(rows.some((row) => isNumber(row.cells[c].low)) ? { low: (i) => rows[i].cells[c].low, high: (i) => rows[i].cells[c].high } : {}),
    seedSd: (i) => rows[i].cells[c].seed_sd,
    note: (i) => pick(rows[i].cells[c].note),
  }));
  return [name, ...numbers];
}

function mountComparison() {
  const host = byId("comparison-table");
  const all = REPORT.comparisons;
  let shown = 0;
  let view = 0;
  const views = VIEWS.filter((name) => all.some(({ columns }) => columns.some((column) => column.view === name)));
  const tables = all.map((comparison, i) => {
    const place = h("div");
    const bar = h("div", { class: "tabs views", role: "group" });
    host.append(place);
    return { place, bar, table: new Table(place, {
      name: `comparison-${i + 1}`, length: comparison.rows.length, bar,
      columns: comparisonColumns(comparison, (name) => name === views[view]),
      caption: () => t("comparison.caption", { title: pick(comparison.title) }),
      foot: () => sentences(pick(comparison.note), t("comparison.foot"), pick(REPORT.interval_note)),
    }) };
  });
  const current = () => all[shown];
  const firstChoice = (comparison) => Math.max(0, drawableColumns(comparison).findIndex((column) => column.key === comparison.chart_key));
  const chart = new Chart("comparison", {
    choice: all.length ? firstChoice(all[0]) : 0,
    tabs: () => (current() ? drawableColumns(current()).map((column) => pick(column.title)) : []),
    build: (choice) => comparisonFigure(current(), choice),
  });
  const paint = () => {
    tables.forEach(({ place, bar, table }, i) => {
      place.hidden = i !== shown;
      bar.setAttribute("aria-label", t("chart.choose"));
      paintTabs(bar, views.map((name) => t(`view.${name}`)), view, (chosenView) => {
        view = chosenView;
        tables.forEach((other) => other.table.paint());
        paint();
      });
    });
    paintTabs(byId("comparison-tabs"), all.map((comparison) => pick(comparison.title)), shown, (i) => {
      shown = i;
      chart.choice = firstChoice(all[i]);
      chart.paint();
      paint();
    });
  };
  paint();
  onPaint(paint);
}

// ---- forecasts -----------------------------------------------------------------------------------------

function forecastColumns({ length, columns }) {
  const read = (name) => (i) => columns[name][i];
  const hasNoSize = () => isUnsized({ columns });
  const isEmpty = (name) => () => columns[name].every(isBlank);
  const isConstant = (name) => () => length > 1 && columns[name].every((value) => value === columns[name][0]);
  const noteOf = (i) => pick(columns.note[i]);
  const whyMissing = (name) => (i) => (isBlank(columns[name][i]) ? noteOf(i) : "");
  const largest = columns.y_hat.reduce((most, value) => (isNumber(value) ? Math.max(most, Math.abs(value)) : most), 0);
  const forecast = (i) => {
    const value = columns.y_hat[i];
    if (!isNumber(value)) return missing(noteOf(i));
    const side = value > 0 ? "rise" : value < 0 ? "fall" : "";
    const bar = h("i", { class: `fill ${side}`, "aria-hidden": "true" });
    bar.style.width = `${(36 * Math.abs(value)) / (largest || 1)}px`;
    const text = h("span", { class: side }, format("basis_points", value, { sign: true }));
    return h("span", { class: "forecast" }, h("span", { class: "track" }, bar), text);
  };
  return [
    { key: "symbol", title: title("table.symbol"), format: "text", value: read("symbol") },
    { key: "rank", title: title("forecast.rank"), help: title("forecast.rank_help"), format: "integer", better: "lower", value: read("rank"), note: whyMissing("rank"), hidden: isEmpty("rank") },
    { key: "y_hat", title: title("forecast.y_hat"), help: title("forecast.y_hat_help"), format: "basis_points", value: read("y_hat"), node: forecast, hidden: hasNoSize },
    { key: "sigma", title: title("forecast.sigma"), help: title("forecast.sigma_help"), format: "basis_points", value: read("sigma"), note: whyMissing("sigma"), hidden: isEmpty("sigma") },
    { key: "p_up", title: title("forecast.p_up"), help: title("forecast.p_up_help"), format: "percent", value: read("p_up"), note: whyMissing("p_up"), hidden: () => hasNoSize() || isEmpty("p_up")() },
    { key: "score", title: title("forecast.score"), help: title("forecast.score_help"), format: "score", value: read("score"), note: whyMissing("score") },
    { key: "as_of", title: title("forecast.as_of"), format: "text", value: read("as_of"), hidden: isConstant("as_of") },
    { key: "for_session", title: title("forecast.for_session"), format: "text", value: read("for_session"), hidden: isConstant("for_session") },
    { key: "note", title: title("forecast.note"), format: "text", value: noteOf, hidden: isEmpty("note"), isOptional: true, isLong: true },
  ];
}

function forecastCaption({ length, columns }) {
  const one = (name) => (new Set(columns[name]).size === 1 ? columns[name][0] : null);
  const asOf = one("as_of");
  const target = one("for_session");
  const dates = [asOf && t("forecast.as_of_all", { time: asOf }), target && t("forecast.for_all", { target })];
  return [t("forecast.caption", { n: grouped.format(length) }), ...dates].filter(Boolean).join(" · ");
}

function mountForecasts() {
  const predictions = unpackTable(REPORT.predictions);
  new Chart("predictions", { build: () => forecastFigure(predictions) });
  if (!predictions.length) return;
  new Table(byId("predictions-table"), {
    name: "predictions", length: predictions.length, columns: forecastColumns(predictions), pageSize: 25,
    sort: { key: "rank", direction: 1 },
    caption: () => forecastCaption(predictions),
    search: (i) => `${predictions.columns.symbol[i]} ${pick(predictions.columns.note[i])}`,
    foot: () => t("forecast.foot", { entry: REPORT.delay, exit: REPORT.delay + REPORT.horizon }),
  });
}

// ---- symbols -------------------------------------------------------------------------------------------

function mountSymbols() {
  const scores = REPORT.symbols;
  const host = byId("symbols-table");
  if (!scores || !scores.symbols.length) {
    const paint = () => host.replaceChildren(emptyNote(whyEmpty("symbols")));
    paint();
    onPaint(paint);
    return;
  }
  const columns = scores.columns.map((column, c) => ({
    key: column.key, title: () => pick(column.title), help: () => pick(column.help), format: column.format, better: column.better,
    value: (i) => scores.values[c][i], note: (i) => (isBlank(scores.values[c][i]) ? t("symbols.missing") : ""),
  }));
  new Table(host, {
    name: "symbols", length: scores.symbols.length, pageSize: 25,
    columns: [{ key: "symbol", title: title("table.symbol"), format: "text", value: (i) => scores.symbols[i] }, ...columns],
    caption: () => t("symbols.caption", { n: grouped.format(scores.symbols.length), segment: term("segment", scores.segment) }),
    search: (i) => scores.symbols[i],
  });
}

// ---- data and defects, failures: short tables ----------------------------------------------------------

function mountFacts() {
  const { data } = REPORT;
  const facts = () => [
    ["data.market", `${term("market", data.market)} · ${term("frequency", data.frequency)}`],
    ["data.calendar", data.calendar],
    ["data.range", dateRange(data)],
    ["data.basis", data.basis.map((name) => term("basis", name)).join(t("list.comma"))],
    ["data.survivors", t(data.survivors_only ? "data.survivors_yes" : "data.survivors_no")],
    ["data.version", String(data.store_version)],
    ["data.source", data.source],
    ["data.digest", data.digest],
  ];
  mountList("facts", () => facts().map(([key, value]) => [t(key), value]));
}

// A list of names and values that follows the language; what has no value is left out.
function mountList(id, pairs) {
  const paint = () =>
    byId(id).replaceChildren(
      ...pairs().filter(([, value]) => value).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
    );
  paint();
  onPaint(paint);
  return paint;
}

function mountRows(id, section, rows, spec) {
  const host = byId(id);
  if (rows.length) {
    new Table(host, { length: rows.length, ...spec });
    return;
  }
  const paint = () => host.replaceChildren(emptyNote(whyEmpty(section)));
  paint();
  onPaint(paint);
}

function mountDefects() {
  const rows = REPORT.data.defects;
  mountRows("defects-table", "defects", rows, {
    name: "defects",
    caption: title("defects.caption"),
    foot: title("defects.foot"),
    columns: [
      { key: "kind", title: title("defects.kind"), format: "text", value: (i) => pick(rows[i].title) },
      { key: "rows", title: title("defects.rows"), format: "integer", value: (i) => rows[i].num_rows },
      { key: "symbols", title: title("defects.symbols"), format: "integer", value: (i) => rows[i].num_symbols },
      { key: "policy", title: title("defects.policy"), format: "text", value: (i) => term("policy", rows[i].policy),
        node: (i) => h("span", { class: `pill ${rows[i].policy}` }, term("policy", rows[i].policy)) },
      { key: "example", title: title("defects.example"), format: "text", value: (i) => pick(rows[i].example), isOptional: true, isLong: true },
    ],
  });
}

function mountFailures() {
  const { length, columns } = unpackTable(REPORT.failures);
  const said = (name) => (i) => pick(columns[name][i]);
  mountRows("failures-table", "failures", { length }, {
    name: "failures",
    caption: () => t("failures.caption", { n: grouped.format(length) }),
    pageSize: 25,
    search: (i) => ["symbol", "stage", "error", "fallback"].map((name) => said(name)(i)).join(" "),
    columns: [
      { key: "symbol", title: title("table.symbol"), format: "text", value: said("symbol") },
      { key: "stage", title: title("failures.stage"), format: "text", value: said("stage") },
      { key: "error", title: title("failures.error"), format: "text", value: said("error"), isLong: true },
      { key: "fallback", title: title(REPORT.fleet ? "failures.todo" : "failures.fallback"), format: "text", value: said("fallback"), isLong: true },
    ],
  });
}

// ---- segments: a band to scale, and its numbers --------------------------------------------------------

function paintTimeline() {
  const { segments } = REPORT;
  const bands = segments.map((segment) => {
    const name = term("segment", segment.name);
    const band = h("div", { class: segment.is_sealed ? "band sealed" : "band" }, h("b", {}, name), h("span", {}, grouped.format(segment.num_sessions)));
    band.style.flexGrow = segment.num_sessions;
    band.style.background = segmentColour(segment.name);
    return band;
  });
  const host = byId("timeline");
  host.replaceChildren(...bands);
  host.setAttribute("aria-label", t("segments.alt"));
  // A name that does not fit its band is left to the table below, which repeats the colours.
  for (const band of bands) band.classList.toggle("tight", band.firstChild.scrollWidth > band.clientWidth - 8);
}

function mountSegments() {
  const rows = REPORT.segments;
  byId("timeline").hidden = !rows.length;
  if (rows.length) {
    paintTimeline();
    onPaint(paintTimeline);
    new ResizeObserver(paintTimeline).observe(byId("segments"));
  }
  const swatch = (i) => {
    const mark = h("i", { class: "swatch", "aria-hidden": "true" });
    mark.style.background = segmentColour(rows[i].name);
    return h("span", {}, mark, term("segment", rows[i].name), rows[i].is_sealed ? h("small", {}, ` ${t("segments.sealed")}`) : null);
  };
  const integer = (key, read) => ({ key, title: title(`segments.${key}`), format: "integer", value: (i) => read(rows[i]) });
  mountRows("segments-table", "segments", rows, {
    name: "segments",
    caption: title("segments.caption"),
    foot: title("segments.foot"),
    columns: [
      { key: "segment", title: title("segments.name"), format: "text", value: (i) => rows[i].name, node: swatch },
      { key: "use", title: title("segments.use"), format: "text", value: (i) => (WORDS[`use.${rows[i].name}`] ? t(`use.${rows[i].name}`) : ""), isLong: true, isOptional: true },
      { key: "first", title: title("segments.first"), format: "text", value: (i) => rows[i].first_session },
      { key: "last", title: title("segments.last"), format: "text", value: (i) => rows[i].last_session },
      integer("sessions", (row) => row.num_sessions),
      integer("labelled", (row) => row.num_labelled),
      integer("purged", (row) => row.num_purged),
      integer("terminal", (row) => row.num_terminal),
      integer("unknown", (row) => row.num_unknown),
    ],
  });
}
