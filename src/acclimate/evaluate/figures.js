"use strict";
// One function a section: it asks for the section's choosers and hands over how to draw it; without data, it does neither.

const weightsShown = 40;

function windowsFigure() {
  const rows = data.windows;
  const keys = known(rows, Object.keys(data.measures));
  if (!keys.length) return;
  const arms = unique(rows.map((r) => r.arm));
  const starts = unique(rows.map((r) => wallTime(r.start)));
  const metric = measureChooser("windows", keys, draw);
  const differences = arms.map((arm) => [arm, `difference from ${arm}`]);
  const base = chooser("windows", "as", [["", "its value"], ...(arms.length > 1 ? differences : [])], draw);
  const scale = scaleChooser("windows", draw);

  function draw() {
    const found = measure(metric.value);
    const reference = new Map(rows.filter((r) => r.arm === base.value).map((r) => [r.start, r[found.key]]));
    const minus = (value, other) => (value === null || other === null ? null : value - other);
    const level = (r) => (base.value ? minus(r[found.key], reference.get(r.start) ?? null) : r[found.key]);
    const series = arms.filter(isShown).map((arm) => {
      const own = rows.filter((r) => r.arm === arm);
      return { arm, x: own.map((r) => wallTime(r.start)), y: own.map(level) };
    });
    const isCost = !found.better;
    const isLog = isCost && !base.value && series.every(({ y }) => y.every((v) => v === null || v > 0));
    linesFigure("windows", series, {
      found, scale, isLog, minus: base.value, mode: starts.length > 40 ? "lines" : "lines+markers",
      xaxis: timeAxis(starts, isPhone() ? 4 : 10),
    });
  }
  reveal("windows", draw);
}

function cohortsFigure() {
  const rows = data.cohorts;
  const keys = known(rows, Object.keys(data.measures).filter((key) => measure(key).better));
  if (!keys.length) return;
  const names = unique(rows.map((r) => r.cohort));
  const count = (name) => Math.max(...rows.filter((r) => r.cohort === name).map((r) => r.rows));
  const metric = measureChooser("cohorts", keys, draw);
  const scale = scaleChooser("cohorts", draw);

  function draw() {
    const series = unique(rows.map((r) => r.arm)).filter(isShown).map((arm) => {
      const own = rows.filter((r) => r.arm === arm);
      return { arm, x: own.map((r) => names.indexOf(r.cohort)), y: own.map((r) => r[metric.value]) };
    });
    linesFigure("cohorts", series, {
      found: measure(metric.value), scale,
      xaxis: axis({
        showgrid: false, range: [-0.35, names.length - 0.65], tickvals: names.map((_, i) => i),
        ticktext: names.map((n) => `${plain(short(n, 12))}<br>${count(n).toLocaleString("en")} rows`),
      }),
    });
  }
  reveal("cohorts", draw);
}

// No more ticks than times, lest hours appear between days; a single time has no scale.
function timeAxis(times, most) {
  const single = { type: "category", tickvals: times, ticktext: times.map((t) => t.replace("T00:00:00", "").replace("T", " ")) };
  const several = { type: "date", nticks: Math.min(times.length, most) };
  return axis({ showgrid: false, ...(times.length > 1 ? several : single) });
}

// One line an arm, on a scale that the arms near the best can be told apart on.
function linesFigure(name, series, { found, scale, xaxis, minus = "", isLog = false, mode = "lines+markers" }) {
  const values = (y) => y.filter((v) => v !== null);
  const mean = (y) => values(y).reduce((a, b) => a + b, 0) / values(y).length;
  const levels = series.filter(({ y }) => values(y).length).map(({ arm, y }) => [arm, mean(y)]);
  if (!found.better) scale.parentElement.hidden = true;
  const near = found.better ? onScale(levels, bestOf(levels, found.better), scale) : new Set(levels.map(([arm]) => arm));
  const range = padded(series.filter(({ arm }) => near.has(arm)).flatMap(({ y }) => values(y)), 0.08);
  const isSeen = ({ y }) => values(y).some((v) => v >= range[0] && v <= range[1]);
  const seen = new Set(series.filter(isSeen).map(({ arm }) => arm));
  caption(name, found, { minus, visible: seen, arms: levels.map(([arm]) => arm) });
  const linear = { range, tickformat: found.better ? ticks(range) : formats[found.form], zeroline: Boolean(minus) };
  plot(part(name, ".figure"), series.map(({ arm, x, y }) => line(arm, { x, y, mode })), {
    xaxis,
    hovermode: "x unified",
    yaxis: axis({
      hoverformat: (minus && "+") + formats[found.form], ...(isLog ? { type: "log", dtick: 1, tickformat: "~g" } : linear),
    }),
  });
}

