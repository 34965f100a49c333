// The frame around every chart: tabs, canvas, reason when empty, the numbers as a table; and shared drawing.

const isNarrow = () => window.innerWidth < 640;

function palette() {
  const names = ["ink", "ink-2", "line", "surface", "accent", "accent-pale", "reference", "naive", "up", "down"];
  return Object.fromEntries(names.map((name) => [name, token(`--${name}`)]));
}

// A few choices are buttons, many are a list.
function paintTabs(host, labels, choice, choose) {
  const hadFocus = host.contains(document.activeElement);
  host.hidden = labels.length < 2;
  if (host.hidden) return;
  if (labels.length > 5) {
    const options = labels.map((label, i) => h("option", { value: String(i), selected: i === choice }, label));
    const pickFrom = (event) => choose(Number(event.target.value));
    host.replaceChildren(h("select", { "aria-label": t("chart.choose"), onchange: pickFrom }, ...options));
  } else {
    host.replaceChildren(
      ...labels.map((label, i) =>
        h("button", { type: "button", "aria-pressed": String(i === choice), onclick: () => choose(i) }, label)),
    );
  }
  if (hadFocus) (host.children[choice] || host.firstChild).focus({ preventScroll: true });
}

function legendItem({ colour, label }) {
  const swatch = h("i", { "aria-hidden": "true" });
  swatch.style.background = colour;
  return h("span", {}, swatch, label);
}

class Chart {
  /* `tabs()` gives the labels of the choices; `build(choice)` gives null when there is nothing to draw, else
     {option, columns, rows, title, how, legend, height}: the ECharts option, the same numbers as text, and
     what is said around the canvas. */
  constructor(key, { tabs = () => [], build, choice = 0 }) {
    this.figure = byId(`chart-${key}`);
    Object.assign(this, { key, tabs, build, choice, engine: null });
    this.canvas = this.figure.querySelector(".canvas");
    this.tabBar = this.figure.querySelector(".tabs");
    this.numbers = this.figure.querySelector(".numbers");
    this.why = this.figure.querySelector(".why");
    this.numbers.addEventListener("toggle", () => this.paintNumbers());
    this.paint();
    onPaint(() => this.paint());
    new ResizeObserver(() => this.resize()).observe(this.canvas);
  }

  paint() {
    paintTabs(this.tabBar, this.tabs(), this.choice, (i) => {
      this.choice = i;
      this.paint();
    });
    this.drawn = this.build(this.choice);
    this.canvas.hidden = !this.drawn;
    this.figure.classList.toggle("bare", !this.drawn);
    this.numbers.hidden = !this.drawn;
    this.why.replaceChildren(...(this.drawn ? [] : [emptyNote(whyEmpty(this.key))]));
    this.figure.querySelector(".legend").replaceChildren(...(this.drawn?.legend || []).map(legendItem));
    if (!this.drawn) return;
    if (this.drawn.title) this.figure.querySelector("h3").textContent = this.drawn.title;
    if (this.drawn.how) this.figure.querySelector(".how").textContent = this.drawn.how;
    const title = this.figure.querySelector("h3").textContent;
    this.canvas.setAttribute("aria-label", `${title}. ${t("chart.alt")}`);
    if (this.drawn.height) this.canvas.style.height = `${this.drawn.height}px`;
    if (!this.engine) this.engine = echarts.init(this.canvas, null, { renderer: "canvas" });
    this.engine.resize();
    this.engine.setOption({ ...baseOption(), ...this.drawn.option }, { notMerge: true });
    this.width = this.canvas.clientWidth;
    this.paintNumbers();
  }

