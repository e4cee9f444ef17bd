"use strict";
// Elements, numbers and words. Text from a run only ever becomes a text node.

function el(tag, given = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, heard] of Object.entries(value)) node.addEventListener(event, heard);
    else if (name === "text") node.textContent = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const SVG = document.querySelector("svg").namespaceURI; // as the browser has it, so that no address stands here

function svg(tag, given = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(given)) if (value !== null) node.setAttribute(name, value);
  node.append(...children.flat().filter((child) => child !== null));
  return node;
}

const MINUS = "−";

// A number in few characters: 1,234 · 0.0123 · 1.2e−7.
function say(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  let text;
  if (Number.isInteger(value) && size < 1e9) text = size.toLocaleString("en-US");
  else if (size !== 0 && (size < 1e-4 || size >= 1e9)) text = size.toExponential(1);
  else if (size >= 1000) text = Math.round(size).toLocaleString("en-US");
  else text = String(Number(size.toPrecision(digits)));
  return (value < 0 ? MINUS : "") + text.replace("e-", "e" + MINUS).replace("e+", "e");
}

// The same with its sign.
const signed = (value, digits) => (value > 0 ? "+" : "") + say(value, digits);

// A number as an axis has it: 20k, 1.5M.
function short(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return say(value / 1e6, 3) + "M";
  if (size >= 1e4) return say(value / 1e3, 3) + "k";
  return say(value, 3);
}

const percent = (share) => (share > 0 && share < 0.001 ? "<0.1" : say(100 * share, 3)) + " %";

function lasting(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 90) return say(Math.round(seconds)) + " s";
  if (seconds < 5400) return say(Math.round(seconds / 60)) + " min";
  return say(seconds / 3600, 3) + " h";
}

const extent = (lists) => {
  let low = Infinity;
  let high = -Infinity;
  for (const list of lists)
    for (const value of list)
      if (value !== null && value !== undefined) {
        if (value < low) low = value;
        if (value > high) high = value;
      }
  return low <= high ? [low, high] : [0, 1];
};

// Round numbers between two ends, about so many.
function ticks(low, high, count = 4) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.99);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(Number((n * step).toPrecision(12)));
  return found;
}

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

const body = (id) => document.querySelector(`#${id} .body`);
const fill = (id, ...children) => body(id).replaceChildren(...children.flat().filter(Boolean));
const note = (text) => el("p", { class: "note", text });

// A picture of the program's own making, pixel by pixel; anything else is not shown.
function picture(uri, label) {
  if (!/^data:image\/png;base64,[A-Za-z0-9+/=]+$/.test(uri)) return null;
  return el("img", { src: uri, alt: label, class: "pixels", draggable: "false" });
}
