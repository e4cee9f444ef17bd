"use strict";
// What the page knows, where it asks for more, and the keyboard.

const known = { state: null, study: null, version: "", studied: undefined };

function tell(state) {
  const problem = document.getElementById("problem");
  problem.hidden = !state.problem;
  problem.textContent = state.problem ? capital(state.problem) : "";
  if (state.problem) return;
  const before = known.state;
  known.state = state;
  fillHead(state);
  fillCurves(state, known.study ? known.study.bound : null);
  if (!before || JSON.stringify(before.card) !== JSON.stringify(state.card)) fillCard(state.card);
  if (!known.study) {
    fillVerdicts(null);
    const wait = state.status.saved === null ? "There is no checkpoint yet; this panel comes with the first one." : "Playing an episode with the newest checkpoint …";
    for (const id of ["player", "replay", "network"]) fill(id, note(wait));
  }
  sweep();
}

function learn(study) {
  if (!study) return;
  const first = !known.study;
  known.study = study;
  fillVerdicts(study.verdicts);
  fillReplay(study.replay);
  fillNetwork(study.network);
  if (first || !player.touched) fillPlayer(study.player, study.steps);
  else offer(study);
  if (known.state) fillCurves(known.state, study.bound);
  sweep();
}

// Who is looking at an episode is not torn away from it.
function offer(study) {
  document.querySelector("#player .newer")?.remove();
  body("player").prepend(el("button", { type: "button", class: "newer", on: { click: () => ((player.touched = false), fillPlayer(study.player, study.steps)) } },
    `an episode of step ${say(study.steps)} is there: show it`));
}

const GONE = "qlearn watch is not running any more; what is shown is what it last told.";

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store" }).catch(() => { throw new Error(GONE); });
  if (answer.status === 204) return null;
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

async function follow() {
  let pause = 2000;
  try {
    const state = document.hidden ? null : await ask(`api/state?version=${encodeURIComponent(known.version)}`);
    if (state) {
      tell(state);
      known.version = state.version || "";
    } else if (known.state) document.getElementById("problem").hidden = true;
    if (known.state && known.state.studied !== null && known.studied !== known.state.studied) {
      const { studied } = known.state;
      learn(await ask("api/study"));
      known.studied = studied;
    }
    if (!known.study) pause = 400;
  } catch (error) {
    const problem = document.getElementById("problem");
    problem.hidden = false;
    problem.textContent = error.message;
    if (error.message !== GONE) console.error(error);
    pause = 5000;
  }
  setTimeout(follow, pause);
}

const KEYS = {
  " ": toggle, ArrowLeft: () => seek(player.step - 1), ArrowRight: () => seek(player.step + 1),
  j: () => seek(player.step - 1), k: () => seek(player.step + 1), Home: () => seek(0), End: () => seek(Infinity), t: turn,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const at = event.target;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (at.matches("input") && key !== " " && !(key in JUMPS) && !"jkt".includes(key)) return; // the slider has its own
  if (at.matches("button, summary, a") && (key === " " || key === "Enter")) return;
  if (at.matches(".table") && key.startsWith("Arrow")) return;
  if (["Home", "End"].includes(key) && !at.matches(".stage *")) return;
  if (key === " " && !inView(body("player"))) return; // there it turns the page, as everywhere
  const act = key in JUMPS ? () => leap(key, event.shiftKey ? -1 : 1) : KEYS[key];
  if (!act) return;
  event.preventDefault();
  act();
});

function inView(node) {
  const { top, bottom } = node.getBoundingClientRect();
  return bottom > 0 && top < innerHeight;
}

// Light, dark, or as the system has it.
function turn() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  if (player.episode) go(player.step);
}
document.getElementById("theme").addEventListener("click", turn);

const carried = document.getElementById("data");
if (carried) {
  const whole = JSON.parse(carried.textContent);
  tell(whole.state);
  learn(whole.study);
} else follow();