  paintNumbers() {
    if (!this.numbers.open || !this.drawn) return;
    const { columns, rows } = this.drawn;
    const caption = h("caption", { class: "offscreen" }, this.figure.querySelector("h3").textContent);
    const head = h("tr", {}, ...columns.map((name, c) => h("th", { scope: "col", class: c ? "num" : "text" }, name)));
    const line = (cells) =>
      h("tr", {}, ...cells.map((cell, c) => h(c ? "td" : "th", { class: c ? "num" : "text", scope: c ? null : "row" }, cell)));
    const table = h("table", { class: "data plain" }, caption, h("thead", {}, head), h("tbody", {}, ...rows.map(line)));
    this.numbers.querySelector(".scroller").replaceChildren(table);
  }

  resize() {
    const width = this.canvas.clientWidth;
    if (!this.engine || !this.drawn || !width || width === this.width) return;
    this.paint();
  }
}

// ---- shared drawing ------------------------------------------------------------------------------------

const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'PingFang SC', 'Hiragino Sans GB', 'Microsoft YaHei', 'Noto Sans CJK SC', sans-serif";

function baseOption() {
  const c = palette();
  return {
    animation: false,
    textStyle: { fontFamily: FONT, color: c["ink-2"] },
    grid: plotArea(),
    tooltip: {
      trigger: "axis",
      confine: true,
      backgroundColor: c.surface,
      borderColor: c.line,
      textStyle: { color: c.ink, fontSize: 13 },
      axisPointer: { type: "shadow", shadowStyle: { color: c.line, opacity: 0.35 } },
    },
  };
}

// ECharts keeps labels and axis names inside these margins.
function plotArea(more = {}) {
  return { left: 2, right: 14, top: 6, bottom: 2, outerBoundsMode: "same", outerBoundsContain: "all", ...more };
}

function axisLook(c) {
  return {
    axisLine: { lineStyle: { color: c.line } },
    axisTick: { show: false },
    axisLabel: { color: c["ink-2"], fontSize: 12, hideOverlap: true },
    splitLine: { lineStyle: { color: c.line, type: [3, 4] } },
    nameTextStyle: { color: c["ink-2"], fontSize: 12 },
  };
}

function valueAxis(c, name, print, more = {}) {
  const look = axisLook(c);
  return { type: "value", name, ...look, axisLabel: { ...look.axisLabel, formatter: print }, ...more };
}

function categoryAxis(c, name, data, more = {}) {
  const look = axisLook(c);
  return { type: "category", name, data, ...look, splitLine: { show: false }, ...more };
}

// The level axis is named below its middle; the upright one above its top, to be read without turning the head.
const LEVEL_NAME = { nameLocation: "middle", nameGap: 28 };
const uprightName = (c) => ({
  axisLine: { onZero: false, lineStyle: { color: c.line } },
  nameLocation: "end",
  nameGap: 14,
  nameTextStyle: { color: c["ink-2"], fontSize: 12, align: "left", padding: [0, 0, 0, -28] },
});

// Error bars from a line with gaps and end caps: `points` are [position, low, high].
function whiskers(c, points, { isLevel = false } = {}) {
  const known = points.filter(([, low, high]) => isNumber(low) && isNumber(high));
  const at = (position, value) => (isLevel ? [value, position] : [position, value]);
  const gap = ["-", "-"];
  const stems = known.flatMap(([position, low, high]) => [at(position, low), at(position, high), gap]);
  const caps = known.flatMap(([position, low, high]) => [at(position, low), at(position, high)]);
  const common = { silent: true, z: 4, tooltip: { show: false }, animation: false };
  const size = points.length > 40 ? 4 : 8;
  return [
    { ...common, type: "line", data: stems, showSymbol: false, lineStyle: { color: c.ink, width: 1.25, opacity: 0.75 } },
    { ...common, type: "scatter", data: caps, symbol: "rect", symbolSize: isLevel ? [1.25, size] : [size, 1.25],
      itemStyle: { color: c.ink, opacity: 0.75 } },
  ];
}

function tip(title, rows) {
  return h(
    "div", { class: "tip" },
    h("strong", {}, title),
    ...rows.map(([name, value]) => h("div", {}, h("span", {}, name), h("b", {}, value))),
  );
}
