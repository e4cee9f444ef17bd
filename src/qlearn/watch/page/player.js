"use strict";
// The episode player: what was seen, what each action promised, what was done, and what came of it.

const player = { record: null, episode: null, step: 0, timer: null, touched: false, show: () => {} };

function fillPlayer(record, steps) {
  stop();
  player.record = record;
  if (record.note) return fill("player", note(record.note));
  const choice = el("div", { class: "choice", role: "group", "aria-label": "Which episode" },
    record.episodes.map((episode, n) => el("button", {
      type: "button", "aria-pressed": n === 0,
      title: `the same start, with a random action ${percent(episode.epsilon)} of the time`,
      on: { click: () => ((player.touched = true), choose(n)) },
    }, `${episode.name}${episode.epsilon > 0 ? ` · ε ${say(episode.epsilon)}` : ""}`)));
  const stage = el("div", { class: "stage" });
  const about = el("p", { class: "about" });
  fill("player", el("div", { class: "row" }, choice, about), stage);
  const choose = (n) => {
    stop();
    [...choice.children].forEach((button, i) => button.setAttribute("aria-pressed", String(i === n)));
    player.episode = record.episodes[n];
    about.textContent = `checkpoint of step ${say(steps)}: return ${say(player.episode.return)} in ${say(player.episode.length)} steps, ${player.episode.end}`;
    stage.replaceChildren(...stageOf(player.episode));
    go(0);
  };
  player.choose = choose;
  choose(0);
}

function stageOf(episode) {
  player.facts = el("dl", { class: "facts" });
  player.frame = episode.frames ? el("img", { class: "frame", alt: "the frame as the environment draws it", draggable: "false", on: { load: () => player.frame.classList.toggle("tiny", player.frame.naturalWidth < 240) } }) : null;
  const seen = seenBy(episode);
  const values = valuesOf(episode);
  const slider = el("input", { type: "range", min: 0, max: episode.length - 1, value: 0, "aria-label": "step of the episode", on: { input: () => seek(Number(slider.value)) } });
  const lanes = timeline(episode);
  player.show = (step) => {
    slider.value = step;
    slider.setAttribute("aria-valuetext", `step ${step} of ${episode.length - 1}, value ${say(episode.v[step])}`);
    if (player.frame) player.frame.src = episode.frames[step] ?? "data:,";
    seen.show(step);
    values.show(step);
    lanes.show(step);
    player.facts.replaceChildren(...factsOf(episode, step));
  };
  return [
    el("div", { class: "views" },
      el("figure", { class: "view" }, el("figcaption", { text: "as the environment shows it" }),
        player.frame || note("this environment draws no frames here")),
      el("figure", { class: "view" }, el("figcaption", { text: `as the network sees it · ${episode.shape.length > 1 ? episode.shape.join(" × ") : episode.shape.length ? `${episode.shape[0]} numbers` : "one number"}` }), seen.node),
      el("figure", { class: "view values" }, el("figcaption", { text: episode.dist ? "the return that each action promises" : "Q-values" }), values.node)),
    el("div", { class: "transport" }, transport(episode), player.facts),
    lanes.node,
    slider,
  ];
}

function transport(episode) {
  const button = (content, label, click, more = {}) => el("button", { type: "button", "aria-label": label, title: label, on: { click }, ...more }, content);
  player.playing = button(icon("play"), "play", toggle, { class: "play" });
  const jumps = Object.entries(JUMPS).map(([key, jump]) => {
    const count = marks(episode, key).length;
    return button(jump.name, count ? `next ${jump.name} (${key}; shift: back), ${count} in all` : jump.none, () => leap(key, 1), { class: "jump", disabled: count === 0 });
  });
  return el("div", { class: "buttons" },
    button(icon("first"), "first step", () => seek(0)), button(icon("back"), "step back", () => seek(player.step - 1)), player.playing,
    button(icon("on"), "step on", () => seek(player.step + 1)), button(icon("last"), "last step", () => seek(Infinity)), el("span", { class: "jumps" }, jumps));
}

const ICONS = {
  play: "M4 2.5v11l9.5-5.5z", pause: "M3.5 2.5h3v11h-3zM9.5 2.5h3v11h-3z", on: "M3 3v10l7.5-5zM11 3h2v10h-2z", back: "M13 3v10L5.5 8zM3 3h2v10H3z",
  last: "M1.5 3v10L7.5 8zM7.5 3v10l6-5zM13.2 3h1.6v10h-1.6z", first: "M14.5 3v10l-6-5zM8.5 3v10l-6-5zM1.2 3h1.6v10H1.2z",
};

