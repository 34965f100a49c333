// What each chart draws.

const bp = (value) => value * 1e4;
// A zero is neither a rise nor a fall.
const signColour = (c, value) => (value > 0 ? c.up : value < 0 ? c.down : c.naive);
const signLegend = (c) => [{ colour: c.up, label: t("legend.rise") }, { colour: c.down, label: t("legend.fall") }];
const segmentColour = (name) => token(`--segment-${name}`) || token("--naive");

// ---- comparison: bars from the value of no skill; dots where no such value exists ----------------------

const DRAWABLE = ["score", "number", "percent", "basis_points"];
const drawableColumns = (comparison) => comparison.columns.filter((column) => DRAWABLE.includes(column.format));

const rowKind = (row) => (row.is_this_run ? "this_run" : row.group);
const rowColours = (c) => ({ this_run: c.accent, model: c["accent-pale"], reference: c.reference, naive: c.naive });

function kindLegend(c, rows) {
  const present = new Set(rows.map(rowKind));
  const kinds = Object.entries(rowColours(c)).filter(([kind]) => present.has(kind));
  return kinds.map(([kind, colour]) => ({ colour, label: t(`table.${kind}`) }));
}

function comparisonFigure(comparison, choice) {
  const column = comparison && drawableColumns(comparison)[choice];
  if (!column) return null;
  const position = comparison.columns.indexOf(column);
  const entries = comparison.rows.map((row) => ({ row, cell: row.cells[position] }));
  if (!entries.some(({ cell }) => isNumber(cell.value))) return null;
  const c = palette();
  const base = isNumber(column.neutral) ? column.neutral : 0;
  const isBar = isNumber(column.neutral);
  const digits = digitsFor(column.format, entries.map(({ cell }) => cell.value));
  const print = (value) => tick(column.format)(value + base);
  const written = ({ cell }) => format(column.format, cell.value, { digits });
  const shift = (value) => (isNumber(value) ? value - base : null);
  const items = entries.map(({ row, cell }) => ({ value: isNumber(cell.value) ? cell.value - base : "-", itemStyle: { color: rowColours(c)[rowKind(row)] } }));
  const ranges = entries.map(({ cell }, i) => [i, shift(cell.low), shift(cell.high)]);
  const names = entries.map(({ row }) => pick(row.name));
  const title = [pick(column.title), unitOf(column.format) && `(${unitOf(column.format)})`].join(" ");
  const label = { color: c.ink, fontSize: 12, width: isNarrow() ? 92 : 180, overflow: "truncate", interval: 0, hideOverlap: false };
  const value = { ...label, color: c["ink-2"], width: undefined, overflow: undefined };
  const rows = { inverse: true, axisLine: { show: false } };
  return {
    height: 58 + 26 * entries.length,
    legend: kindLegend(c, comparison.rows),
    option: {
      xAxis: valueAxis(c, title, print, { ...LEVEL_NAME, scale: !isBar, splitNumber: isNarrow() ? 3 : 6 }),
      yAxis: [
        categoryAxis(c, "", names, { ...rows, axisLabel: label }),
        categoryAxis(c, "", entries.map(written), { ...rows, position: "right", axisLabel: value }),
      ],
      tooltip: { ...baseOption().tooltip, formatter: ([point]) => {
        const { row, cell } = entries[point.dataIndex];
        return tip(pick(row.name), [[pick(column.title), format(column.format, cell.value, { unit: true, digits })],
          [t("chart.interval"), interval(column.format, cell.low, cell.high, digits) || MISSING]]);
      } },
      series: [
        isBar
          ? { type: "bar", data: items, barMaxWidth: 16 }
          : { type: "scatter", data: items.map((item, i) => ({ ...item, value: [item.value, i] })), symbolSize: 11, z: 5 },
        ...whiskers(c, ranges, { isLevel: true }),
      ],
    },
    columns: [t("table.row"), title, t("chart.low"), t("chart.high")],
    rows: entries.map(({ row, cell }) => [pick(row.name), ...[cell.value, cell.low, cell.high].map((v) => format(column.format, v, { digits }))]),
  };
}

// ---- a score month by month ----------------------------------------------------------------------------