function costsFigure() {
  const seconds = data.columns.find((c) => c.key === "seconds")?.values;
  const columns = data.columns.filter((c) => c.better && Object.values(c.values).filter((v) => v !== null).length > 1);
  if (!seconds || !columns.length) return;
  const metric = chooser("costs", "Show", columns.map((c) => [c.key, c.label]), draw);
  const scale = scaleChooser("costs", draw);

  function draw() {
    const found = columns.find((c) => c.key === metric.value);
    const arms = data.arms.filter((arm) => isShown(arm) && seconds[arm] !== null && found.values[arm] !== null);
    const levels = arms.map((arm) => [arm, found.values[arm]]);
    const near = onScale(levels, bestOf(levels, found.better), scale);
    // Less than a tenth of a millisecond is no time at all, and zero has no logarithm.
    const points = [...near].map((arm) => ({ arm, x: Math.log10(Math.max(seconds[arm], 1e-4)), y: found.values[arm] }));
    const x = padded(points.map((p) => p.x), isPhone() ? 0.2 : 0.12);
    const y = padded(points.map((p) => p.y), 0.15);
    const box = part("costs", ".figure");
    const traces = labelled(points, { x, y, width: box.clientWidth - 72, height: isPhone() ? 250 : 330 }).map((p) => ({
      type: "scatter", mode: "markers+text", name: plain(p.arm), x: [10 ** p.x], y: [p.y], cliponaxis: false,
      text: plain(short(p.arm, 24)), textposition: p.side, textfont: { color: css("--text") },
      marker: { color: colour(p.arm), symbol: symbol(p.arm), size: 12 },
      hovertemplate: `%{y:${formats[found.form]}}, %{x:${formats.seconds}} s<extra></extra>`,
    }));
    caption("costs", found, { visible: near, arms });
    plot(box, traces, {
      hovermode: "closest",
      xaxis: axis({
        type: "log", range: x, dtick: isPhone() && x[1] - x[0] > 4 ? 2 : 1, tickformat: "~g",
        title: { text: "seconds per window", standoff: 8 },
      }),
      yaxis: axis({ range: y, tickformat: ticks(y) }),
    });
  }
  reveal("costs", draw);
}

const sides = {
  "middle right": [1, 0], "middle left": [-1, 0], "top center": [0, 1], "bottom center": [0, -1],
  "top right": [1, 1], "top left": [-1, 1], "bottom right": [1, -1], "bottom left": [-1, -1],
};

// Each point's label goes to the first side where it meets no other label or point and stays inside. Pixels from the
// lower left corner; a box is [left, right, bottom, top].
function labelled(points, scale) {
  const at = (value, [low, high], size) => ((value - low) / (high - low)) * size;
  const spots = points.map((p) => [at(p.x, scale.x, scale.width), at(p.y, scale.y, scale.height)]);
  const taken = spots.map(([x, y]) => [x - 8, x + 8, y - 8, y + 8]);
  const isFree = (box, own) =>
    taken.every((t, i) => i === own || t[1] < box[0] || t[0] > box[1] || t[3] < box[2] || t[2] > box[3]);
  return points.map((point, i) => {
    const width = 7 * Math.min(point.arm.length, 24);
    const boxAt = (side) => {
      const [right, up] = sides[side];
      const [x, y] = [spots[i][0] + right * (width / 2 + (up ? 4 : 10)), spots[i][1] + up * 17];
      return [x - width / 2, x + width / 2, y - 8, y + 8];
    };
    const fits = (box) => box[0] >= -30 && box[1] <= scale.width + 8 && isFree(box, i);
    const side = Object.keys(sides).find((name) => fits(boxAt(name))) ?? "middle right";
    taken.push(boxAt(side));
    return { ...point, side };
  });
}