const icon = (name) => svg("svg", { viewBox: "0 0 16 16", width: 14, height: 14, class: "icon", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));

const JUMPS = {
  g: { name: "small gap", at: (e, i) => e.q[0].length > 1 && e.gap[i] <= e.small_gap, none: "there is one action" },
  r: { name: "reward", at: (e, i) => remarkable(e, i), none: "every step has the same reward" },
  e: { name: "large error", at: (e, i) => Math.abs(e.error[i]) >= e.large_error, none: "there is no error" },
  x: { name: "random", at: (e, i) => e.action[i] !== e.greedy[i], none: "every action was the greedy one" },
};

// A reward that is not the commonest one; where most steps have one of their own, one that is far from the middle.
function remarkable(episode, i) {
  if (!episode.usual) {
    const counts = new Map();
    for (const reward of episode.reward) counts.set(reward, (counts.get(reward) || 0) + 1);
    const [value, count] = [...counts].sort((a, b) => b[1] - a[1])[0];
    const sorted = [...episode.reward].sort((a, b) => a - b);
    const middle = count * 2 >= sorted.length ? value : sorted[sorted.length >> 1];
    const sizes = episode.reward.map((reward) => Math.abs(reward - middle)).sort((a, b) => a - b);
    episode.usual = { value: middle, far: count * 2 >= sorted.length ? 0 : sizes[Math.floor(0.97 * (sizes.length - 1))] };
  }
  return Math.abs(episode.reward[i] - episode.usual.value) > episode.usual.far;
}

function marks(episode, key) {
  episode.marks = episode.marks || {};
  episode.marks[key] = episode.marks[key] || [...Array(episode.length).keys()].filter((i) => JUMPS[key].at(episode, i));
  return episode.marks[key];
}

function leap(key, way) {
  if (!player.episode) return;
  const found = marks(player.episode, key);
  const next = way > 0 ? found.find((i) => i > player.step) ?? found[0] : found.findLast((i) => i < player.step) ?? found[found.length - 1];
  if (next !== undefined) seek(next);
}

function factsOf(episode, i) {
  const so = episode.reward.slice(0, i).reduce((sum, reward) => sum + reward, 0);
  const fact = (name, value, title) => el("div", { title }, el("dt", { text: name }), el("dd", { text: value }));
  const last = i === episode.length - 1;
  return [
    fact("step", `${say(i)} / ${say(episode.length - 1)}`, "of the episode"),
    fact("return so far", say(so), "sum of the rewards before this step"),
    fact("reward", signed(episode.reward[i]) + (episode.terminated[i] ? last ? " · terminated" : " · life lost" : ""), "of the action chosen here"),
    fact("V(s)", say(episode.v[i]), "the largest Q-value"),
    fact("realised", say(episode.realised[i]), "the discounted return that followed"),
    fact("gap", say(episode.gap[i]), "between the best action and the next"),
    fact("δ", signed(episode.error[i]), "r + γ V(s′) − Q(s, a)"),
  ];
}

// What the network sees: a picture, or its numbers as bars.
function seenBy(episode) {
  if (!episode.numbers) {
    const image = el("img", { class: "pixels", alt: "what the network sees", draggable: "false" });
    return { node: image, show: (i) => (image.src = episode.seen[i]) };
  }
  const widest = episode.numbers.map((_, n) => Math.max(1e-9, ...episode.seen.map((one) => Math.abs(one[n]))));
  const rows = episode.numbers.map((name) => {
    const bar = el("i");
    const value = el("b");
    return { bar, value, node: el("li", {}, el("span", { text: name, title: name }), el("div", { class: "around" }, bar), value) };
  });
  const show = (i) => rows.forEach(({ bar, value }, n) => {
    const number = episode.seen[i][n];
    const part = (50 * number) / widest[n];
    bar.style.left = `${50 + Math.min(0, part)}%`;
    bar.style.width = `${Math.abs(part)}%`;
    value.textContent = say(number);
  });
  return { node: el("ul", { class: "numbers" }, rows.map((row) => row.node)), show };
}