// Contiguous months of one segment, for the tinted bands behind the bars.
function segmentBands(points) {
  const bands = [];
  points.forEach((point, i) => {
    const last = bands[bands.length - 1];
    if (last && last.segment === point.segment) last.end = i;
    else if (point.segment) bands.push({ segment: point.segment, start: i, end: i });
  });
  return bands;
}

function monthlyFigure(scores) {
  if (!scores || !scores.points.some((point) => isNumber(point.mean))) return null;
  const c = palette();
  const { points, neutral } = scores;
  const print = (value) => tick(scores.format)(value + neutral);
  const isClear = (point) => isNumber(point.low) && isNumber(point.high) && (point.low > neutral || point.high < neutral);
  const bars = points.map((point) => ({
    value: isNumber(point.mean) ? point.mean - neutral : "-",
    itemStyle: { color: isClear(point) || !isNumber(point.low) ? c.accent : c["accent-pale"] },
  }));
  const bands = segmentBands(points);
  const area = bands.map((band) => [
    { xAxis: band.start, itemStyle: { color: segmentColour(band.segment), opacity: 0.14 } },
    { xAxis: band.end + 1 },
  ]);
  const shift = (value) => (isNumber(value) ? value - neutral : null);
  return {
    legend: [
      { colour: c.accent, label: t("monthly.clear") }, { colour: c["accent-pale"], label: t("monthly.unclear") },
      ...[...new Set(bands.map((band) => band.segment))].map((name) => ({ colour: segmentColour(name), label: term("segment", name) })),
    ],
    option: {
      // Bands end between two months, which only an axis of values can say.
      xAxis: [
        categoryAxis(c, t("axis.month"), points.map((point) => point.month), LEVEL_NAME),
        { type: "value", min: 0, max: points.length, show: false },
      ],
      yAxis: valueAxis(c, pick(scores.name), print, uprightName(c)),
      tooltip: { ...baseOption().tooltip, formatter: ([bar]) => {
        const point = points[bar.dataIndex];
        return tip(`${point.month} · ${term("segment", point.segment)}`, [
          [pick(scores.name), format(scores.format, point.mean)],
          [t("chart.interval"), interval(scores.format, point.low, point.high) || MISSING]]);
      } },
      series: [
        { type: "bar", data: bars, barMaxWidth: 26 },
        { type: "line", xAxisIndex: 1, data: [], silent: true, markArea: { silent: true, data: area } },
        ...whiskers(c, points.map((point, i) => [i, shift(point.low), shift(point.high)])),
      ],
    },
    columns: [t("axis.month"), t("segments.name"), pick(scores.name), t("chart.low"), t("chart.high")],
    rows: points.map((p) => [p.month, term("segment", p.segment), ...[p.mean, p.low, p.high].map((v) => format(scores.format, v))]),
  };
}

// ---- realised return by bucket of the score ------------------------------------------------------------

function decileFigure(deciles) {
  if (!deciles || !deciles.points.some((point) => isNumber(point.mean))) return null;
  const c = palette();
  const { points } = deciles;
  const scaled = (value) => (isNumber(value) ? bp(value) : null);
  const bars = points.map((point) => ({
    value: isNumber(point.mean) ? bp(point.mean) : "-",
    itemStyle: { color: signColour(c, point.mean) },
  }));
  return {
    how: t(REPORT.small_universe ? "deciles.how_small" : "deciles.how"),
    legend: signLegend(c),
    option: {
      xAxis: categoryAxis(c, t("deciles.axis", { n: points.length }), points.map((point) => String(point.bucket)), LEVEL_NAME),
      yAxis: valueAxis(c, t("axis.realised_bp"), tick("number"), uprightName(c)),
      tooltip: { ...baseOption().tooltip, formatter: ([bar]) => {
        const point = points[bar.dataIndex];
        return tip(`${t("axis.bucket")} ${point.bucket}`, [
          [t("axis.realised"), format("basis_points", point.mean, { unit: true, sign: true })],
          [t("chart.interval"), interval("basis_points", point.low, point.high) || MISSING],
          [t("chart.rows"), grouped.format(point.num_rows)]]);
      } },
      series: [{ type: "bar", data: bars, barMaxWidth: 46 }, ...whiskers(c, points.map((p, i) => [i, scaled(p.low), scaled(p.high)]))],
    },
    columns: [t("axis.bucket"), t("axis.realised_bp"), t("chart.low"), t("chart.high"), t("chart.rows")],
    rows: points.map((p) => [String(p.bucket), ...[p.mean, p.low, p.high].map((v) => format("basis_points", v)), grouped.format(p.num_rows)]),
  };
}