function comparisonsFigure() {
  const rows = data.comparisons;
  if (!rows.length) return;
  const references = inOrder(unique([...rows.map((r) => r.against), ...rows.map((r) => r.arm)]));
  const metric = measureChooser("comparisons", unique(rows.map((r) => r.metric)), draw);
  const reference = chooser("comparisons", "against", references.map((arm) => [arm, arm]), draw);
  const scale = scaleChooser("comparisons", draw);
  scale.options[0].text = "near the reference";

  // A comparison made the other way round is the same one, turned.
  const turned = (r) => ({ arm: r.against, difference: -r.difference, low: -r.high, high: -r.low });
  function against(arm) {
    const own = rows.filter((r) => r.metric === metric.value);
    const found = [...own.filter((r) => r.arm === arm).map(turned), ...own.filter((r) => r.against === arm)];
    return [...new Map(found.map((r) => [r.arm, r])).values()].sort((a, b) => rank(a.arm) - rank(b.arm));
  }

  function draw() {
    const found = measure(metric.value);
    const shown = against(reference.value).filter((r) => isShown(r.arm));
    const near = onScale(shown.map((r) => [r.arm, r.difference]), 0, scale);
    const range = padded([0, ...shown.filter((r) => near.has(r.arm)).flatMap((r) => [r.low, r.high])], 0.06);
    caption("comparisons", found, { minus: reference.value, visible: near, arms: shown.map((r) => r.arm) });
    plot(part("comparisons", ".figure"), shown.map((r, i) => (near.has(r.arm) ? interval(r, i) : beyond(r, i, range))), {
      height: 64 + 52 * shown.length,
      annotations: shown.map((r, i) => heading(r, i, Number(found.form) || 4)),
      xaxis: axis({ range, zeroline: true, nticks: isPhone() ? 4 : 10, tickformat: ticks(range) }),
      yaxis: axis({ visible: false, range: [-shown.length + 0.45, 0.7] }),
    });
  }
  reveal("comparisons", draw);
}

const interval = (r, i) => ({
  type: "scatter", mode: "markers", x: [r.difference], y: [-i], hoverinfo: "skip",
  marker: { color: colour(r.arm), symbol: symbol(r.arm), size: 9 },
  error_x: {
    type: "data", symmetric: false, array: [r.high - r.difference], arrayminus: [r.difference - r.low],
    color: colour(r.arm), thickness: 3, width: 0,
  },
});

// Off the scale: an arrow at the edge that the interval lies beyond.
const beyond = (r, i, [low, high]) => ({
  type: "scatter", mode: "markers", x: [r.difference < 0 ? low : high], y: [-i], hoverinfo: "skip", cliponaxis: false,
  marker: { color: colour(r.arm), symbol: r.difference < 0 ? "arrow-left" : "arrow-right", size: 10 },
});

function heading(r, i, digits) {
  const figures = `${signed(r.difference, digits)}  [${signed(r.low, digits)}, ${signed(r.high, digits)}]`;
  const verdict = r.low > 0 || r.high < 0 ? "" : "  no clear difference";
  return {
    text: `<b>${plain(short(r.arm, isPhone() ? 14 : 32))}</b>   ${figures}${verdict}`,
    showarrow: false, xref: "paper", x: 0, xanchor: "left", yref: "y", y: -i + 0.36, yanchor: "middle", bgcolor: css("--page"),
    borderpad: 1, font: { color: css("--text"), size: isPhone() ? 11 : 12 },
  };
}

function calibrationFigure() {
  const arms = data.arms.filter((arm) => data.calibration.some((b) => b.arm === arm));
  if (!arms.length) return;
  const errors = data.columns.find((c) => c.key === "calibration_error")?.values ?? {};
  const ends = data.calibration.flatMap((b) => [b.predicted, b.observed]);
  const top = Math.min(data.kind === "binary" ? 1 : Infinity, 1.06 * Math.max(...ends)) || 1;
  const bottom = Math.min(0, 1.06 * Math.min(...ends));
  const panels = arms.map((arm) => ({ arm, box: panel(part("calibration", ".grid"), arm, errors[arm]?.toFixed(4)) }));

  function draw() {
    for (const { arm, box } of panels) {
      box.parentElement.hidden = !isShown(arm);
      if (isShown(arm)) calibrationCurve(box, arm, [bottom, top]);
    }
  }
  reveal("calibration", draw);
}