// Each action's value: a bar, or the distribution of its return, and how much less than the best it is.
function valuesOf(episode) {
  const [low, high] = extent([...episode.q, [0]]);
  const least = Math.max(1e-9, ...episode.v.map((v, i) => Math.max(...episode.q[i].filter((_, a) => allowed(episode, i, a)).map((q) => v - q))));
  const dist = episode.dist ? unpack(episode) : null;
  const digits = Math.max(0, Math.min(6, 4 - Math.ceil(Math.log10(Math.max(Math.abs(low), Math.abs(high), 1e-9)))));
  const rows = episode.actions.map((name) => {
    const row = { bar: el("i"), shape: dist ? el("canvas", { width: 240, height: 40 }) : null, value: el("b"), less: el("i"), tag: el("em") };
    row.node = el("li", {}, el("span", { class: "name" }, el("span", { text: name }), row.tag),
      el("div", { class: dist ? "shape" : "from" }, dist ? row.shape : row.bar), row.value, el("div", { class: "less" }, row.less));
    return row;
  });
  const show = (i) => rows.forEach((row, a) => {
    const [q, open] = [episode.q[i][a], allowed(episode, i, a)];
    const [chosen, greedy] = [a === episode.action[i], a === episode.greedy[i]];
    row.node.className = [chosen && "chosen", greedy && "greedy", chosen && !greedy && "random", !open && "shut"].filter(Boolean).join(" ");
    row.tag.textContent = !open ? "not allowed" : chosen ? (greedy ? "chosen, greedy" : "chosen at random") : greedy ? "greedy" : "";
    row.value.textContent = (q < 0 ? MINUS : "") + Math.abs(q).toFixed(digits);
    row.less.style.width = `${Math.min(100, (100 * (episode.v[i] - q)) / least)}%`;
    if (dist) shapeOf(row.shape, dist, i, a, q);
    else {
      const [zero, end] = [-low / (high - low || 1), (q - low) / (high - low || 1)];
      row.bar.style.left = `${100 * Math.min(zero, end)}%`;
      row.bar.style.width = `${Math.max(0.5, 100 * Math.abs(end - zero))}%`;
    }
  });
  const span = dist ? [dist.low, dist.high] : [low, high];
  const foot = el("li", { class: "foot" }, el("span"), el("span", { class: "ends" }, el("span", { text: say(span[0]) }), el("span", { text: say(span[1]) })),
    el("span", { text: dist ? "mean" : "Q" }), el("span", { text: "below V" }));
  return { node: el("ul", { class: "actions" + (episode.actions.length > 8 ? " many" : "") }, rows.map((row) => row.node), foot), show };
}

const allowed = (episode, i, a) => !episode.mask || episode.mask[i][a];

// The distributions, cropped to where there is ever any probability.
function unpack(episode) {
  const { low, high, bins, data } = episode.dist;
  const shares = bytesOf(data);
  let [first, last] = [bins - 1, 0];
  for (let n = 0; n < shares.length; n++)
    if (shares[n] > 4) {
      const bin = n % bins;
      if (bin < first) first = bin;
      if (bin > last) last = bin;
    }
  first = Math.max(0, Math.min(first, last) - 1);
  last = Math.min(bins - 1, last + 1);
  const wide = (high - low) / bins;
  return { shares, bins, first, last, actions: episode.actions.length, low: low + first * wide, high: low + (last + 1) * wide };
}

function shapeOf(canvas, dist, i, a, q) {
  const dense = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth || 240, canvas.clientHeight || 40];
  canvas.width = width * dense;
  canvas.height = height * dense;
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(canvas);
  pen.scale(dense, dense);
  const count = dist.last - dist.first + 1;
  const from = (i * dist.actions + a) * dist.bins + dist.first;
  pen.fillStyle = style.color;
  for (let n = 0; n < count; n++) {
    const tall = (dist.shares[from + n] / 255) * (height - 4);
    pen.fillRect((n * width) / count, height - tall, Math.max(1, width / count - 0.6), tall);
  }
  pen.fillStyle = style.getPropertyValue("--ink");
  pen.fillRect(((q - dist.low) / (dist.high - dist.low)) * width - 0.75, 0, 1.5, height);
}

