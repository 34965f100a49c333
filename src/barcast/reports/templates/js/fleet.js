// A fleet: what its models cost, what members weigh, who is good, one symbol's curves. A routed run: who serves whom.

const MOST_BARS = 24;

// Rows as level bars with their names left and numbers right: {name, value, colour, written, low, high, dot}.
function barsFigure(entries, { axis, kind = "percent", legend = [], click = [] }) {
  const c = palette();
  const label = { color: c.ink, fontSize: 12, width: isNarrow() ? 104 : 210, overflow: "truncate", interval: 0, hideOverlap: false };
  const value = { ...label, color: c["ink-2"], width: undefined, overflow: undefined };
  const look = { inverse: true, axisLine: { show: false } };
  const hasRange = entries.some(({ low }) => isNumber(low));
  const number = (v) => format(kind, v, { unit: true });
  const dots = entries.map(({ dot }, i) => [dot, i]).filter(([at]) => isNumber(at));
  return {
    height: 58 + 26 * entries.length,
    legend,
    click,
    option: {
      xAxis: valueAxis(c, axis, tick(kind), { ...LEVEL_NAME, splitNumber: isNarrow() ? 3 : 6, minInterval: kind === "integer" ? 1 : 0 }),
      yAxis: [
        categoryAxis(c, "", entries.map(({ name }) => name), { ...look, axisLabel: label }),
        categoryAxis(c, "", entries.map((entry) => entry.written ?? number(entry.value)), { ...look, position: "right", axisLabel: value }),
      ],
      tooltip: { ...baseOption().tooltip, formatter: ([point]) => {
        const entry = entries[point.dataIndex];
        const range = interval(kind, entry.low, entry.high);
        return tip(entry.name, entry.tip || [[axis, number(entry.value)], ...(range ? [[t("chart.interval"), range]] : [])]);
      } },
      series: [
        { type: "bar", barMaxWidth: 16, data: entries.map((e) => ({ value: isNumber(e.value) ? e.value : "-", itemStyle: { color: e.colour } })) },
        ...(hasRange ? whiskers(c, entries.map(({ low, high }, i) => [i, low, high]), { isLevel: true }) : []),
        ...(dots.length ? [{ type: "scatter", data: dots, symbolSize: 7, itemStyle: { color: c.ink }, z: 5, silent: true, tooltip: { show: false } }] : []),
      ],
    },
    columns: [t("table.symbol"), axis, t("chart.low"), t("chart.high")].slice(0, hasRange ? 4 : 2),
    rows: entries.filter((e) => e !== GAP).map((e) => [e.name, number(e.value), format(kind, e.low), format(kind, e.high)].slice(0, hasRange ? 4 : 2)),
  };
}

// The best and the worst by a column, the best first; all where they are few.
function extremesOf(values) {
  const order = values.map((value, i) => [value, i]).filter(([value]) => isNumber(value)).sort((a, b) => b[0] - a[0]).map(([, i]) => i);
  return order.length <= MOST_BARS ? order : [...order.slice(0, MOST_BARS / 2), null, ...order.slice(-MOST_BARS / 2)];
}

// What stands between the best and the worst.
const GAP = { name: "⋯", value: null, written: "", tip: [] };