// ---- calibration ---------------------------------------------------------------------------------------

function calibrationFigure(calibration) {
  const points = calibration ? calibration.points.filter((point) => isNumber(point.realised)) : [];
  if (!points.length) return null;
  const c = palette();
  const isReturn = calibration.kind === "return";
  const kind = isReturn ? "basis_points" : "percent";
  const scale = isReturn ? 1e4 : 100;
  const scaled = (value) => (isNumber(value) ? value * scale : null);
  const print = tick("number");
  const xs = points.map((point) => point.forecast * scale);
  const margin = (Math.max(...xs) - Math.min(...xs)) * 0.06 || 1;
  const ends = [Math.min(...xs) - margin, Math.max(...xs) + margin];
  const names = isReturn ? ["axis.forecast_bp", "axis.realised_bp"] : ["axis.forecast_p", "axis.realised_p"];
  const rows = points.map((p) => [p.forecast, p.realised, p.low, p.high].map((v) => format(kind, v)).concat(grouped.format(p.num_rows)));
  const dots = points.map((point) => [scaled(point.forecast), scaled(point.realised)]);
  return {
    how: t(isReturn ? "calibration.how" : "calibration.how_p"),
    legend: [{ colour: c.accent, label: t("calibration.rows") }, { colour: c["ink-2"], label: t("calibration.perfect") }],
    option: {
      xAxis: valueAxis(c, t(names[0]), print, { ...LEVEL_NAME, min: ends[0], max: ends[1], scale: true, splitNumber: isNarrow() ? 3 : 6,
        axisLabel: { ...axisLook(c).axisLabel, formatter: print, showMinLabel: false, showMaxLabel: false } }),
      yAxis: valueAxis(c, t(names[1]), print, { ...uprightName(c), scale: true }),
      tooltip: { ...baseOption().tooltip, trigger: "item", formatter: ({ dataIndex }) => {
        const p = points[dataIndex];
        return tip(t("calibration.bin", { n: dataIndex + 1 }), [
          [t("axis.forecast"), format(kind, p.forecast, { unit: true })], [t("axis.realised"), format(kind, p.realised, { unit: true })],
          [t("chart.interval"), interval(kind, p.low, p.high) || MISSING], [t("chart.rows"), grouped.format(p.num_rows)]]);
      } },
      series: [
        { type: "line", data: ends.map((end) => [end, end]), showSymbol: false, silent: true,
          lineStyle: { color: c["ink-2"], type: [6, 4], width: 1.25 }, tooltip: { show: false } },
        { type: "scatter", data: dots, symbolSize: 11, itemStyle: { color: c.accent }, z: 5 },
        ...whiskers(c, points.map((point) => [scaled(point.forecast), scaled(point.low), scaled(point.high)])),
      ],
    },
    columns: [t(names[0]), t(names[1]), t("chart.low"), t("chart.high"), t("chart.rows")],
    rows,
  };
}

// ---- forecasts: one bar a symbol while they are few, a histogram when they are many --------------------

const FEW = 30;

// Forecasts of no size have an order only, which the scores show.
const isUnsized = ({ columns }) =>
  columns.y_hat.every((value) => !value) && columns.y_hat.some(isNumber) && columns.score.some(isNumber);

function forecastFigure(predictions) {
  const { symbol, y_hat: forecast, score } = predictions.columns;
  const c = palette();
  const isScore = isUnsized(predictions);
  const look = isScore
    ? { title: t("predictions.title_score"), how: () => t("predictions.how_score"), axis: t("forecast.score"), unit: "", legend: [], colour: () => c.accent, write: (value) => format("score", value) }
    : { title: t("predictions.title"), how: t, axis: t("axis.forecast_bp"), unit: t("unit.bp"), legend: signLegend(c), colour: (value) => signColour(c, value),
        write: (value) => format("basis_points", value / 1e4, { sign: true }) };
  const known = (isScore ? score : forecast.map((value) => (isNumber(value) ? bp(value) : value)))
    .map((value, i) => [symbol[i], value]).filter(([, value]) => isNumber(value));
  if (!known.length) return null;
  return known.length <= FEW ? forecastBars(known, look) : forecastHistogram(known.map(([, value]) => value), look);
}