// The episode from left to right: V against the realised return, the error and the gap, and marks of what happened.
function timeline(episode) {
  const xs = [...Array(episode.length).keys()];
  const bias = episode.v.reduce((sum, v, i) => sum + v - episode.realised[i], 0) / episode.length;
  const cursors = [];
  const lane = (title, series, height, extra) => {
    const canvas = el("div", { class: "canvas lane" });
    chart(canvas, (width) => {
      const [ys, x] = [laneDomain(series), scale([0, Math.max(1, episode.length - 1)], [LEFT, width - RIGHT])];
      const y = scale(ys, [height - (extra ? 20 : 6), 8]);
      const parts = ticks(ys[0], ys[1], height > 100 ? 4 : 2).map((value) => [
        svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
        svg("text", { class: "tick", x: LEFT - 8, y: y(value), "text-anchor": "end", dy: "0.32em" }, short(value))]).flat();
      for (const one of series) parts.push(svg("path", { class: `line ${one.kind}`, d: path(xs, one.values, x, y) }));
      if (extra) parts.push(...eventsOf(episode, x, height));
      const cursor = svg("line", { class: "cursor", y1: 4, y2: height - 2 });
      const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": inWords({ title, series }) }, parts, cursor);
      const drag = (event) => seek(Math.round(x.back(event.clientX - root.getBoundingClientRect().left)));
      root.addEventListener("pointerdown", (event) => (root.setPointerCapture(event.pointerId), drag(event)));
      root.addEventListener("pointermove", (event) => event.buttons && drag(event));
      canvas.place = (i) => (cursor.setAttribute("x1", x(i)), cursor.setAttribute("x2", x(i)));
      canvas.place(player.step);
      return [root];
    });
    cursors.push(canvas);
    const keys = series.map((one) => el("span", { class: `key ${one.kind}`, title: one.meaning || "" }, el("span", { text: one.name })));
    return el("figure", { class: "chart" }, el("figcaption", {}, el("span", { class: "name", text: title }), ...keys,
      extra ? el("span", { class: "at", text: biasOf(episode, bias) }) : null), canvas);
  };
  const node = el("div", { class: "lanes" },
    lane("Promised and realised", [
      { name: "V(s)", kind: "first", values: episode.v, meaning: "the largest Q-value" },
      { name: `return that followed${episode.end === "terminated" ? "" : ", V where it was cut"}`, kind: "second", values: episode.realised, meaning: "the discounted sum of the rewards from here on" }], 170, true),
    el("div", { class: "pair" },
      lane("Error of one step, δ", [{ name: "r + γ V(s′) − Q(s, a)", kind: "third", values: episode.error }], 76),
      lane("Action gap", [{ name: "best − next", kind: "fourth", values: episode.gap }], 76)));
  return { node, show: (i) => cursors.forEach((canvas) => canvas.place && canvas.place(i)) };
}

function laneDomain(series) {
  const [low, high] = extent(series.map((one) => one.values));
  const pad = (high - low) * 0.06 || Math.abs(high) * 0.1 || 0.5;
  return [low >= 0 && low < (high - low) * 0.5 ? 0 : low - pad, high + pad];
}

function biasOf(episode, bias) {
  if (episode.soft) return "a soft value counts the policy's entropy too";
  return `V is ${say(Math.abs(bias))} ${bias > 0 ? "above" : "below"} what followed, on average${episode.clipped ? " (clipped rewards)" : ""}`;
}

function eventsOf(episode, x, height) {
  const tick = (i, kind, from, to) => svg("line", { class: `event ${kind}`, x1: x(i).toFixed(1), x2: x(i).toFixed(1), y1: height - from, y2: height - to });
  return [
    ...marks(episode, "r").map((i) => tick(i, episode.reward[i] < episode.usual.value ? "bad" : "good", 17, 10)),
    ...marks(episode, "x").map((i) => tick(i, "random", 8, 2)),
    ...episode.terminated.map((over, i) => over && tick(i, "bad", 17, 2)).filter(Boolean),
  ];
}

function go(step) {
  if (!player.episode) return;
  player.step = Math.max(0, Math.min(player.episode.length - 1, step));
  player.show(player.step);
}

function seek(step) {
  player.touched = true;
  go(step);
}

function stop() {
  clearInterval(player.timer);
  player.timer = null;
  if (player.playing) face("play");
}

function face(name) {
  player.playing.replaceChildren(icon(name));
  player.playing.ariaLabel = player.playing.title = name;
}

function toggle() {
  if (!player.episode) return;
  player.touched = true;
  if (player.timer) return stop();
  if (player.step >= player.episode.length - 1) go(0);
  face("pause");
  player.timer = setInterval(() => (player.step >= player.episode.length - 1 ? stop() : go(player.step + 1)), 1000 / Math.min(60, player.episode.fps));
}
