"use strict";
// The other panels, each from its part of the record.

function fillHead(state) {
  const { status } = state;
  document.title = `${state.env} · ${state.preset} · qlearn`;
  document.getElementById("env").textContent = state.env;
  document.getElementById("which").textContent = `${state.preset}, seed ${state.seed}`;
  const pill = document.getElementById("pill");
  const words = { running: "training", finished: "finished", stopped: `stopped at step ${say(status.last)}` };
  if (pill.textContent !== words[status.kind]) pill.textContent = words[status.kind];
  pill.className = `pill ${status.kind}`;
  const sentence = document.getElementById("sentence");
  sentence.replaceChildren(status.kind === "running" ? `Being trained: step ${say(status.last)} of ${say(status.limit)}.` : capital(status.sentence));
  if (status.continue) sentence.append(" Continue with ", el("code", { text: status.continue }));
  const { last } = state;
  const figure = (name, value, more) => el("div", { class: "figure" }, el("span", { text: name }), el("b", { text: value }), el("small", { text: more || "" }));
  document.getElementById("figures").replaceChildren(
    figure("steps", say(status.last), `of ${say(status.limit)}`),
    figure("episodes", say(state.episodes)),
    figure("mean return", say(state.mean_return, 4), `last ${say(state.window)} episodes${state.goal === null ? "" : `; solved at ${say(state.goal)}`}`),
    figure("best episode", say(state.curves.episodes.best, 4)),
    figure("epsilon", say(last.epsilon), "random actions"),
    figure("updates", say(last.updates)),
    figure("steps per second", say(last.steps_per_second), lasting(last.wall_seconds) + " of training"));
}

const capital = (text) => { const said = text.charAt(0).toUpperCase() + text.slice(1); return /[.!?]$/.test(said) ? said : said + "."; };

function fillVerdicts(found) {
  if (!found) return fill("verdicts", note("Looking at the run …"));
  const cards = found.verdicts.map((verdict) => el("article", { class: "verdict" },
    el("h3", { text: capital(String(verdict.sentence)) }),
    el("p", { class: "fix", text: String(verdict.fix) }),
    el("p", { class: "measure" }, el("code", { text: String(verdict.rule) }), ` ${verdict.number === null ? "" : `${saying(verdict.number)}, threshold ${saying(verdict.threshold)}`}`)));
  const checked = found.checked.length ? el("details", {}, el("summary", { text: "What was checked" }), el("ul", { class: "checked" }, found.checked.map((line) => el("li", { text: line })))) : null;
  if (!cards.length && !found.note) cards.push(el("p", { class: "well", text: "Nothing was found that keeps it from learning." }));
  fill("verdicts", found.note ? note(capital(found.note)) : null, el("div", { class: "cards" }, cards), checked);
}

const saying = (value) => (typeof value === "number" ? say(value) : String(value ?? "–"));

const SMALL = [
  ["loss", "Loss", true], ["td_error", "TD error", true], ["grad_norm", "Gradient norm", true],
  ["epsilon", "Epsilon", false], ["steps_per_second", "Steps per second", false],
  ["outside_support", "Outside the support", false], ["states_visited", "States visited", false],
];

function fillCurves(state, bound) {
  const { episodes, train } = state.curves;
  const to = Math.max(state.status.last, 1);
  const charts = [];
  if (episodes.count) charts.push(lines({
    title: "Return", meaning: state.meanings.return, xs: episodes.steps, to, height: 250,
    series: [{ name: `mean of the last ${say(state.window)}`, values: episodes.mean_return, kind: "first" },
      { name: episodes.single ? "each episode" : "episodes, averaged", values: episodes.mean, kind: "faint" }],
    band: episodes.single ? null : { low: episodes.low, high: episodes.high }, dots: episodes.single && episodes.count > 1 ? episodes.mean : null,
    rules: state.goal === null ? [] : [{ value: state.goal, label: `solved at ${say(state.goal)}` }],
  }));
  if (train.q_mean) charts.push(lines({
    title: "Values", meaning: state.meanings.q_mean, xs: train.steps, to, height: 250,
    series: [{ name: "q_mean", values: train.q_mean, kind: "first" }, { name: "q_max", values: train.q_max || [], kind: "second" }],
    rules: bound === null || bound === undefined ? [] : [{ value: bound, label: `r_max / (1 − γ) = ${say(bound)}` }],
  }));
  const small = SMALL.filter(([name]) => train[name]).map(([name, title, log]) => lines({
    title, meaning: state.meanings[name], xs: train.steps, to, log,
    series: [{ name, values: train[name], kind: "first" }],
    rules: name === "grad_norm" && state.max_grad_norm ? [{ value: state.max_grad_norm, label: `clipped at ${say(state.max_grad_norm)}` }] : [],
  }));
  if (!charts.length && !small.length) return fill("curves", note("No episode has ended yet, and nothing was logged."));
  const many = episodes.count && !episodes.single ? note(`${say(episodes.count)} episodes: the band is from the least to the largest return of neighbours.`) : null;
  fill("curves", el("div", { class: "large" }, charts), el("div", { class: "small" }, small), many);
}