function calibrationCurve(box, arm, range) {
  const bins = data.calibration.filter((b) => b.arm === arm);
  // Of shares alone the rows of a bin say how far chance reaches.
  const spread = (b) => (data.kind === "binary" ? b.observed * (1 - b.observed) : 0);
  const chance = bins.map((b) => 1.96 * Math.sqrt(spread(b) / Math.max(b.rows, 1)));
  const diagonal = {
    type: "scatter", mode: "lines", x: range, y: range, hoverinfo: "skip",
    line: { color: css("--muted"), width: 1, dash: "dot" },
  };
  const curve = line(arm, {
    x: bins.map((b) => b.predicted), y: bins.map((b) => b.observed), customdata: bins.map((b) => b.rows),
    hovertemplate: "predicted %{x:.4f}<br>observed %{y:.4f}<br>%{customdata:,} rows<extra></extra>",
    error_y: { type: "data", array: chance, color: colour(arm), thickness: 1, width: 0 },
    marker: { color: colour(arm), symbol: symbol(arm), size: 5 },
  });
  const square = { range, nticks: 5, tickformat: "~g" };
  const layout = { height: box.clientWidth, margin: { l: 8, r: 8, t: 8, b: 8 }, hovermode: "closest" };
  plot(box, [diagonal, curve], { ...layout, xaxis: axis(square), yaxis: axis(square) });
}

function panel(grid, title, aside = "") {
  const figure = element("figure", "", grid);
  const head = element("figcaption", title, figure);
  head.title = title;
  if (aside) element("span", aside, head);
  return element("div", "", figure);
}

function weightsFigure() {
  const arms = inOrder(unique(data.weights.map((w) => w.arm)));
  if (!arms.length) return;
  const group = (w) => (w.name.includes("=") ? w.name.slice(0, w.name.indexOf("=")) : "");
  const strength = (w) => (w.mean === 0 ? 0 : Math.abs(w.mean) / w.standard_deviation);
  const groups = unique(data.weights.map(group)).filter(Boolean).sort();
  const arm = chooser("weights", "Arm", arms.map((a) => [a, a]), draw);
  const chosen = chooser("weights", "Feature", [["", "all"], ...groups.map((g) => [g, g])], draw);
  const search = element("input", "", element("label", "Find ", part("weights", ".controls")));
  search.type = "search";
  search.placeholder = "part of a name";
  search.addEventListener("input", draw);

  function draw() {
    const wanted = search.value.toLowerCase();
    const found = data.weights
      .filter((w) => w.arm === arm.value && (!chosen.value || group(w) === chosen.value))
      .filter((w) => w.name.toLowerCase().includes(wanted));
    const shown = found.sort((a, b) => strength(b) - strength(a)).slice(0, weightsShown);
    shown.sort((a, b) => a.mean - b.mean);
    const leftOut = data.weightsLeftOut[arm.value];
    const rest = leftOut ? ` · ${leftOut.toLocaleString("en")} less clear ones are in metrics.json alone` : "";
    part("weights", ".caption").textContent = `${shown.length} of ${found.length.toLocaleString("en")} weights${rest}`;
    plot(part("weights", ".figure"), shown.map((w, i) => weight(w, i, strength(w) > 1.96)), {
      height: 60 + 22 * shown.length,
      hovermode: "closest",
      xaxis: axis({ zeroline: true, nticks: isPhone() ? 4 : 10, tickformat: "~g" }),
      yaxis: axis({
        range: [-0.7, shown.length - 0.3], tickvals: shown.map((_, i) => i), showgrid: false,
        ticktext: shown.map((w) => plain(short(w.name, isPhone() ? 20 : 44))), tickfont: { size: isPhone() ? 11 : 12 },
      }),
    });
  }
  reveal("weights", draw);
}

function weight(w, i, isClear) {
  const tint = colour(w.arm) + (isClear ? "" : "66");
  return {
    type: "scatter", mode: "markers", x: [w.mean], y: [i], marker: { color: tint, size: 7 },
    customdata: [[plain(w.name), w.standard_deviation]],
    hovertemplate: "%{customdata[0]}<br>%{x:+.4~g}, sd %{customdata[1]:.2~g}<extra></extra>",
    error_x: { type: "data", array: [1.96 * w.standard_deviation], color: tint, thickness: 2, width: 0 },
  };
}

function driftFigure() {
  const arms = inOrder(unique(data.drift.map((d) => d.arm)));
  if (!arms.length) return;
  const arm = chooser("drift", "Arm", arms.map((a) => [a, a]), draw);
  const told = (d) => (d.statistic === "effect" ? `effect of ${d.effect}` : d.statistic);

  function draw() {
    const points = data.drift.filter((d) => d.arm === arm.value && d.z !== null);
    const range = padded([-data.surprised, data.surprised, ...points.map((d) => d.z)], 0.08);
    const grid = part("drift", ".grid");
    grid.querySelectorAll(".js-plotly-plot").forEach((box) => Plotly.purge(box));
    grid.replaceChildren();
    for (const name of unique(points.map(told))) surprise(panel(grid, name), points.filter((d) => told(d) === name), range);
  }
  reveal("drift", draw);
}