const median = (values) => {
  const sorted = values.filter(isNumber).sort((a, b) => a - b);
  return sorted.length ? (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2 : null;
};
const total = (values) => values.reduce((sum, value) => sum + (value || 0), 0);

const withUnit = ({ title: name, format: kind }) => (unitOf(kind) ? `${pick(name)} (${unitOf(kind)})` : pick(name));

// How often each word occurs, the most frequent first.
function tally(words) {
  const counts = new Map();
  for (const word of words) counts.set(word, (counts.get(word) || 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
}

// ---- the fleet -----------------------------------------------------------------------------------------

function fleetFacts({ columns }) {
  const { counts, seconds, ledger_bytes: size } = REPORT.fleet;
  const all = total(Object.values(counts));
  const share = (name) => (counts[name] ? `${grouped.format(counts[name])} (${format("percent", counts[name] / all)})` : "");
  return [
    [t("fleet.done"), t("fleet.of", { n: grouped.format(counts.done), all: grouped.format(all) })],
    [t("fleet.left_out"), share("left_out")],
    [t("fleet.failed"), share("failed")],
    [t("fleet.waiting"), counts.pending + counts.running ? grouped.format(counts.pending + counts.running) : ""],
    [t("fleet.computing"), t("fleet.each", { all: duration(seconds), each: duration(median(columns.seconds) || 0) })],
    [t("fleet.disk"), t("fleet.each", { all: bytes(size), each: bytes(Math.round(median(columns.bytes) || 0)) })],
    [t("fleet.corrects"), REPORT.fleet.universal],
    [t("fleet.memory"), bytes(Math.max(0, ...columns.memory))],
  ];
}

function mountPresets({ columns, length }) {
  const found = tally(columns.preset).map(([preset]) => {
    const places = columns.preset.map((name, i) => (name === preset ? i : -1)).filter((i) => i >= 0);
    const of = (name) => places.map((i) => columns[name][i]);
    return { preset, num: places.length, seconds: median(of("seconds")), bytes: median(of("bytes")), rows: median(of("rows")), skill: median(of("skill")) };
  });
  const column = (key, kind, more = {}) => ({ key, title: title(`fleet.${key}`), format: kind, value: (i) => found[i][key], ...more });
  new Table(byId("presets-table"), {
    name: "presets", length: found.length, caption: title("fleet.presets"), foot: title("fleet.medians"),
    columns: [
      column("preset", "text"), column("num", "integer"),
      { key: "share", title: title("fleet.share"), format: "percent", value: (i) => found[i].num / length },
      column("rows", "integer"), column("seconds", "seconds"), column("bytes", "bytes"),
      { key: "skill", title: () => pick(REPORT.fleet.skill.title), format: REPORT.fleet.skill.format, value: (i) => found[i].skill },
    ],
  });
}

// What may be drawn as a distribution over symbols: [column, name, unit, in which it is drawn].
function spreads({ columns }) {
  const kinds = [["seconds", t("spread.seconds"), 1], ["bytes", t("spread.bytes"), 1e-3], ["rows", t("spread.rows"), 1], ["memory", t("spread.memory"), 1e-6],
    ["skill", withUnit(REPORT.fleet.skill), REPORT.fleet.skill.format === "percent" ? 100 : 1], ["epoch", t("spread.epoch"), 1],
    ...["forest", "xgboost", "lightgbm"].map((name) => [`trees ${name}`, t("spread.trees", { name: t(`member.${name}`) }), 1])];
  return kinds.filter(([key]) => (columns[key] || []).some(isNumber));
}

function spreadFigure(table, choice) {
  const [key, axis, scale] = spreads(table)[choice] || [];
  if (!key) return null;
  const c = palette();
  const values = table.columns[key].filter(isNumber).map((value) => value * scale);
  const middle = tick("number")(Number(median(values).toPrecision(3)));
  return forecastHistogram(values, {
    title: t("spread.title"), how: () => t("spread.how", { middle, name: axis, most: tick("number")(Number(Math.max(...values).toPrecision(3))) }),
    axis, unit: "", legend: [], colour: () => c.accent,
  });
}

// ---- members -------------------------------------------------------------------------------------------

function weightsFigure() {
  const c = palette();
  const { members } = REPORT.fleet;
  const names = members.map((member) => pick(member.name));
  const at = (k) => members.map((member) => member.quantiles[k]);
  const [low, first, middle, third, high] = [0, 1, 2, 3, 4].map(at);
  const bar = (data, colour, stack) => ({ type: "bar", stack, data, barMaxWidth: 16, itemStyle: { color: colour } });
  const percent = (value) => format("percent", value);
  return {
    height: 58 + 40 * members.length,
    legend: [{ colour: c["accent-pale"], label: t("weights.box") }, { colour: c.ink, label: t("weights.middle") }, { colour: c.reference, label: t("weights.market") }],
    option: {
      xAxis: valueAxis(c, t("weights.axis"), tick("percent"), { ...LEVEL_NAME, min: 0 }),
      yAxis: categoryAxis(c, "", names, { inverse: true, axisLine: { show: false }, axisLabel: { color: c.ink, fontSize: 12, interval: 0 } }),
      tooltip: { ...baseOption().tooltip, formatter: ([point]) => {
        const member = members[point.dataIndex];
        return tip(pick(member.name), [[t("weights.middle"), percent(member.quantiles[2])],
          [t("weights.box"), interval("percent", member.quantiles[1], member.quantiles[3])],
          [t("weights.line"), interval("percent", member.quantiles[0], member.quantiles[4])], [t("weights.market"), percent(member.market)]]);
      } },
      series: [
        bar(first, "transparent", "box"), bar(third.map((value, i) => value - first[i]), c["accent-pale"], "box"),
        ...whiskers(c, members.map((_, i) => [i, low[i], high[i]]), { isLevel: true }),
        { type: "scatter", data: middle.map((value, i) => [value, i]), symbol: "rect", symbolSize: [3, 18], itemStyle: { color: c.ink }, z: 6 },
        { type: "scatter", data: members.map((member, i) => [member.market, i]), symbol: "diamond", symbolSize: 11, itemStyle: { color: c.reference }, z: 7 },
      ],
    },
    columns: [t("members.name"), "5%", "25%", "50%", "75%", "95%", t("weights.market")],
    rows: members.map((member) => [pick(member.name), ...member.quantiles.map(percent), percent(member.market)]),
  };
}

function mountMembers() {
  const { members, strength } = REPORT.fleet;
  new Chart("weights", { build: weightsFigure });
  const column = (key, kind, more = {}) =>
    ({ key, title: title(`members.${key}`), help: title(`members.${key}_help`), format: kind, value: (i) => members[i][key], ...more });
  new Table(byId("members-table"), {
    name: "members", length: members.length, caption: title("members.caption"),
    foot: () => (isNumber(strength) ? t("members.strength", { p: format("percent", strength) }) : ""),
    columns: [
      { key: "member", title: title("members.name"), format: "text", value: (i) => pick(members[i].name) },
      column("num_symbols", "integer"), column("mean", "percent"),
      { ...column("median", "percent"), value: (i) => members[i].quantiles[2] },
      column("market", "percent"), column("leads", "percent", { better: "higher" }), column("log_score", "number", { better: "higher" }),
    ],
  });
}

// ---- best and worst ------------------------------------------------------------------------------------

function extremesFigure({ columns }) {
  const { skill } = REPORT.fleet;
  const c = palette();
  const places = extremesOf(columns.skill);
  if (!places.length) return null;
  const clear = (i) => isNumber(columns.low[i]) && (columns.low[i] > 0 || columns.high[i] < 0);
  const known = columns.low.filter(isNumber).length;
  const above = columns.low.filter((low) => isNumber(low) && low > 0).length;
  const below = columns.high.filter((high) => isNumber(high) && high < 0).length;
  const entries = places.map((i) => (i === null ? GAP : {
    name: columns.symbol[i], value: columns.skill[i], low: columns.low[i], high: columns.high[i], colour: clear(i) ? c.accent : c["accent-pale"],
  }));
  return {
    ...barsFigure(entries, {
      axis: withUnit(skill), kind: skill.format, click: places.map((i) => (i === null ? "" : columns.symbol[i])),
      legend: [{ colour: c.accent, label: t("extremes.clear") }, { colour: c["accent-pale"], label: t("extremes.unclear") }],
    }),
    title: t(places.length < columns.symbol.length ? "extremes.title" : "extremes.all"),
    how: sentences(t("extremes.how", { segment: term("segment", REPORT.fleet.segment), n: grouped.format(REPORT.fleet.num_sessions) }),
      known >= 40 ? t("extremes.luck", { known: grouped.format(known), above: grouped.format(above), below: grouped.format(below), each: grouped.format(Math.round(known * 0.025)) })
        : t("extremes.few", { known: grouped.format(known) })),
  };
}

const SKILL_VIEWS = ["skill", "cost", "weights"];

function skillColumns({ columns }, isShown) {
  const { fleet } = REPORT;
  const read = (name) => (i) => columns[name][i];
  const hidden = (view) => () => Boolean(view) && !isShown(view);
  const plain = (key, kind, view) => ({ key, title: title(`fleet.${key}`), format: kind, value: read(key), hidden: hidden(view) });
  return [
    { key: "symbol", title: title("table.symbol"), format: "text", value: read("symbol"), node: (i) => symbolButton(columns.symbol[i]) },
    plain("preset", "text"),
    { key: "skill", title: () => pick(fleet.skill.title), help: () => pick(fleet.skill.help), format: fleet.skill.format, better: "higher",
      value: read("skill"), low: read("low"), high: read("high"), note: (i) => (isBlank(columns.skill[i]) ? t("skills.few") : ""), hidden: hidden("skill") },
    plain("judged", "integer", "skill"), plain("rows", "integer", "skill"),
    plain("seconds", "seconds", "cost"), plain("bytes", "bytes", "cost"), plain("memory", "bytes", "cost"),
    ...fleet.members.map((member, k) => ({ key: `weight_${k}`, title: () => pick(member.name), format: "percent", value: read(`weight ${k}`), hidden: hidden("weights") })),
  ];
}

function mountSkills(table) {
  const chart = new Chart("extremes", { build: () => extremesFigure(table) });
  chart.engine?.on("click", ({ dataIndex }) => chart.drawn.click[dataIndex] && showSymbol(chart.drawn.click[dataIndex]));
  const bar = h("div", { class: "tabs views", role: "group" });
  const views = SKILL_VIEWS.filter((name) => name !== "weights" || REPORT.fleet.members.length);
  let view = 0;
  const shown = new Table(byId("skills-table"), {
    name: "fleet", length: table.length, bar, pageSize: 25, sort: { key: "skill", direction: -1 },
    columns: skillColumns(table, (name) => name === views[view]),
    caption: () => t("skills.caption", { n: grouped.format(table.length) }),
    search: (i) => `${table.columns.symbol[i]} ${table.columns.preset[i]}`,
    foot: title("skills.foot"),
  });
  const paint = () => {
    bar.setAttribute("aria-label", t("chart.choose"));
    paintTabs(bar, views.map((name) => t(`skills.${name}`)), view, (i) => {
      view = i;
      shown.paint();
      paint();
    });
  };
  paint();
  onPaint(paint);
}

// ---- one symbol ----------------------------------------------------------------------------------------

let shownSymbol = null;
const symbolPainters = [];
const detailOf = (name) => REPORT.fleet.details.find((detail) => detail.symbol === name);

function showSymbol(name, { move = true } = {}) {
  if (!detailOf(name)) return;
  shownSymbol = name;
  for (const paint of symbolPainters) paint();
  if (move) goTo("symbol", false);
}

const symbolButton = (name) => {
  const text = h("span", { class: "row-name" }, name);
  if (!detailOf(name)) return text;
  return h("button", { type: "button", class: "link", title: t("symbol.show", { symbol: name }), onclick: () => showSymbol(name) }, text);
};

function mountPicker() {
  const { details } = REPORT.fleet;
  const names = details.map((detail) => detail.symbol);
  const known = new Map(names.map((name) => [name.toLowerCase(), name]));
  const box = h("input", { type: "search", class: "search", list: "symbol-names", autocomplete: "off", spellcheck: "false",
    onchange: () => {
      const name = known.get(box.value.trim().toLowerCase());
      said.textContent = name || !box.value ? "" : t("symbol.unknown", { symbol: box.value, run: REPORT.fleet.run });
      if (name) showSymbol(name, { move: false });
    } });
  const said = h("p", { class: "foot", role: "status" });
  const step = (by) => () => showSymbol(names[(names.indexOf(shownSymbol) + by + names.length) % names.length], { move: false });
  const [previous, next] = [h("button", { type: "button", class: "quiet", onclick: step(-1) }, "‹"), h("button", { type: "button", class: "quiet", onclick: step(1) }, "›")];
  const heading = h("h3");
  const count = h("span", { class: "count" });
  byId("symbol-picker").replaceChildren(heading, box, previous, next, count, h("datalist", { id: "symbol-names" }, ...names.map((name) => h("option", { value: name }))));
  byId("symbol-picker").after(said);
  const paint = () => {
    heading.textContent = shownSymbol || "";
    box.value = "";
    box.placeholder = t("symbol.choose");
    box.setAttribute("aria-label", t("symbol.choose"));
    previous.setAttribute("aria-label", t("symbol.previous"));
    next.setAttribute("aria-label", t("symbol.next"));
    const all = REPORT.fleet.symbols.length;
    count.textContent = t(names.length < all ? "symbol.some" : "symbol.all", { n: grouped.format(names.length), all: grouped.format(all) });
  };
  paint();
  onPaint(paint);
  symbolPainters.push(paint);
}

function symbolFacts({ columns }) {
  const detail = detailOf(shownSymbol);
  const i = columns.symbol.indexOf(shownSymbol);
  if (!detail || i < 0) return [];
  const { fleet } = REPORT;
  const range = interval(fleet.skill.format, columns.low[i], columns.high[i]);
  const weights = fleet.members.map((member, k) => [pick(member.name), columns[`weight ${k}`][i]]).filter(([, weight]) => weight > 0.0005);
  const stops = detail.errors.filter((own) => own.stops).map((own) => t("symbol.rounds", { name: t(`member.${own.name}`), n: own.trees, most: own.most }));
  const { learning } = detail;
  return [
    [t("fleet.preset"), columns.preset[i]],
    [pick(fleet.skill.title), [format(fleet.skill.format, columns.skill[i]), range].filter(Boolean).join(" ")],
    [t("fleet.rows"), grouped.format(columns.rows[i])],
    [t("fleet.seconds"), duration(columns.seconds[i])],
    [t("fleet.bytes"), bytes(columns.bytes[i])],
    [t("skills.weights"), weights.map(([name, weight]) => `${name} ${format("percent", weight)}`).join(t("list.comma"))],
    [t("symbol.stopped"), stops.join(t("list.comma"))],
    [t("symbol.epochs"), learning ? t("symbol.kept", { best: learning.best_epoch, n: learning.train_loss.length }) : ""],
  ];
}

function errorsFigure() {
  const detail = detailOf(shownSymbol);
  if (!detail || !detail.errors.length) return null;
  const c = palette();
  const names = detail.errors.map((own) => t(`member.${own.name}`));
  const segments = ["stop", "weigh"].filter((name) => detail.errors.some((own) => isNumber(own.r2[name])));
  if (!segments.length) return null;
  const percent = (value) => format("percent", value);
  return {
    title: t("errors.named", { symbol: shownSymbol }),
    legend: segments.map((name) => ({ colour: segmentColour(name), label: term("segment", name) })),
    height: 280,
    option: {
      xAxis: categoryAxis(c, "", names),
      yAxis: valueAxis(c, t("errors.axis"), tick("percent"), uprightName(c)),
      tooltip: { ...baseOption().tooltip, formatter: (items) => {
        const own = detail.errors[items[0].dataIndex];
        return tip(names[items[0].dataIndex], segments.map((name) => [term("segment", name), percent(own.r2[name])]));
      } },
      series: segments.map((name) => ({ type: "bar", name: term("segment", name), barMaxWidth: 44, data: detail.errors.map((own) => own.r2[name] ?? "-"), itemStyle: { color: segmentColour(name) } })),
    },
    columns: [t("members.name"), t("errors.trees"), ...segments.flatMap((name) => [`RMSE · ${term("segment", name)}`, `R² · ${term("segment", name)}`])],
    rows: detail.errors.map((own, i) => [names[i], grouped.format(own.trees), ...segments.flatMap((name) => [format("number", own.rmse[name]), percent(own.r2[name])])]),
  };
}

function learningFigure() {
  const detail = detailOf(shownSymbol);
  if (!detail || !detail.learning) return null;
  const { train_loss: losses, stop_score: scores, best_epoch: best } = detail.learning;
  const points = losses.map((loss, e) => ({ step: e + 1, epoch: e + 1, train_loss: loss, stop_score: scores[e] }));
  const drawn = lossFigure({ points, best_step: best, score_name: "R²" }, { axis: "axis.epoch", kept: "learning.kept" });
  return drawn && { ...drawn, title: t("learning.named", { symbol: shownSymbol }), columns: drawn.columns.slice(1), rows: drawn.rows.map((row) => row.slice(1)) };
}

function pathsFigure() {
  const detail = detailOf(shownSymbol);
  const { times, has_size: hasSize, num_sessions: all } = REPORT.fleet;
  if (!detail || !detail.outcome.some(isNumber)) return null;
  const c = palette();
  const print = tick("number");
  const panels = [
    { name: t(hasSize ? "axis.forecast_bp" : "forecast.score"), data: detail.forecast, top: 30 },
    { name: t("paths.outcome"), data: detail.outcome, top: 222 },
  ];
  const colour = (g, value) => (g || hasSize ? signColour(c, value) : c.accent);
  const cell = (value) => (isNumber(value) ? print(value) : MISSING);
  return {
    title: t("paths.named", { symbol: shownSymbol }),
    how: sentences(t("paths.how", { segment: term("segment", REPORT.fleet.segment) }),
      times.length < all ? t("paths.thinned", { n: grouped.format(times.length), all: grouped.format(all) }) : ""),
    legend: signLegend(c),
    height: 404,
    option: {
      grid: panels.map(({ top }) => ({ left: 62, right: 18, top, height: 140, outerBoundsMode: "none" })),
      axisPointer: { link: [{ xAxisIndex: "all" }] },
      xAxis: panels.map((_, g) => categoryAxis(c, "", times, { gridIndex: g, axisLine: { onZero: false, lineStyle: { color: c.line } }, axisLabel: { ...axisLook(c).axisLabel, show: g === 1 } })),
      yAxis: panels.map(({ name }, g) => valueAxis(c, name, print, { ...uprightName(c), gridIndex: g, splitNumber: 3 })),
      tooltip: { ...baseOption().tooltip, formatter: (items) => tip(items[0].axisValue, panels.map(({ name, data }) => [name, cell(data[items[0].dataIndex])])) },
      series: panels.map(({ data }, g) => ({ type: "bar", xAxisIndex: g, yAxisIndex: g, barMaxWidth: 12,
        data: data.map((value) => (isNumber(value) ? { value, itemStyle: { color: colour(g, value) } } : "-")) })),
    },
    columns: [t("paths.session"), ...panels.map(({ name }) => name)],
    rows: times.map((time, i) => [time, ...panels.map(({ data }) => cell(data[i]))]),
  };
}

function mountSymbol(table) {
  shownSymbol = REPORT.fleet.details.length ? REPORT.fleet.details[0].symbol : null;
  mountPicker();
  symbolPainters.push(mountList("symbol-facts", () => symbolFacts(table)));
  const own = REPORT.fleet.kind === "trees" ? new Chart("errors", { build: errorsFigure }) : new Chart("learning", { build: learningFigure });
  const paths = new Chart("paths", { build: pathsFigure });
  symbolPainters.push(() => own.paint(), () => paths.paint());
}

// Why symbols have no model: what stands before the colon of a reason.
function failureReasons() {
  const { length, columns } = unpackTable(REPORT.failures);
  if (!length) return null;
  const c = palette();
  const kinds = tally(columns.error.map((error, i) => `${pick(columns.stage[i])} · ${pick(error).split(/[:：]/)[0]}`));
  return reasonsFigure(kinds.map(([name, value]) => ({ name, value, colour: c["accent-pale"] })));
}

function reasonsFigure(entries) {
  const drawn = barsFigure(entries, { axis: t("axis.symbols"), kind: "integer" });
  return { ...drawn, columns: [t("reasons.name"), t("axis.symbols")] };
}

function mountFleet() {
  const table = unpackTable(REPORT.fleet.symbols);
  mountList("fleet-facts", () => fleetFacts(table));
  mountPresets(table);
  new Chart("spread", { tabs: () => spreads(table).map(([, name]) => name), build: (i) => spreadFigure(table, i) });
  if (REPORT.fleet.members.length) mountMembers();
  mountSkills(table);
  mountSymbol(table);
  new Chart("reasons", { build: failureReasons });
}

// ---- who serves whom -----------------------------------------------------------------------------------

const serverColour = (c, server) => (server === "dedicated" ? c.accent : c.naive);

function whyText({ columns }, i) {
  const { why, detail, probability, rows, blocks } = columns;
  if (detail[i]) return t("because.lacks", { detail: pick(detail[i]) });
  return t(`because.${why[i]}`, { p: format("percent", probability[i]), rows: grouped.format(rows[i]), blocks: blocks[i], policy: REPORT.routing.policy });
}

function routingFacts({ columns, length }) {
  const { universal, fleet, policy } = REPORT.routing;
  const own = columns.server.filter((server) => server === "dedicated").length;
  const count = (num) => `${grouped.format(num)} (${format("percent", num / length)})`;
  return [
    [t("routing.own"), count(own)], [t("routing.universal"), count(length - own)],
    [t("routing.by_own"), fleet], [t("routing.by_universal"), universal], [t("routing.policy"), policy],
    [t("routing.judged"), grouped.format(columns.probability.filter(isNumber).length)],
  ];
}

function gainTip({ columns }, i) {
  const range = interval("percent", columns.low[i], columns.high[i]);
  return tip(columns.symbol[i], [
    [t("routing.server"), t(`server.${columns.server[i]}`)], [t("routing.expected"), format("percent", columns.expected[i])],
    [t("routing.probability"), format("percent", columns.probability[i])], [t("routing.gain"), `${format("percent", columns.gain[i])} ${range}`]]);
}

// Either what is expected and how sure it is, or what was measured beside what is expected of it.
function routingFigure(table, choice) {
  const { columns } = table;
  const judged = columns.probability.map((p, i) => (isNumber(p) ? i : -1)).filter((i) => i >= 0);
  if (!judged.length) return null;
  const c = palette();
  const x = choice ? columns.gain : columns.expected;
  const y = choice ? columns.expected : columns.probability;
  const axes = choice ? ["routing.gain_axis", "routing.expected_axis"] : ["routing.expected_axis", "routing.probability_axis"];
  const series = ["universal", "dedicated"].map((server) => ({
    name: t(`server.${server}`), type: "scatter", symbolSize: judged.length > 1500 ? 5 : 8, itemStyle: { color: serverColour(c, server), opacity: 0.75 },
    data: judged.filter((i) => columns.server[i] === server).map((i) => [x[i], y[i], i]),
  }));
  const guide = (data) => ({ silent: true, symbol: "none", label: { show: false }, lineStyle: { color: c["ink-2"], type: [6, 4], width: 1.25 }, data });
  const ends = [Math.min(...judged.map((i) => x[i])), Math.max(...judged.map((i) => x[i]))];
  const line = choice
    ? guide([[{ coord: [ends[0], ends[0]] }, { coord: [ends[1], ends[1]] }], { yAxis: 0 }])
    : guide([{ xAxis: 0 }]);
  const print = tick("percent");
  return {
    title: t(choice ? "routing.drawn_title" : "routing.title"),
    how: t(choice ? "routing.drawn_how" : "routing.how"),
    height: isNarrow() ? 340 : 440,
    legend: series.map((one, k) => ({ colour: one.itemStyle.color, label: `${one.name} (${grouped.format(series[k].data.length)})` })),
    option: {
      grid: plotArea({ top: 30, bottom: 26 }),
      xAxis: valueAxis(c, t(axes[0]), print, { ...LEVEL_NAME, scale: Boolean(choice) }),
      yAxis: valueAxis(c, t(axes[1]), print, choice ? { ...uprightName(c), scale: true } : { ...uprightName(c), min: 0, max: 1 }),
      dataZoom: [{ type: "inside", xAxisIndex: 0, filterMode: "none" }, { type: "inside", yAxisIndex: 0, filterMode: "none" }],
      tooltip: { ...baseOption().tooltip, trigger: "item", formatter: (point) => gainTip(table, point.value[2]) },
      series: [{ type: "scatter", data: [], markLine: { ...line, animation: false } }, ...series],
    },
    columns: [t("table.symbol"), t(axes[0]), t(axes[1])],
    rows: judged.map((i) => [columns.symbol[i], format("percent", x[i]), format("percent", y[i])]),
  };
}

function gainsFigure(table) {
  const { columns } = table;
  const places = extremesOf(columns.expected);
  if (!places.length) return null;
  const c = palette();
  const entries = places.map((i) => (i === null ? GAP : {
    name: columns.symbol[i], value: columns.expected[i], low: columns.low[i], high: columns.high[i], dot: columns.gain[i], colour: serverColour(c, columns.server[i]),
    tip: [[t("routing.expected"), format("percent", columns.expected[i])], [t("routing.gain"), `${format("percent", columns.gain[i])} ${interval("percent", columns.low[i], columns.high[i])}`],
      [t("routing.probability"), format("percent", columns.probability[i])]],
  }));
  return {
    ...barsFigure(entries, { axis: t("routing.expected_axis"), legend: ["dedicated", "universal"].map((server) => ({ colour: serverColour(c, server), label: t(`server.${server}`) })) }),
    title: t(places.length < table.length ? "gains.title" : "gains.all"),
  };
}

function routeReasons({ columns }) {
  const c = palette();
  const found = tally(columns.why.map((why, i) => `${columns.server[i]} ${why}`));
  return reasonsFigure(found.map(([key, value]) => {
    const [server, why] = key.split(" ");
    return { name: t(`why.${why}`), value, colour: serverColour(c, server) };
  }));
}

function mountRouting() {
  const table = unpackTable(REPORT.routing.symbols);
  const { columns } = table;
  const read = (name) => (i) => columns[name][i];
  mountList("routing-facts", () => routingFacts(table));
  new Chart("routing", { tabs: () => [t("routing.tab"), t("routing.drawn_tab")], build: (choice) => routingFigure(table, choice) });
  new Chart("reasons", { build: () => routeReasons(table) });
  new Chart("gains", { build: () => gainsFigure(table) });
  const none = (i) => t(`why.${columns.why[i]}`);
  new Table(byId("routing-table"), {
    name: "routes", length: table.length, pageSize: 25, sort: { key: "expected", direction: -1 },
    caption: () => t("routing.caption", { n: grouped.format(table.length) }),
    search: (i) => [columns.symbol[i], t(`server.${columns.server[i]}`), whyText(table, i)].join(" "),
    foot: title("routing.foot"),
    columns: [
      { key: "symbol", title: title("table.symbol"), format: "text", value: read("symbol") },
      { key: "server", title: title("routing.server"), format: "text", value: (i) => t(`server.${columns.server[i]}`),
        node: (i) => h("span", { class: `pill ${columns.server[i]}` }, t(`server.${columns.server[i]}`)) },
      { key: "expected", title: title("routing.expected"), help: title("routing.expected_help"), format: "percent", value: read("expected"), note: (i) => (isBlank(columns.expected[i]) ? none(i) : "") },
      { key: "probability", title: title("routing.probability"), format: "percent", value: read("probability"), note: (i) => (isBlank(columns.probability[i]) ? none(i) : "") },
      { key: "gain", title: title("routing.gain"), help: title("routing.gain_help"), format: "percent", value: read("gain"), low: read("low"), high: read("high"), note: (i) => (isBlank(columns.gain[i]) ? none(i) : "") },
      { key: "rows", title: title("routing.rows"), format: "integer", value: read("rows") },
      { key: "why", title: title("routing.why"), format: "text", value: (i) => whyText(table, i), isLong: true },
    ],
  });
}
