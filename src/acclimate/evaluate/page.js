"use strict";
// What all figures share, then the legend, the table and the start. All text of the user's goes through textContent
// or plain(), because Plotly reads a little HTML in its labels. Colours come from the style sheet, so that a change
// of the colour scheme is a redraw.

const data = JSON.parse(document.getElementById("data").textContent);
const symbols = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down"];
const formats = { 4: ".4f", 5: ".5f", seconds: ",.3~r", rows: ",.0f", bytes: ".3~s" };
const hiddenArms = new Set();
const drawings = [];

// --- text, colour, grouping

const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const rank = (arm) => data.arms.indexOf(arm);
const colour = (arm) => css(`--arm-${rank(arm) % symbols.length}`);
const symbol = (arm) => symbols[rank(arm) % symbols.length];
const dash = (arm) => ["solid", "dash", "dot"][Math.floor(rank(arm) / symbols.length) % 3];
const inOrder = (arms) => [...arms].sort((a, b) => (b === "incremental") - (a === "incremental") || rank(a) - rank(b));
const isShown = (arm) => !hiddenArms.has(arm);
const unique = (values) => [...new Set(values)];
const known = (rows, keys) => keys.filter((key) => rows.some((row) => row[key] !== null));
const measure = (key) => data.measures[key] ?? { key, label: key.replaceAll("_", " "), unit: "", better: "", form: "4" };
const isPhone = () => window.innerWidth <= 640;
const wallTime = (time) => time.slice(0, 19); // without the offset: days of the schema's zone are what a reader counts in
const part = (name, selector) => document.querySelector(`#${name} ${selector}`);

// Cut in the middle: a feature's name begins and its level ends a text.
function short(text, length) {
  const tail = Math.floor(length / 2) - 1;
  return text.length > length ? `${text.slice(0, length - tail - 1)}…${text.slice(-tail)}` : text;
}

function signed(value, digits) {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? text : (value < 0 ? "−" : "+") + text;
}

function element(tag, text, parent) {
  const made = document.createElement(tag);
  made.textContent = text;
  parent.append(made);
  return made;
}

// --- sections and their choosers

function reveal(name, draw) {
  document.getElementById(name).hidden = false;
  drawings.push(draw);
}

// A labelled select over [value, text] pairs; where there is nothing to choose, it is not shown.
function chooser(name, label, options, draw) {
  const box = element("label", `${label} `, part(name, ".controls"));
  const select = element("select", "", box);
  for (const [value, text] of options) element("option", text, select).value = value;
  select.addEventListener("change", draw);
  box.hidden = options.length < 2;
  return select;
}

const measureChooser = (name, keys, draw) => chooser(name, "Show", keys.map((key) => [key, measure(key).label]), draw);
const scaleChooser = (name, draw) => chooser(name, "Scale", [["near", "near the best"], ["all", "all arms"]], draw);

// The arms that share a scale: one far behind would press the others into one line. `levels` holds [arm, value] pairs.
function onScale(levels, best, scale) {
  const distances = new Map(levels.map(([arm, value]) => [arm, Math.abs(value - best)]));
  const sorted = [...distances.values()].sort((a, b) => a - b);
  const limit = sorted.length < 4 ? Infinity : 2.5 * sorted[Math.floor(sorted.length / 2)];
  const near = [...distances.keys()].filter((arm) => distances.get(arm) <= limit);
  scale.parentElement.hidden = near.length === distances.size;
  return new Set(scale.value === "near" ? near : distances.keys());
}

function bestOf(levels, better) {
  const values = levels.map(([, value]) => value);
  return better === "lower" ? Math.min(...values) : Math.max(...values);
}

function caption(name, found, { minus = "", visible = null, arms = [] } = {}) {
  const missing = visible ? arms.filter((arm) => !visible.has(arm)) : [];
  part(name, ".caption").textContent = [
    `${found.label}${found.unit && `, ${found.unit}`}${minus && `, minus ${minus}`}`,
    ...(found.better ? [`${found.better} is better`] : []),
    ...(missing.length ? [`off this scale: ${missing.map((arm) => short(arm, 24)).join(", ")}`] : []),
  ].join(" · ");
}

// --- plots

const axis = (extra) => ({
  fixedrange: true, zeroline: false, automargin: true, gridcolor: css("--line"), showline: false,
  zerolinecolor: css("--muted"), ticklen: 4, tickcolor: "transparent", tickangle: 0,
  spikecolor: css("--muted"), spikethickness: 1, spikedash: "solid", ...extra,
});

function padded(values, share) {
  if (!values.length) return [0, 1]; // every arm is hidden
  const low = Math.min(...values);
  const high = Math.max(...values);
  const room = (high - low || Math.abs(high) * 0.1 || 1) * share;
  return [low - room, high + room];
}

// As many decimals on all ticks as the finest step needs.
function ticks([low, high]) {
  const digits = Math.ceil(-Math.log10((high - low) / 10));
  return `.${Math.min(Math.max(digits, 0), 8)}f`;
}

const line = (arm, extra) => ({
  type: "scatter", mode: "lines+markers", name: plain(arm), zorder: data.arms.length - rank(arm),
  line: { color: colour(arm), width: 2, dash: dash(arm) },
  marker: { color: colour(arm), symbol: symbol(arm), size: 7 }, ...extra,
});

function plot(box, traces, layout) {
  const base = {
    width: box.clientWidth, height: isPhone() ? 320 : 400, margin: { l: 8, r: 16, t: 12, b: 8 },
    showlegend: false, dragmode: false, paper_bgcolor: "transparent", plot_bgcolor: "transparent",
    font: { family: css("--font"), size: 12, color: css("--muted") },
    hoverlabel: {
      bgcolor: css("--raised"), bordercolor: css("--line"), font: { color: css("--text"), family: css("--font") },
      namelength: -1, align: "left",
    },
  };
  Plotly.react(box, traces, { ...base, ...layout }, { displayModeBar: false, scrollZoom: false, doubleClick: false });
}

// --- legend and table

function legend() {
  const box = document.getElementById("legend");
  box.hidden = data.arms.length < 2;
  data.arms.forEach((arm, i) => {
    const button = element("button", "", box);
    const mark = element("span", data.marks[i % data.marks.length], button);
    mark.className = "mark";
    mark.style.color = `var(--arm-${i % symbols.length})`;
    button.append(arm);
    button.title = `Show or hide ${arm}`;
    button.ariaPressed = "true";
    button.addEventListener("click", () => {
      if (!hiddenArms.delete(arm)) hiddenArms.add(arm);
      button.ariaPressed = String(isShown(arm));
      drawAll();
    });
  });
}

function sortBy(head, column) {
  const [first, second] = head.dataset.first === "ascending" ? ["ascending", "descending"] : ["descending", "ascending"];
  const order = head.ariaSort === first ? second : first;
  document.querySelectorAll("#arms th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
  head.ariaSort = order;
  const sign = order === "ascending" ? 1 : -1;
  const body = part("arms", "tbody");
  const value = (row) => row.cells[column].dataset.value;
  // What an arm lacks comes last either way.
  const compare = (a, b) => (a === "" || b === "" ? (a === "") - (b === "") : sign * (a - b));
  body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b))));
}

// --- start

function drawAll() {
  for (const draw of drawings) draw();
}

function start(figures) {
  legend();
  document.querySelectorAll("#arms thead th").forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => sortBy(head, column));
  });
  for (const figure of figures) figure();
  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return; // a phone's address bar coming and going
    width = window.innerWidth;
    requestAnimationFrame(drawAll);
  });
}