function forecastBars(known, look) {
  const c = palette();
  const sorted = [...known].sort((a, b) => b[1] - a[1]);
  const label = { color: c.ink, fontSize: 12, width: isNarrow() ? 92 : 160, overflow: "truncate", interval: 0, hideOverlap: false };
  return {
    title: look.title,
    how: look.how("predictions.how_bars"),
    height: 58 + 26 * sorted.length,
    legend: look.legend,
    option: {
      xAxis: valueAxis(c, look.axis, tick("number"), LEVEL_NAME),
      yAxis: categoryAxis(c, "", sorted.map(([name]) => name), { inverse: true, axisLine: { show: false }, axisLabel: label }),
      tooltip: { ...baseOption().tooltip, formatter: ([bar]) =>
        tip(sorted[bar.dataIndex][0], [[look.axis, look.write(sorted[bar.dataIndex][1])]]) },
      series: [{ type: "bar", barMaxWidth: 16, data: sorted.map(([, value]) => ({ value, itemStyle: { color: look.colour(value) } })) }],
    },
    columns: [t("table.symbol"), look.axis],
    rows: sorted.map(([name, value]) => [name, look.write(value)]),
  };
}

// Bins of a round width with a border at zero, so that no bin mixes rises and falls.
function histogram(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const quantile = (share) => sorted[Math.floor(share * (sorted.length - 1))];
  const span = quantile(0.995) - quantile(0.005) || Math.abs(sorted[0]) || 1;
  const rough = span / Math.min(48, Math.max(12, Math.sqrt(sorted.length)));
  const power = 10 ** Math.floor(Math.log10(rough));
  const width = power * ([1, 2, 5, 10].find((step) => step * power >= rough) || 10);
  const first = Math.floor(quantile(0.005) / width);
  const last = Math.floor(quantile(0.995) / width);
  const counts = new Array(last - first + 1).fill(0);
  // The outermost bins also hold what lies beyond them.
  for (const value of sorted) counts[Math.min(last, Math.max(first, Math.floor(value / width))) - first] += 1;
  return counts.map((count, i) => ({ from: (first + i) * width, to: (first + i + 1) * width, count }));
}

function forecastHistogram(values, look) {
  const c = palette();
  const bins = histogram(values);
  const print = tick("number");
  const range = (bin, i) =>
    i === 0 ? `< ${print(bin.to)}` : i === bins.length - 1 ? `≥ ${print(bin.from)}` : `${print(bin.from)} … ${print(bin.to)}`;
  return {
    title: look.title,
    how: look.how("predictions.how"),
    legend: look.legend,
    option: {
      // Bars sit between the borders of their bins, so the visible axis is one of values.
      xAxis: [
        { type: "category", data: bins.map(range), show: false },
        valueAxis(c, look.axis, print, { ...LEVEL_NAME, position: "bottom", min: bins[0].from, max: bins[bins.length - 1].to,
          splitLine: { show: false }, axisLabel: { ...axisLook(c).axisLabel, formatter: print, showMinLabel: false, showMaxLabel: false } }),
      ],
      yAxis: valueAxis(c, t("axis.symbols"), (value) => grouped.format(value), uprightName(c)),
      tooltip: { ...baseOption().tooltip, formatter: ([bar]) =>
        tip(`${range(bins[bar.dataIndex], bar.dataIndex)} ${look.unit}`, [[t("axis.symbols"), grouped.format(bins[bar.dataIndex].count)]]) },
      series: [{ type: "bar", barCategoryGap: "8%", data: bins.map((bin) => ({ value: bin.count, itemStyle: { color: look.colour(bin.from + bin.to) } })) }],
    },
    columns: [look.axis, t("axis.symbols")],
    rows: bins.map((bin, i) => [range(bin, i), grouped.format(bin.count)]),
  };
}

