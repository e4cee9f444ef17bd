"use strict";
// Charts in SVG, drawn for the width that there is, and drawn anew when it changes.

const LEFT = 46;
const RIGHT = 12;
const TOP = 10;
const BOTTOM = 22;

const drawn = new Map(); // container to the function that draws it

const widths = new ResizeObserver((changes) => {
  for (const { target } of changes) {
    const entry = drawn.get(target);
    if (entry && entry.width !== target.clientWidth && target.clientWidth > 0) redraw(target);
  }
});

function chart(container, draw) {
  drawn.set(container, { draw, width: 0 });
  widths.observe(container);
  if (container.clientWidth > 0) redraw(container);
}

function redraw(container) {
  const entry = drawn.get(container);
  entry.width = container.clientWidth;
  container.replaceChildren(...entry.draw(entry.width));
}

// Forget what is no longer on the page.
function sweep() {
  for (const container of drawn.keys())
    if (!container.isConnected) {
      widths.unobserve(container);
      drawn.delete(container);
    }
}

function scale(domain, range, log = false) {
  const of = log ? Math.log10 : (value) => value;
  const low = of(domain[0]);
  const span = of(domain[1]) - low || 1;
  const place = (value) => range[0] + ((of(value) - low) / span) * (range[1] - range[0]);
  place.back = (at) => {
    const value = low + ((at - range[0]) / (range[1] - range[0])) * span;
    return log ? 10 ** value : value;
  };
  return place;
}