function fillReplay(memory) {
  if (memory.note) return fill("replay", note(capital(memory.note)));
  const charts = [
    bars({ title: "Rewards", ...memory.rewards, fact: `${percent(memory.nonzero)} are not 0`, kind: "first" }),
    bars({ title: "Actions", labels: memory.actions.map((one) => one[0]), counts: memory.actions.map((one) => one[1]), kind: "first" }),
    bars({ title: "Age in rows", meaning: "how many steps ago it was stored, newest at the left", edges: memory.ages.edges, counts: memory.ages.stored, other: memory.priorities ? memory.ages.drawn : null, format: percent,
      fact: memory.priorities ? "bars: stored, line: drawn" : "drawn uniformly", kind: "faint" }),
    memory.priorities ? bars({ title: "Chance of being drawn", meaning: "times that of a uniform draw, by powers of ten", edges: memory.priorities.edges, counts: memory.priorities.counts, kind: "second",
      fact: `effective size ${percent(memory.priorities.effective)}, β ${say(memory.priorities.beta)}` }) : null,
    bars({ title: "Errors, y − Q(s, a)", ...memory.errors, kind: "third", fact: `of ${say(memory.examined)}; mean size ${say(memory.error_mean)}` }),
  ].filter(Boolean);
  const fact = (name, value) => el("div", {}, el("dt", { text: name }), el("dd", { text: value }));
  fill("replay",
    el("dl", { class: "facts" }, fact("transitions", say(memory.size)), fact("capacity", say(memory.capacity)), fact("in use", percent(memory.fill)),
      fact("terminations", say(memory.terminated)), fact("truncations", say(memory.truncated))),
    el("div", { class: "small" }, charts),
    el("h3", { text: "What surprises most" }),
    el("p", { class: "formula" }, "y = r + γⁿ · Q′(s′, a*) · (1 − terminated), the error is y − Q(s, a)"),
    el("div", { class: "surprises" }, memory.surprises.map(surpriseOf)));
}

function surpriseOf(one) {
  const piece = (value, name, kind) => el("span", { class: `piece ${kind || ""}` }, el("b", { text: value }), el("small", { text: name }));
  const gone = one.terminated;
  const sum = el("div", { class: "sum" },
    piece(say(one.target), "y", "first"), "=", piece(say(one.reward), "r"),
    one.bonus ? ["+", piece(signed(one.bonus), "Munchausen")] : [],
    "+", gone ? [piece(say(one.after), `Q′(s′, ${one.best})`, "gone"), "·", piece("0", "1 − terminated")]
      : [piece(say(one.discount), "γⁿ"), "·", piece(say(one.after), `Q′(s′, ${one.best})`)],
    Math.abs(one.cut) > 1e-3 * Math.max(1, Math.abs(one.target)) ? [piece(signed(one.cut), "cut by the support")] : []);
  return el("article", { class: "surprise" },
    el("header", {}, el("b", { class: one.error < 0 ? "bad" : "good", text: signed(one.error) }),
      el("span", { text: `${one.action}: promised ${say(one.q)}, worth ${say(one.target)}` }), el("small", { text: `${say(one.age)} rows ago` })),
    el("div", { class: "ends" }, endOf(one.obs, "s"), el("span", { class: "to", text: "→" }), endOf(one.next, "s′")), sum);
}

function endOf(seen, name) {
  const label = el("small", { text: name });
  if (typeof seen === "string") return el("div", { class: "end" }, label, picture(seen, `observation ${name}`));
  return el("div", { class: "end" }, label, el("code", { text: seen.map((value) => say(value, 3)).join("  ") }));
}