// ---- training: loss above, the early-stopping score below, the learning rate last ----------------------

function lossPanels(curve, c) {
  const line = (read, colour, more = {}) => ({
    data: curve.points.filter((p) => isNumber(read(p))).map((p) => [p.step, read(p)]), colour, ...more,
  });
  const panels = [
    { name: t("axis.loss"), share: 3, lines: [
      line((p) => p.train_loss, c.accent, { label: t("loss.train") }),
      line((p) => p.stop_loss, c.reference, { label: t("loss.stop") })] },
    { name: t("axis.stop_score", { name: pick(curve.score_name) }), share: 3, lines: [line((p) => p.stop_score, segmentColour("stop"), { label: pick(curve.score_name), dots: true })] },
    { name: t("axis.learning_rate"), share: 1.6, lines: [line((p) => p.learning_rate, c["ink-2"], { label: t("axis.learning_rate") })] },
  ];
  return panels
    .map((panel) => ({ ...panel, lines: panel.lines.filter((item) => item.data.length) }))
    .filter((panel) => panel.lines.length);
}

// A curve whose steps are epochs says so.
function lossFigure(curve, { axis = "axis.step", kept = "loss.best" } = {}) {
  if (!curve) return null;
  const c = palette();
  const panels = lossPanels(curve, c);
  if (!panels.length) return null;
  const unit = 58;
  const gap = 46;
  let top = 30;
  const grids = panels.map((panel) => {
    const grid = { left: 62, right: 18, top, height: panel.share * unit, outerBoundsMode: "none" };
    top += panel.share * unit + gap;
    return grid;
  });
  const lastStep = Math.max(...curve.points.map((point) => point.step));
  const best = isNumber(curve.best_step) ? { silent: true, symbol: "none", lineStyle: { color: c["ink-2"], type: [4, 4] }, data: [{ xAxis: curve.best_step }],
    label: { formatter: t(kept, { step: grouped.format(curve.best_step) }), color: c["ink-2"], position: curve.best_step > lastStep / 2 ? "insideEndTop" : "insideEndBottom", rotate: 0 } } : undefined;
  const series = panels.flatMap((panel, g) => panel.lines.map((item, l) => ({
    type: "line", name: item.label, data: item.data, xAxisIndex: g, yAxisIndex: g, sampling: "lttb",
    showSymbol: item.data.length === 1 || (Boolean(item.dots) && item.data.length < 80), symbol: "circle", symbolSize: 5, lineStyle: { width: 2 }, color: item.colour,
    markLine: l === 0 && g === Math.min(1, panels.length - 1) ? best : undefined,
  })));
  const last = panels.length - 1;
  const print = tick("number");
  return {
    height: top - gap + 52,
    legend: panels[0].lines.map((item) => ({ colour: item.colour, label: item.label })),
    option: {
      grid: grids,
      axisPointer: { link: [{ xAxisIndex: "all" }] },
      xAxis: panels.map((_, g) => valueAxis(c, g === last ? t(axis) : "", (v) => grouped.format(v), {
        ...LEVEL_NAME, gridIndex: g, min: 0, max: lastStep || 1, minInterval: 1, splitLine: { show: false },
        axisLabel: { ...axisLook(c).axisLabel, show: g === last, formatter: (v) => grouped.format(v) } })),
      yAxis: panels.map((panel, g) => valueAxis(c, panel.name, print, { ...uprightName(c), gridIndex: g, scale: true, splitNumber: g === 2 ? 2 : 4 })),
      tooltip: { ...baseOption().tooltip, axisPointer: { type: "line", lineStyle: { color: c["ink-2"] } },
        formatter: (items) => tip(`${t(axis)} ${grouped.format(items[0].axisValue)}`, items.map((item) => [item.seriesName, print(item.value[1])])) },
      series,
    },
    columns: [t("axis.step"), t("axis.epoch"), t("loss.train"), t("loss.stop"), pick(curve.score_name), t("axis.learning_rate")],
    rows: curve.points.map((p) => [grouped.format(p.step), ...[p.epoch, p.train_loss, p.stop_loss, p.stop_score, p.learning_rate].map((v) => format("number", v))]),
  };
}
