// Data, words, the reader's choices (language, colours, theme), numbers as text, and DOM building.
// Text from the run reaches the page through textContent and canvas only, never as HTML.

const readJson = (id) => JSON.parse(document.getElementById(id).textContent);
const REPORT = readJson("report-data");
const WORDS = readJson("report-words");
const root = document.documentElement;

// ---- the reader's choices: kept in the location hash, "#section?lang=zh&up=red&theme=dark" -------------

const CHOICES = { lang: ["en", "zh"], up: ["red", "green"], theme: ["light", "dark"] };
const chosen = { lang: null, up: null, theme: null };
const darkMedia = window.matchMedia("(prefers-color-scheme: dark)");
let isPrinting = false;

const language = () => chosen.lang || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
// Rising prices are red in China, green in most other places.
const upColour = () => chosen.up || (language() === "zh" ? "red" : "green");
// Paper is white whatever the screen is.
const theme = () => (isPrinting ? "light" : chosen.theme || (darkMedia.matches ? "dark" : "light"));

function readHash() {
  const [section, query] = location.hash.slice(1).split("?");
  const values = new URLSearchParams(query || "");
  for (const [name, allowed] of Object.entries(CHOICES)) {
    chosen[name] = allowed.includes(values.get(name)) ? values.get(name) : null;
  }
  return section;
}

function writeHash(section) {
  const values = new URLSearchParams(Object.entries(chosen).filter(([, value]) => value));
  const query = values.toString();
  history.replaceState(null, "", `#${section}${query ? `?${query}` : ""}`);
}

// ---- words ---------------------------------------------------------------------------------------------

// A text that reads the same in both languages is written once.
const pick = (text) => (typeof text === "string" ? text : text ? text[language()] : "");

function t(key, values = {}) {
  const pair = WORDS[key];
  if (!pair) throw new Error(`no words for ${key}`);
  const said = pair[language() === "zh" ? 1 : 0];
  const text = String(values.n) === "1" ? said.replace(/(\{n\} \w+)s\b/, "$1") : said;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
}

// A name from a small vocabulary (segment, policy, market); names outside it are shown as they are.
const term = (family, name) => (WORDS[`${family}.${name}`] ? t(`${family}.${name}`) : name);

// ---- numbers -------------------------------------------------------------------------------------------

const MISSING = "–";
const minus = (text) => text.replace("-", "−");
const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

function adaptive(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1000) return grouped.format(value);
  if (size >= 0.001) return String(Number(value.toPrecision(4)));
  return value.toExponential(2).replace(/\.?0+e/, "e");
}

function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return t("unit.seconds", { s: seconds.toFixed(1) });
  const whole = Math.round(seconds);
  return t("unit.minutes", { m: Math.floor(whole / 60), s: whole % 60 });
}

function bytes(count) {
  const units = ["B", "kB", "MB", "GB"];
  let power = 0;
  while (count >= 1000 && power < units.length - 1) {
    count /= 1000;
    power += 1;
  }
  return `${power ? count.toPrecision(3) : count} ${units[power]}`;
}

// A rounded zero carries no sign.
const fixed = (value, digits) => value.toFixed(digits).replace(/^-(0(\.0+)?)$/, "$1");

// Decimals follow the largest number of a column, so that its numbers line up.
function digitsFor(kind, values) {
  const largest = values.reduce((most, value) => (isNumber(value) ? Math.max(most, Math.abs(value)) : most), 0);
  if (kind === "percent") return largest < 0.1 ? 2 : 1;
  if (kind === "basis_points") return largest < 0.001 ? 2 : 1;
  return largest ? Math.min(8, Math.max(0, 3 - Math.floor(Math.log10(largest)))) : 0;
}

const FORMATS = {
  integer: (value) => grouped.format(value),
  number: (value, digits) => (Math.abs(value) >= 1000 ? grouped.format(value) : fixed(value, digits)),
  score: (value) => fixed(value, 4),
  percent: (value, digits) => `${fixed(value * 100, digits)}%`,
  basis_points: (value, digits) => fixed(value * 1e4, digits),
  seconds: duration,
  bytes,
  text: String,
};

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

// Basis points leave the unit to the heading unless `unit` is asked for.
function format(kind, value, { unit = false, sign = false, digits = digitsFor(kind, [value]) } = {}) {
  if (kind === "text") return value === null || value === undefined || value === "" ? MISSING : String(value);
  if (!isNumber(value)) return MISSING;
  const text = minus(FORMATS[kind](value, digits));
  const tail = unit && kind === "basis_points" ? ` ${t("unit.bp")}` : "";
  return (sign && value > 0 ? "+" : "") + text + tail;
}

// An axis has the unit in its name, so its ticks are bare.
const TICK_SCALE = { percent: 100, basis_points: 1e4 };
const tick = (kind) => (value) => minus(adaptive(Number((value * (TICK_SCALE[kind] || 1)).toPrecision(6))));

const unitOf = (kind) => (kind === "basis_points" ? t("unit.bp") : kind === "percent" ? "%" : "");

function interval(kind, low, high, digits = digitsFor(kind, [low, high])) {
  return isNumber(low) && isNumber(high) ? `[${format(kind, low, { digits })}, ${format(kind, high, { digits })}]` : "";
}

// ---- packed columns (see `pack` in page.py) ------------------------------------------------------------

function unpack(column, length) {
  if ("each" in column) return column.each;
  if ("all" in column) return new Array(length).fill(column.all);
  return column.at.map((position) => column.of[position]);
}

function unpackTable(table) {
  const columns = {};
  for (const [name, column] of Object.entries(table.columns)) columns[name] = unpack(column, table.length);
  return { length: table.length, columns };
}

// ---- DOM -----------------------------------------------------------------------------------------------

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

const byId = (id) => document.getElementById(id);
const token = (name) => getComputedStyle(root).getPropertyValue(name).trim();

// What must be drawn again when language, colours or theme change.
const painters = [];
const onPaint = (paint) => painters.push(paint);

// Why a section is empty: the run's own sentence, else the page's.
function whyEmpty(section) {
  const given = REPORT.empty.find((item) => item.section === section);
  return given ? pick(given.reason) : t(`empty.${section}`);
}

// Sentences follow each other with a blank in English and without one in Chinese.
const sentences = (...texts) => texts.filter(Boolean).join(language() === "zh" ? "" : " ");

const emptyNote = (text) => h("p", { class: "empty", role: "note" }, text);

function download(name, text) {
  // The byte-order mark makes spreadsheets read Chinese as UTF-8.
  const url = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Browsers that refuse the clipboard to local files still copy a selection.
    const area = h("textarea", { class: "offscreen", value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
