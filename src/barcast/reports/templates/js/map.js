// The map of symbols: one scatter, coloured by the fact that the reader chooses.

const GROUP_COLOURS = ["#3f73ad", "#d9822b", "#228a84", "#b1476a", "#8663b5", "#6b8e23", "#c5302a", "#1f9bcf", "#a0703c", "#c2a100"];
const { length: NUM_POINTS, columns: POINTS } = unpackTable(REPORT.points);

// Groups by size; the largest have a colour, the others share one, and so do symbols of which nothing is known.
function groupsOf(place) {
  if (place === null) return [{ label: t("map.plain"), colour: GROUP_COLOURS[0], rows: [...Array(NUM_POINTS).keys()] }];
  const groups = new Map();
  POINTS[`group ${place}`].forEach((value, row) => {
    if (!groups.has(value)) groups.set(value, []);
    groups.get(value).push(row);
  });
  const unknown = groups.get("") || [];
  groups.delete("");
  const sorted = [...groups].sort((a, b) => b[1].length - a[1].length);
  const named = sorted.slice(0, GROUP_COLOURS.length).map(([label, rows], i) => ({ label: `${label} (${rows.length})`, colour: GROUP_COLOURS[i], rows }));
  const rest = sorted.slice(GROUP_COLOURS.length);
  const pale = palette().naive;
  const otherRows = rest.flatMap(([, rows]) => rows);
  const others = { label: t("map.other", { n: otherRows.length }), colour: pale, rows: otherRows };
  const nobody = { label: t("map.unknown"), colour: palette().line, rows: unknown };
  return [...named, others, nobody].filter((group) => group.rows.length);
}

function mapTip(row) {
  const facts = REPORT.groups.map((name, place) => [name, POINTS[`group ${place}`][row] || MISSING]);
  const name = POINTS.names[row];
  return tip(POINTS.symbols[row], name ? [[t("map.name"), name], ...facts] : facts);
}

function mapFigure(choice) {
  if (!NUM_POINTS) return null;
  const c = palette();
  const place = REPORT.groups.length ? choice : null;
  const groups = groupsOf(place);
  const [x, y] = REPORT.shares.map((share) => format("percent", share));
  const axis = (name, more) => valueAxis(c, name, tick("number"), { scale: true, ...more });
  // what has a colour of its own is drawn last, on top
  const series = [...groups].reverse().map(({ label, colour, rows }) => ({
    name: label, type: "scatter", symbolSize: NUM_POINTS > 1500 ? 5 : 8, large: false,
    itemStyle: { color: colour, opacity: 0.75 },
    data: rows.map((row) => [POINTS.x[row], POINTS.y[row], row]),
  }));
  return {
    title: place === null ? t("map.plain") : t("map.title", { column: REPORT.groups[place] }),
    how: t("map.how", { x, y, width: REPORT.width }),
    height: isNarrow() ? 420 : 640,
    legend: groups.length > 1 ? groups : [],
    option: {
      grid: plotArea({ top: 30, bottom: 26 }),
      xAxis: axis(t("map.first"), LEVEL_NAME),
      yAxis: axis(t("map.second"), uprightName(c)),
      dataZoom: [{ type: "inside", xAxisIndex: 0, filterMode: "none" }, { type: "inside", yAxisIndex: 0, filterMode: "none" }],
      tooltip: { ...baseOption().tooltip, trigger: "item", formatter: (point) => mapTip(point.value[2]) },
      series,
    },
    columns: [t("map.symbol"), t("map.name"), ...REPORT.groups, t("map.first"), t("map.second")],
    rows: POINTS.symbols.map((symbol, row) => [
      symbol, POINTS.names[row] || MISSING, ...REPORT.groups.map((_, i) => POINTS[`group ${i}`][row] || MISSING),
      format("number", POINTS.x[row]), format("number", POINTS.y[row]),
    ]),
  };
}

function start() {
  readHash();
  applyChoices();
  new Chart("map", { tabs: () => REPORT.groups, build: mapFigure });
  mountSwitches();
  darkMedia.addEventListener("change", repaint);
  window.addEventListener("hashchange", () => {
    readHash();
    repaint();
  });
  root.dataset.ready = "true";
}

start();