// A line through the points that are there; where one is missing it is broken.
function path(xs, ys, x, y) {
  let text = "";
  let pen = "M";
  for (let i = 0; i < xs.length; i++) {
    const value = ys[i];
    if (value === null || value === undefined) {
      pen = "M";
      continue;
    }
    text += `${pen}${x(xs[i]).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = "L";
  }
  return text;
}

function area(xs, low, high, x, y) {
  const there = xs.map((_, i) => i).filter((i) => low[i] !== null && high[i] !== null);
  if (!there.length) return "";
  const up = there.map((i) => `${x(xs[i]).toFixed(1)} ${y(high[i]).toFixed(1)}`);
  const down = there.reverse().map((i) => `${x(xs[i]).toFixed(1)} ${y(low[i]).toFixed(1)}`);
  return `M${up.join("L")}L${down.join("L")}Z`;
}

function axes(x, y, xs, ys, width, height, log) {
  const parts = [];
  const marks = log ? decades(ys) : ticks(ys[0], ys[1], height > 180 ? 5 : 3);
  for (const value of marks) {
    const at = y(value).toFixed(1);
    parts.push(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: at, y2: at }));
    parts.push(svg("text", { class: "tick", x: LEFT - 8, y: at, "text-anchor": "end", dy: "0.32em" }, short(value)));
  }
  const places = ticks(xs[0], xs[1], Math.max(2, Math.min(6, Math.floor(width / 110))));
  for (const value of places)
    parts.push(svg("text", { class: "tick", x: Math.min(x(value), width - 2).toFixed(1), y: height - 5, "text-anchor": x(value) > width - 24 ? "end" : "middle" }, short(value)));
  return parts;
}

function decades([low, high]) {
  const found = [];
  for (let power = Math.ceil(Math.log10(low)); power <= Math.log10(high); power++) found.push(10 ** power);
  return found.length >= 2 ? found : [low, high].map((value) => Number(value.toPrecision(1))).filter((v) => v >= low && v <= high);
}

// Whether values spread over so many powers of ten that only their logarithms can be seen side by side.
function spread(lists) {
  const all = lists.flat().filter((value) => value !== null && value !== undefined);
  if (!all.length || all.some((value) => value <= 0)) return false;
  const sorted = all.sort((a, b) => a - b);
  return sorted[Math.floor(0.98 * (sorted.length - 1))] / sorted[Math.floor(0.02 * (sorted.length - 1))] > 60;
}

/* A chart of lines over steps. spec: {title, meaning, xs, series: [{name, values, kind}], band: {low, high}, dots,
   rules: [{value, label}], height, log: true | false, unit}. Pointing at one shows the same step in all. */
function lines(spec) {
  const shown = spec.series.map((one) => el("b", { class: "value" }));
  const legend = spec.series.map((one, i) =>
    el("span", { class: `key ${one.kind}` }, spec.series.length > 1 ? el("span", { text: one.name }) : null, shown[i]));
  const at = el("span", { class: "at" });
  const canvas = el("div", { class: "canvas" });
  const figure = el("figure", { class: "chart" },
    el("figcaption", {}, el("span", { class: "name", text: spec.title, title: spec.meaning || "" }), ...legend, at), canvas);
  const last = (list) => list.findLast((value) => value !== null && value !== undefined);
  const tell = (index) => {
    spec.series.forEach((one, i) => (shown[i].textContent = say(index === null ? last(one.values) : one.values[index])));
    at.textContent = index === null ? aside : `step ${say(spec.xs[index])}`;
  };
  spec.log = spec.log && spread(spec.series.map((one) => one.values));
  const far = (spec.rules || []).filter((rule) => !near(rule.value, extent(spec.series.map((one) => one.values))));
  const aside = [spec.log ? "log scale" : "", ...far.map((rule) => `${rule.label}, off the chart`)].filter(Boolean).join(" · ");
  tell(null);
  chart(canvas, (width) => [drawLines(spec, width, tell)]);
  return figure;
}

function drawLines(spec, width, tell) {
  const height = spec.height || 150;
  const domain = extent([...spec.series.map((one) => one.values), ...(spec.band ? [spec.band.low, spec.band.high] : [])]);
  const rules = (spec.rules || []).filter((rule) => near(rule.value, domain));
  for (const rule of rules) (domain[0] = Math.min(domain[0], rule.value)), (domain[1] = Math.max(domain[1], rule.value));
  const pad = spec.log ? 0 : (domain[1] - domain[0]) * (rules.length ? 0.1 : 0.06) || Math.abs(domain[1]) * 0.05 || 0.5;
  const ys = spec.log ? domain : [domain[0] >= 0 && domain[0] < pad * 4 ? 0 : domain[0] - pad, domain[1] + pad];
  const xs = [spec.from ?? 0, spec.to ?? Math.max(1, spec.xs[spec.xs.length - 1])];
  const x = scale(xs, [LEFT, width - RIGHT]);
  const y = scale(ys, [height - BOTTOM, TOP], spec.log);
  const parts = axes(x, y, xs, ys, width, height, spec.log);
  if (spec.band) parts.push(svg("path", { class: "band", d: area(spec.xs, spec.band.low, spec.band.high, x, y) }));
  if (spec.dots) for (let i = 0; i < spec.xs.length; i++)
    if (spec.dots[i] !== null) parts.push(svg("circle", { class: "dot", cx: x(spec.xs[i]).toFixed(1), cy: y(spec.dots[i]).toFixed(1), r: 1.6 }));
  for (const rule of rules) {
    const level = y(rule.value);
    parts.push(svg("line", { class: "rule", x1: LEFT, x2: width - RIGHT, y1: level.toFixed(1), y2: level.toFixed(1) }));
  }
  for (const one of spec.series) parts.push(svg("path", { class: `line ${one.kind}`, d: path(spec.xs, one.values, x, y) }));
  for (const rule of rules) // at the left, where curves begin, and not where they end
    parts.push(svg("text", { class: "rulename", x: LEFT + 4, y: (y(rule.value) - 5).toFixed(1) }, rule.label));
  const cross = svg("line", { class: "cross", y1: TOP, y2: height - BOTTOM, visibility: "hidden" });
  const beads = spec.series.map((one) => svg("circle", { class: `bead ${one.kind}`, r: 3.2, visibility: "hidden" }));
  const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": inWords(spec) }, parts, cross, beads);
  const point = (step) => {
    const index = step === null || step < xs[0] || step > xs[1] ? null : nearest(spec.xs, step);
    for (const mark of [cross, ...beads]) mark.setAttribute("visibility", index === null ? "hidden" : "visible");
    if (index !== null) {
      const place = x(spec.xs[index]).toFixed(1);
      cross.setAttribute("x1", place);
      cross.setAttribute("x2", place);
      spec.series.forEach((one, i) => {
        if (one.values[index] === null || one.values[index] === undefined) return beads[i].setAttribute("visibility", "hidden");
        beads[i].setAttribute("cx", place);
        beads[i].setAttribute("cy", y(one.values[index]).toFixed(1));
      });
    }
    tell(index);
  };
  root.addEventListener("pointermove", (event) => pointed(x.back(event.clientX - root.getBoundingClientRect().left)));
  root.addEventListener("pointerleave", () => pointed(null));
  root.point = point;
  return root;
}

// All charts of training show the same step.
function pointed(step) {
  for (const root of document.querySelectorAll("#curves svg")) if (root.point) root.point(step);
}

// Whether a line can be drawn at a value and the curves still be seen.
function near(value, [low, high]) {
  const room = Math.max(2 * (high - low), 1.5 * Math.max(Math.abs(low), Math.abs(high)), 1e-9);
  return value >= low - room && value <= high + room;
}

function nearest(xs, value) {
  let low = 0;
  let high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] < value) low = middle;
    else high = middle;
  }
  return value - xs[low] < xs[high] - value ? low : high;
}

function inWords(spec) {
  const told = spec.series.map((one) => {
    const [low, high] = extent([one.values]);
    return `${one.name}: from ${say(low)} to ${say(high)}, at the end ${say(one.values.findLast((v) => v !== null && v !== undefined))}`;
  });
  return `${spec.title}. ${told.join("; ")}`;
}

/* Bars of counts. spec: {title, meaning, labels | edges, counts, other, kind, format}. */
function bars(spec) {
  const canvas = el("div", { class: "canvas" });
  const fact = el("span", { class: "at", text: spec.fact || "" });
  chart(canvas, (width) => [drawBars(spec, width, fact)]);
  return el("figure", { class: "chart" },
    el("figcaption", {}, el("span", { class: "name", text: spec.title, title: spec.meaning || "" }), fact), canvas);
}

function drawBars(spec, width, fact) {
  const height = spec.height || 130;
  const [left, right, base] = [6, 6, height - BOTTOM];
  const count = spec.counts.length;
  const top = Math.max(...spec.counts, ...(spec.other || [0]), 1e-12);
  const least = Math.min(...spec.counts.filter((value) => value > 0));
  const logs = !spec.other && top / least > 200; // rare things are to be seen beside common ones
  const tallness = (value) => (base - TOP) * (logs ? Math.log1p(value / least) / Math.log1p(top / least) : value / top);
  const room = (width - left - right) / count;
  const gap = Math.min(3, room * 0.18);
  const wide = Math.min(room - gap, 90);
  const parts = [svg("line", { class: "axis", x1: left, x2: width - right, y1: base, y2: base })];
  const name = (i) => (spec.labels ? spec.labels[i] : `${say(spec.edges[i])} to ${say(spec.edges[i + 1])}`);
  spec.counts.forEach((value, i) => {
    const tall = value > 0 ? Math.max(1.5, tallness(value)) : 0;
    const from = left + room * i + (room - wide) / 2;
    const bar = svg("rect", { class: `bar ${spec.kind || ""}`, x: from.toFixed(1), y: (base - tall).toFixed(1), width: wide.toFixed(1), height: tall.toFixed(1), rx: Math.min(2, wide / 4) });
    const hit = svg("rect", { class: "hit", x: (left + room * i).toFixed(1), y: 0, width: room.toFixed(1), height: base });
    hit.addEventListener("pointerenter", () => (fact.textContent = `${name(i)}: ${(spec.format || say)(value)}`));
    hit.addEventListener("pointerleave", () => (fact.textContent = spec.fact || ""));
    parts.push(bar, hit);
  });
  if (spec.other) {
    const middle = spec.other.map((_, i) => left + room * (i + 0.5));
    parts.push(svg("path", { class: "line second", d: path(middle, spec.other, (v) => v, (v) => base - tallness(v)) }));
  }
  const longest = 6.4 * Math.max(1, ...(spec.labels || []).map((label) => label.length)) + 6;
  const every = Math.ceil((count * longest) / width);
  if (spec.labels) spec.labels.forEach((label, i) => {
    if (i % every === 0) parts.push(svg("text", { class: "tick", x: (left + room * (i + 0.5)).toFixed(1), y: height - 6, "text-anchor": "middle" }, label));
  });
  else {
    const marks = [0, Math.floor(count / 2), count];
    marks.forEach((i, n) => parts.push(svg("text", { class: "tick", x: (left + room * i).toFixed(1), y: height - 6, "text-anchor": ["start", "middle", "end"][n] }, say(spec.edges[i], 2))));
  }
  const words = spec.counts.map((value, i) => `${name(i)}: ${(spec.format || say)(value)}`).join("; ");
  if (logs) parts.push(svg("text", { class: "tick", x: left, y: TOP + 2 }, "log counts"));
  return svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${spec.title}. ${words}` }, parts);
}
