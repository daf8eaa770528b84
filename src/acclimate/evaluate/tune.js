"use strict";
// The figures of a search: trials in their order, and by the value of each setting.

const kinds = { complete: ["--arm-1", "circle"], stopped: ["--muted", "circle-open"], best: ["--arm-2", "star"] };
const names = { complete: "complete", stopped: "stopped early", best: "among the best" };
const kindOf = (trial) => (data.best.includes(trial.number) ? "best" : trial.state);
const tried = data.trials.filter((trial) => trial.difference !== null && trial.number > 0);

// From the best to where three quarters of the trials are: one that went badly would press the others into one line.
function levels() {
  const sorted = [...tried.map((trial) => trial.difference), 0].sort((a, b) => a - b);
  const inside = sorted.slice(0, Math.max(Math.ceil(0.75 * sorted.length), Math.min(sorted.length, 3)));
  return padded([...inside, 0], 0.12);
}

function points(trials, x, range, extra) {
  return Object.keys(kinds).flatMap((kind) => {
    const chosen = trials.filter((trial) => kindOf(trial) === kind);
    const [hue, sign] = kinds[kind];
    return chosen.length ? [{
      type: "scatter", mode: "markers", name: names[kind], x: chosen.map(x), cliponaxis: false,
      y: chosen.map((trial) => Math.min(trial.difference, range[1])),
      text: chosen.map((trial) => `trial ${trial.number}, ${names[kind]}: ${signed(trial.difference, 5)}`),
      hovertemplate: "%{text}<extra></extra>",
      marker: {
        color: css(hue), size: kind === "best" ? 11 : 8,
        symbol: chosen.map((trial) => (trial.difference > range[1] ? "triangle-up" : sign)),
      }, ...extra,
    }] : [];
  });
}

const zero = () => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: 0, y1: 0, line: { color: css("--muted"), width: 1, dash: "dot" } });

function trialsFigure() {
  if (!tried.length) return;
  function draw() {
    const range = levels();
    const complete = tried.filter((trial) => trial.state === "complete");
    const lowest = complete.map((_, i) => Math.min(0, ...complete.slice(0, i + 1).map((trial) => trial.difference)));
    const best = {
      type: "scatter", mode: "lines", name: "best so far", x: complete.map((trial) => trial.number), y: lowest,
      line: { color: css("--arm-1"), width: 2, shape: "hv" }, hoverinfo: "skip",
    };
    part("trials", ".caption").textContent = `${data.judge[0]} minus that of the declared settings${data.judge[1] && `, ${data.judge[1]}`} · lower is better`;
    plot(part("trials", ".figure"), [best, ...points(tried, (trial) => trial.number, range)], {
      showlegend: true, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { color: css("--text") } },
      hovermode: "closest", shapes: [zero()],
      xaxis: axis({ showgrid: false, title: { text: "trial", standoff: 8 }, range: [0.2, data.trials.length - 0.2], tickformat: "d" }),
      yaxis: axis({ range, tickformat: ticks(range) }),
    });
  }
  reveal("trials", draw);
}

function valuesFigure() {
  const box = part("values", ".grid");
  const panels = data.candidates.flatMap((setting) => {
    const trials = tried.filter((trial) => trial.number in setting.at);
    if (!trials.length) return [];
    const figure = element("figure", "", box);
    element("figcaption", setting.short, figure).title = setting.name;
    return [{ setting, trials, plot: element("div", "", figure) }];
  });
  if (!panels.length) return;
  function draw() {
    const range = levels();
    for (const panel of panels) drawPanel(panel, range);
  }
  reveal("values", draw);
}

// Numbers on their axis; other values side by side, in the order in which they were given.
function drawPanel({ setting, trials, plot: box }, range) {
  const declared = {
    type: "scatter", mode: "markers", hoverinfo: "skip", x: [setting.declared], y: [0],
    marker: { color: css("--text"), symbol: "x-thin", size: 10, line: { color: css("--text"), width: 2 } },
  };
  const numbers = setting.log ? { type: "log", dtick: 1, tickformat: "~g" } : { nticks: 5, tickformat: "~g" };
  const choices = setting.labels && {
    range: [-0.5, setting.labels.length - 0.5], tickvals: setting.labels.map((_, i) => i),
    ticktext: setting.labels.map((text) => plain(short(text, 16))),
    tickangle: setting.labels.some((text) => text.length * setting.labels.length > 40) ? -30 : 0,
  };
  plot(box, [...(setting.declared === null ? [] : [declared]), ...points(trials, (trial) => setting.at[trial.number], range)], {
    height: 240, margin: { l: 8, r: 8, t: 8, b: 8 }, hovermode: "closest", shapes: [zero()],
    xaxis: axis({ showgrid: false, ...(choices ?? numbers) }), yaxis: axis({ range, nticks: 5, tickformat: ticks(range) }),
  });
}

start([trialsFigure, valuesFigure]);
