"use strict";
globalThis.Live ??= {};

// What all live figures share: controls, a state that an address can hold, and a readout.
// A figure is defined by
//   Live.define(name, { defaults, controls, build })
// where build(stage, state, { compact, redraw, changed }) draws on the stage once and returns
// update(state) → the readout's text; redraw() asks for an update, changed(entries) sets the state.

// Numbers, as the text writes them

const RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const raised = (/** @type {number} */ n) => (n < 0 ? "⁻" : "") + String(Math.abs(n)).replace(/\d/g, (d) => RAISED[+d]);
const thousands = (/** @type {string} */ digits) =>
  digits.length > 4 ? digits.replace(/\B(?=(\d{3})+$)/g, ",") : digits;

/** 0.12, 1.9, 87 million, 7·10⁸³: two or three digits that a reader can say. */
Live.number = (/** @type {number} */ value) => {
  if (!Number.isFinite(value)) return `more than 10${raised(308)}`;
  const size = Math.abs(value);
  if (size === 0) return "0";
  const sign = value < 0 ? "−" : "";
  if (size < 1e-3 || size >= 1e12) {
    const [digits, exponent] = size.toExponential(0).split("e");
    return `${sign}${digits === "1" ? "" : `${digits}·`}10${raised(+exponent)}`;
  }
  if (size >= 1e6) {
    const [unit, name] = size >= 1e9 ? [1e9, "billion"] : [1e6, "million"];
    return `${sign}${Number((size / unit).toPrecision(2))} ${name}`;
  }
  const digits = Number(size.toPrecision(size >= 100 ? 3 : 2));
  return sign + (digits >= 1e4 ? thousands(String(digits)) : String(digits));
};

// Elements

const element = (/** @type {string} */ tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, String(value)));
  made.append(...children);
  return made;
};
// Controls: each reads and writes one entry of the state; with `when`, { ...control, when }, it is
// there only while when(state) holds

/** One of a few: { value: label } */
Live.choice = (key, label, options) => ({ key, label, options, kind: "choice" });
/** A number between two bounds, on a logarithmic scale if asked; `write` says how it is shown. */
Live.range = (key, label, { min, max, step = 1, log = false, write = Live.number }) => ({
  ...{ key, label, min, max, step, log, write },
  kind: "range",
});
/** A range that can run by itself, `every` milliseconds a step. */
Live.player = (key, label, { every = 60, ...options }) => ({
  ...Live.range(key, label, options),
  kind: "player",
  every,
});
/** A button: act(state) changes the state; `holds`, { key, min, max }, is what an address may set. */
Live.action = (label, act, holds = {}) => ({ label, act, kind: "action", ...holds });

const makeControl = (control, state, changed) => {
  if (control.kind === "action") {
    const button = element("button", { type: "button" }, control.label);
    button.addEventListener("click", () => changed(control.act(state) ?? {}));
    return { node: button, show: () => {} };
  }
  if (control.kind === "choice") {
    const options = Object.entries(control.options).map(([value, label]) => element("option", { value }, label));
    const select = element("select", {}, ...options);
    select.addEventListener("change", () => changed({ [control.key]: select.value }));
    return {
      node: element("label", {}, element("span", {}, control.label), select),
      show: () => (select.value = state[control.key]),
    };
  }
  const { min, max, step, log } = control;
  const there = log ? Math.log10 : Number;
  const back = (/** @type {number} */ at) =>
    Math.min(max, log ? Number((10 ** at).toPrecision(3)) : Number(at.toFixed(6)));
  // Whole strides from the least value, the last of which may end beyond the largest.
  const stride = log ? 0.01 : step;
  const strides = Math.ceil((there(max) - there(min)) / stride - 1e-9);
  const bounds = { min: there(min), max: there(min) + strides * stride, step: stride };
  const input = element("input", { type: "range", ...bounds });
  // No <output>: a label would name that, not the range.
  const shown = element("b", { "aria-hidden": "true" });
  input.addEventListener("input", () => changed({ [control.key]: back(input.valueAsNumber) }));
  const node = element("label", {}, element("span", {}, control.label, " ", shown), input);
  const show = () => {
    input.valueAsNumber = there(state[control.key]);
    shown.textContent = control.write(state[control.key]);
    input.setAttribute("aria-valuetext", shown.textContent);
  };
  return control.kind === "player" ? { node: withPlay(node, control, state, changed), show } : { node, show };
};