function surprise(box, points, range) {
  const x = points.map((d) => wallTime(d.start));
  const bound = (z) => ({
    type: "scatter", mode: "lines", x: [x[0], x.at(-1)], y: [z, z], hoverinfo: "skip",
    line: { color: css("--muted"), width: 1, dash: "dot" },
  });
  const curve = line(points[0].arm, {
    x, y: points.map((d) => d.z), zorder: 0, marker: { color: colour(points[0].arm), symbol: symbol(points[0].arm), size: 5 },
    customdata: points.map((d) => [d.observed, d.expected]),
    hovertemplate: "z %{y:+.1f}<br>observed %{customdata[0]:.4~g}<br>expected %{customdata[1]:.4~g}<extra></extra>",
  });
  timePanel(box, [curve, bound(-data.surprised), bound(data.surprised)], { range, zeroline: true, tickformat: "~g" });
}

function traceFigure() {
  const whose = (p) => JSON.stringify([p.arm, p.entity, p.id]);
  const stories = new Map(data.trace.map((p) => [whose(p), p]));
  if (!stories.size) return;
  const isOne = unique(data.trace.map((p) => p.id)).length === 1;
  const arms = inOrder(unique(data.trace.map((p) => p.arm)));
  const sorted = [...stories].sort(([, a], [, b]) => arms.indexOf(a.arm) - arms.indexOf(b.arm));
  const options = sorted.map(([key, p]) => [key, isOne ? p.arm : `${p.arm}, ${p.entity} ${p.id}`]);
  const story = chooser("trace", "Arm", options, draw);

  function draw() {
    const { arm, entity, id } = stories.get(story.value);
    const points = data.trace.filter((p) => whose(p) === story.value);
    part("trace", ".caption").textContent = `${entity} ${id}, as ${arm} knows it`;
    const grid = part("trace", ".grid");
    grid.querySelectorAll(".js-plotly-plot").forEach((box) => Plotly.purge(box));
    grid.replaceChildren();
    for (const name of unique(points.map((p) => p.name))) {
      coefficient(panel(grid, name), points.filter((p) => p.name === name));
    }
    eventsLearned(panel(grid, "events learned"), points);
  }
  reveal("trace", draw);
}

function coefficient(box, points) {
  const x = points.map((p) => wallTime(p.time));
  const bound = (sign) => ({
    type: "scatter", mode: "lines", x, y: points.map((p) => p.mean + sign * 1.96 * p.standard_deviation),
    line: { width: 0 }, hoverinfo: "skip",
  });
  const mean = {
    type: "scatter", mode: x.length > 1 ? "lines" : "markers", x, y: points.map((p) => p.mean),
    customdata: points.map((p) => p.standard_deviation), line: { color: colour(points[0].arm), width: 2 },
    hovertemplate: "%{y:+.3~g}, sd %{customdata:.2~g}<extra></extra>",
  };
  const band = { ...bound(1), fill: "tonexty", fillcolor: `${colour(points[0].arm)}2e` };
  timePanel(box, [bound(-1), band, mean], { zeroline: true, tickformat: "~g" });
}

function eventsLearned(box, points) {
  const rows = new Map(points.map((p) => [wallTime(p.time), p.rows]));
  const steps = {
    type: "scatter", mode: rows.size > 1 ? "lines" : "markers", x: [...rows.keys()], y: [...rows.values()],
    line: { shape: "hv", color: css("--muted"), width: 2 }, hovertemplate: "%{y:,} events<extra></extra>",
  };
  timePanel(box, [steps], { rangemode: "tozero", tickformat: ",d" });
}

function timePanel(box, traces, yaxis) {
  plot(box, traces, {
    height: 200, margin: { l: 8, r: 8, t: 8, b: 8 }, hovermode: "x",
    xaxis: timeAxis(traces[0].x, 4), yaxis: axis({ nticks: 5, ...yaxis }),
  });
}

start([
  windowsFigure, costsFigure, comparisonsFigure, calibrationFigure, cohortsFigure, driftFigure, weightsFigure,
  traceFigure,
]);