function fillNetwork(health) {
  if (health.note) return fill("network", note(capital(health.note)));
  const fact = (name, value, title) => el("div", { title }, el("dt", { text: name }), el("dd", { text: value }));
  const meter = (share) => { const bar = el("i"); bar.style.width = `${100 * Math.min(1, share)}%`; return el("div", { class: "meter" }, bar); };
  const layers = health.layers.map((layer) => el("tr", {}, el("th", { scope: "row", text: layer.name }), el("td", { text: say(layer.units) }),
    el("td", { class: layer.dormant / layer.units > 0.9 ? "bad" : "", text: `${say(layer.dormant)} · ${percent(layer.dormant / layer.units)}` }),
    el("td", {}, meter(layer.dormant / layer.units)), el("td", { text: say(layer.silent) }), el("td", {}, spark(layer.scores))));
  const far = Math.max(1e-12, ...health.weights.map((one) => (one.distance ?? 0) / (one.norm || 1)));
  const weights = health.weights.map((one) => el("tr", {}, el("th", { scope: "row", text: one.name }), el("td", { text: one.shape.join(" × ") }),
    el("td", { text: say(one.norm) }), el("td", { text: say(one.rms) }),
    ...(health.distance === null ? [] : [el("td", { text: percent(one.distance / (one.norm || 1)) }), el("td", {}, meter(one.distance / (one.norm || 1) / far))])));
  const table = (name, heads, rows) => el("div", { class: "table", tabindex: "0", role: "region", "aria-label": name }, el("table", {}, el("caption", { text: name }),
    el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col", text: head })))), el("tbody", {}, rows)));
  fill("network",
    el("dl", { class: "facts" }, fact("parameters", say(health.parameters)), fact("norm ‖θ‖", say(health.norm)),
      health.distance === null ? fact("target network", "none") : fact("distance to the target", health.distance === 0 ? "0 · just copied" : `${say(health.distance)} · ${percent(health.relative)}`, "‖θ − θ′‖, and as a part of ‖θ‖; 0 right after a copy"),
      fact("watched on", `${say(health.observations)} observations of the ${health.source}`)),
    layers.length ? table("Units behind each ReLU", ["layer", "units", `dormant (at most ${say(health.dormant_below)} of the mean)`, "", "silent", "activity, 0 to 3 × the mean"], layers) : note("This network has no ReLU whose units could be watched."),
    table("Weights", ["parameter", "shape", "norm", "root mean square", ...(health.distance === null ? [] : ["from the target", ""])], weights));
}

function spark(counts) {
  const [width, height, top] = [96, 22, Math.max(...counts, 1)];
  return svg("svg", { width, height, class: "spark", role: "img", "aria-label": `units by activity: ${counts.join(", ")}` }, counts.map((count, i) =>
    svg("rect", { class: "bar first", x: (i * width) / counts.length, width: width / counts.length - 1, y: height - (height * count) / top, height: (height * count) / top })));
}

// Words that are broken between them, not at their hyphens.
const words = (text) => String(text).split(" ").map((word) => [el("span", { class: "word", text: word }), " "]).flat();

function fillCard(card) {
  const shown = (value) => (typeof value === "number" ? say(value) : typeof value === "boolean" ? (value ? "yes" : "no") : String(value));
  const groups = card.groups.map(([title, rows]) => el("div", { class: "group" }, el("h3", { text: capital(title).slice(0, -1) }),
    el("dl", { class: "list" }, rows.map(([name, value]) => [el("dt", { text: name }), name === "command" ? el("dd", {}, words(value)) : el("dd", { text: name === "seed" ? String(value) : shown(value) })]).flat())));
  const changed = card.fields.filter((field) => field[2] !== "");
  const rows = card.fields.map(([name, value, other]) => el("tr", { class: other === "" ? "" : "changed" }, el("th", { scope: "row", text: name }), el("td", { text: value }), el("td", { text: other })));
  fill("card", el("div", { class: "groups" }, groups),
    el("details", {}, el("summary", { text: `all ${card.fields.length} fields; ${changed.length ? `${changed.length} differ from the preset` : "all as in the preset"}` }),
      el("div", { class: "table" }, el("table", {}, el("thead", {}, el("tr", {}, ["field", "value", "in the preset"].map((head) => el("th", { scope: "col", text: head })))), el("tbody", {}, rows)))));
}