const withPlay = (node, control, state, changed) => {
  const button = element("button", { type: "button" }, "Play");
  // Who asks for less motion gets fewer, longer strides.
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const [stride, wait] = calm ? [Math.ceil((control.max - control.min) / 8), 900] : [control.step, control.every];
  let timer = 0;
  const rest = () => {
    clearInterval(timer);
    timer = 0;
    button.textContent = "Play";
  };
  button.addEventListener("click", () => {
    if (timer) return rest();
    button.textContent = "Pause";
    if (state[control.key] >= control.max) changed({ [control.key]: control.min });
    timer = setInterval(() => {
      changed({ [control.key]: Math.min(control.max, state[control.key] + stride) });
      if (state[control.key] >= control.max) rest();
    }, wait);
  });
  for (const touched of ["pointerdown", "input"]) node.querySelector("input").addEventListener(touched, rest);
  return element("div", { class: "live-player" }, node, button);
};

// The state in the address: #order=sorted&eta=0.0002

const inAddress = () => new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");

const fromAddress = (controls) => {
  const given = inAddress();
  const read = ({ key, kind, options, min, max, step = 1, log }) => {
    const text = given.get(key);
    if (kind === "choice") return Object.hasOwn(options, text) ? text : null;
    const value = Number(text);
    if (!(value >= min && value <= max)) return null;
    return log ? value : min + Math.round((value - min) / step) * step;
  };
  return controls
    .filter(({ key }) => key && given.has(key))
    .map((control) => [control.key, read(control)])
    .filter(([, value]) => value !== null);
};

/** Another figure's entries stay. */
const toAddress = (state, defaults) => {
  const entries = inAddress();
  for (const key of Object.keys(defaults)) {
    if (state[key] === defaults[key]) entries.delete(key);
    else entries.set(key, state[key]);
  }
  const hash = entries.size ? `#${entries}` : "";
  history.replaceState(history.state, "", location.pathname + location.search + hash);
};

// A figure on the page

Live.figures = {};
Live.define = (name, figure) => (Live.figures[name] = figure);

const start = (/** @type {HTMLElement} */ root) => {
  const figure = Live.figures[root.dataset.live];
  const compact = "compact" in root.dataset;
  const controls = figure.controls.filter((control) => !compact || (figure.compact ?? []).includes(control.key ?? control.label));
  const given = fromAddress(controls);
  const state = { ...figure.defaults, ...Object.fromEntries(given) };
  const stage = element("div", { class: "live-stage" });
  const readout = element("p", { class: "live-readout" });
  const heard = element("p", { class: "visually-hidden", role: "status" });
  let pause = 0;
  let frame = 0;
  let touched = false; // what nobody has asked for is not said aloud
  const made = controls.map((control) => makeControl(control, state, changed));
  const showControls = () =>
    made.forEach((control, i) => {
      control.show();
      control.node.hidden = controls[i].when?.(state) === false;
    });
  const update = figure.build(stage, state, { compact, redraw, changed });

  function show() {
    showControls();
    readout.textContent = update(state);
  }
  function changed(entries) {
    Object.assign(state, entries);
    showControls();
    touched = true;
    redraw();
  }
  function redraw() {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(show);
    if (!touched) return;
    clearTimeout(pause);
    pause = setTimeout(() => {
      heard.textContent = readout.textContent; // once a hand rests, not on the way
      toAddress(state, figure.defaults);
    }, 500);
  }
  const panel = element("div", { class: "live-controls" }, ...made.map(({ node }) => node));
  stage.append(readout);
  root.append(panel, stage, heard);
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", root.querySelector(".live-title")?.textContent.trim() ?? "Live figure");
  root.hidden = false;
  if (root.dataset.figure) document.getElementById(root.dataset.figure)?.classList.add("live-instead");
  show();
  if (given.length) root.scrollIntoView({ block: "center" });
};

addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll(".live[data-live]").forEach((root) => start(/** @type {HTMLElement} */ (root)));
});
