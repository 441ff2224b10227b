"use strict";
globalThis.Live ??= {};

// What all live figures share: controls, a state that an address can hold, a readout, and plots.
// A figure is defined by
//   Live.define(name, { defaults, controls, build })
// where build(stage, state) draws on the stage once and returns update(state) → the readout's text.

/** The register of sgd_analysis.figures, as strokes; tests/book/live/ compares the two. */
Live.ink = {
  printed: { stroke: "#0072B2", width: 2 },
  model: { stroke: "#D55E00", width: 2, dash: "6 3" },
  measured: { stroke: "#2F9A72", width: 2 },
  predicted: { stroke: "#000000", width: 1.8, dash: "7 4" },
  reference: { stroke: "#4D4D4D", width: 1.5, dash: "1.5 3" },
  backdrop: { stroke: "#808080", width: 6, opacity: 0.45 },
  gd: { stroke: "#744E03", width: 2 },
  sgd: { stroke: "#867CDC", width: 2 },
  momentum: { stroke: "#0C3801", width: 2, dash: "8 3 2 3" },
  rmsprop: { stroke: "#AE6E99", width: 2, dash: "2 3" },
  adam: { stroke: "#87894E", width: 2, dash: "8 2 2 2 2 2" },
  sorted: { stroke: "#A261FC", width: 2 },
};

// Numbers, as the text writes them

const RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const raised = (/** @type {number} */ n) => (n < 0 ? "⁻" : "") + String(Math.abs(n)).replace(/\d/g, (d) => RAISED[+d]);
const thousands = (/** @type {string} */ digits) =>
  digits.length > 4 ? digits.replace(/\B(?=(\d{3})+$)/g, ",") : digits;

/** 0.12, 1.9, 87 million, 7·10⁸³: two or three digits that a reader can say. */
Live.number = (/** @type {number} */ value) => {
  if (!Number.isFinite(value)) return "infinity";
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
const drawn = (/** @type {string} */ tag, attributes = {}, text = "") => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, String(value)));
  made.textContent = text;
  return made;
};

// Controls: each reads and writes one entry of the state

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
/** A button: act(state) changes the state. */
Live.action = (label, act) => ({ label, act, kind: "action" });

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
  const back = (/** @type {number} */ at) => (log ? Number((10 ** at).toPrecision(3)) : Number(at.toFixed(6)));
  const bounds = { min: there(min), max: there(max), step: log ? 0.01 : step };
  const input = element("input", { type: "range", ...bounds });
  const shown = element("output", { "aria-hidden": "true" });
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
  node.querySelector("input").addEventListener("pointerdown", rest);
  return element("div", { class: "live-player" }, node, button);
};

// The state in the address: #order=sorted&eta=0.0002

const fromAddress = (defaults, controls) => {
  const given = new URLSearchParams(location.hash.slice(1));
  const valid = (control, text) =>
    control.kind === "choice"
      ? text in control.options
      : Number(text) >= control.min && Number(text) <= control.max;
  return controls
    .filter(({ key }) => key && given.has(key))
    .filter((control) => valid(control, given.get(control.key)))
    .map(({ key }) => [key, typeof defaults[key] === "number" ? Number(given.get(key)) : given.get(key)]);
};

const toAddress = (state, defaults) => {
  const changed = Object.entries(state).filter(([key, value]) => key in defaults && value !== defaults[key]);
  const hash = changed.length ? `#${new URLSearchParams(changed)}` : "";
  history.replaceState(history.state, "", location.pathname + location.search + hash);
};

// A figure on the page

Live.figures = {};
Live.define = (name, figure) => (Live.figures[name] = figure);

const start = (/** @type {HTMLElement} */ root) => {
  const figure = Live.figures[root.dataset.live];
  const compact = "compact" in root.dataset;
  const controls = figure.controls.filter((control) => !compact || (figure.compact ?? []).includes(control.key ?? control.label));
  const given = fromAddress(figure.defaults, controls);
  const state = { ...figure.defaults, ...(compact ? figure.compactDefaults : {}), ...Object.fromEntries(given) };
  const stage = element("div", { class: "live-stage" });
  const readout = element("p", { class: "live-readout" });
  const heard = element("p", { class: "visually-hidden", role: "status" });
  let pause = 0;
  let frame = 0;
  const made = controls.map((control) => makeControl(control, state, changed));
  const showControls = () =>
    made.forEach((control, i) => {
      control.show();
      control.node.hidden = controls[i].when?.(state) === false;
    });
  const update = figure.build(stage, state, { compact });

  function show() {
    showControls();
    readout.textContent = update(state);
  }
  function changed(entries) {
    Object.assign(state, entries);
    showControls();
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(show);
    clearTimeout(pause);
    pause = setTimeout(() => {
      heard.textContent = readout.textContent; // once a hand rests, not on the way
      toAddress(state, figure.defaults);
    }, 500);
  }
  const panel = element("div", { class: "live-controls" }, ...made.map(({ node }) => node));
  root.append(panel, stage, readout, heard);
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

// Plots: one SVG each, drawn in the figures' light colours, which the style sheet turns in the dark

/**
 * @typedef {{label: string, domain: [number, number], log?: boolean, ticks?: number[]}} Axis
 * @typedef {[number, number][]} Points  in data coordinates
 */

/** @param {HTMLElement} stage @param {{title?: string, legend?: [string, object][], x: Axis, y: Axis, width?: number, height?: number}} options */
Live.plot = (stage, { title = "", legend = [], x, y, width = 340, height = 250 }) => {
  const top = (title ? 26 : 10) + (legend.length ? 18 : 0);
  const inner = { left: 52, right: width - 16, top, bottom: height - 42 };
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const frame = drawn("g", { class: "live-frame" });
  const clip = drawn("clipPath", { id: `live-clip-${Math.random().toString(36).slice(2)}` });
  clip.append(
    drawn("rect", { x: inner.left, y: inner.top - 3, width: inner.right - inner.left + 4, height: inner.bottom - inner.top + 6 }),
  );
  const data = drawn("g", { "clip-path": `url(#${clip.id})` });
  svg.append(clip, frame, data);
  stage.append(svg);
  const axes = { x, y };
  /** @type {Map<string, SVGElement>} */
  const kept = new Map();

  const place = ({ domain: [low, high], log }, from, to) => {
    const scale = log ? Math.log10 : Number;
    const [a, b] = [scale(low), scale(high)];
    // What is not finite, or too far out, leaves the panel at its edge.
    const bounded = (at) => (Number.isNaN(at) ? to : Math.max(-1e4, Math.min(1e4, at)));
    return (value) => bounded(from + ((scale(log && value <= 0 ? 1e-300 : value) - a) / (b - a)) * (to - from));
  };
  const at = {
    x: (value) => place(axes.x, inner.left, inner.right)(value),
    y: (value) => place(axes.y, inner.bottom, inner.top)(value),
  };

  const ticks = ({ domain: [low, high], log, ticks: given }) => {
    if (given) return given;
    if (log) {
      const decades = Math.log10(high / low);
      const every = Math.max(1, Math.ceil(decades / 5));
      const first = Math.ceil(Math.log10(low) - 1e-9);
      return Array.from({ length: 40 }, (_, i) => 10 ** (first + i * every)).filter((tick) => tick <= high * 1.0001);
    }
    const rough = (high - low) / 4;
    const unit = 10 ** Math.floor(Math.log10(rough));
    const spacing = unit * [1, 2, 5, 10].find((factor) => factor * unit >= rough * 0.99);
    const first = Math.ceil(low / spacing - 1e-9);
    return Array.from({ length: 12 }, (_, i) => (first + i) * spacing).filter((tick) => tick <= high + spacing * 1e-6);
  };
  const tickLabel = (value, log) => {
    const text = Number(value.toPrecision(6));
    if (!log || (value >= 0.1 && value < 1000)) return [drawn("tspan", {}, String(text).replace("-", "−"))];
    const exponent = String(Math.round(Math.log10(value))).replace("-", "−");
    return [drawn("tspan", {}, "10"), drawn("tspan", { dy: -5, "font-size": 11 }, exponent)];
  };

  const stroke = ({ stroke: color, width: wide = 2, dash = "none", opacity = 1 }) => ({
    ...{ fill: "none", stroke: color, "stroke-width": wide, "stroke-dasharray": dash, opacity },
    ...{ "stroke-linejoin": "round" },
  });
  const drawLegend = () => {
    legend.forEach(([label, style], i) => {
      const from = inner.left + (i * (inner.right - inner.left)) / legend.length;
      const d = `M${from} ${top - 11}h22`;
      frame.append(drawn("path", { d, ...stroke(style) }), drawn("text", { x: from + 28, y: top - 7 }, label));
    });
  };
  const drawFrame = () => {
    frame.replaceChildren();
    drawLegend();
    if (title) frame.append(drawn("text", { x: inner.left, y: 15, class: "live-plot-title" }, title));
    for (const tick of ticks(axes.x)) {
      const px = at.x(tick);
      frame.append(drawn("line", { x1: px, x2: px, y1: inner.top, y2: inner.bottom, class: "live-grid" }));
      const label = drawn("text", { x: px, y: inner.bottom + 17, "text-anchor": "middle" });
      label.append(...tickLabel(tick, axes.x.log));
      frame.append(label);
    }
    for (const tick of ticks(axes.y)) {
      const py = at.y(tick);
      frame.append(drawn("line", { x1: inner.left, x2: inner.right, y1: py, y2: py, class: "live-grid" }));
      const label = drawn("text", { x: inner.left - 6, y: py + 4, "text-anchor": "end" });
      label.append(...tickLabel(tick, axes.y.log));
      frame.append(label);
    }
    const [cx, cy] = [(inner.left + inner.right) / 2, (inner.top + inner.bottom) / 2];
    frame.append(
      drawn("path", { d: `M${inner.left} ${inner.top}V${inner.bottom}H${inner.right}`, class: "live-axes" }),
      drawn("text", { x: cx, y: height - 6, "text-anchor": "middle" }, axes.x.label),
      drawn("text", { transform: `translate(12 ${cy}) rotate(-90)`, "text-anchor": "middle" }, axes.y.label),
    );
  };
  drawFrame();

  const keep = (key, tag, attributes, text) => {
    let node = kept.get(key);
    if (!node) {
      node = drawn(tag);
      kept.set(key, node);
      data.append(node);
    }
    Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, String(value)));
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const two = (value) => Math.round(value * 100) / 100;

  const plot = {
    svg,
    /** Change the axes' domains. */
    axes(changes) {
      for (const name of ["x", "y"]) axes[name] = { ...axes[name], ...changes[name] };
      drawFrame();
    },
    line(key, /** @type {Points} */ points, style) {
      const d = points.map(([px, py], i) => `${i ? "L" : "M"}${two(at.x(px))} ${two(at.y(py))}`).join("");
      keep(key, "path", { d, ...stroke(style) });
    },
    /** Many dots as one path of round ends: light to draw. */
    dots(key, /** @type {Points} */ points, { stroke: color, size = 5, opacity = 1 }) {
      const d = points.map(([px, py]) => `M${two(at.x(px))} ${two(at.y(py))}h0`).join("");
      keep(key, "path", { d, stroke: color, "stroke-width": size, "stroke-linecap": "round", opacity });
    },
    bars(key, /** @type {Points} */ points, barWidth, { stroke: color, opacity = 1 }) {
      const d = points
        .filter(([, py]) => py > 0)
        .map(([px, py]) => {
          const [left, right, top] = [at.x(px - barWidth / 2), at.x(px + barWidth / 2), at.y(py)].map(two);
          return `M${left} ${inner.bottom}V${top}H${right}V${inner.bottom}Z`;
        })
        .join("");
      keep(key, "path", { d, fill: color, opacity });
    },
    /** A line across the panel, at x or at y. */
    rule(key, { x: atX, y: atY }, style = Live.ink.reference) {
      const d =
        atX === undefined
          ? `M${inner.left} ${two(at.y(atY))}H${inner.right}`
          : `M${two(at.x(atX))} ${inner.top}V${inner.bottom}`;
      keep(key, "path", { d, ...stroke(style) });
    },
    /** A direct label; anchor "start", "middle" or "end", moved by (dx, dy) pixels. */
    text(key, [px, py], text, { stroke: color = "#222832", anchor = "start", dx = 0, dy = 0 } = {}) {
      const [tx, ty] = [at.x(px) + dx, Math.max(inner.top + 10, Math.min(inner.bottom - 4, at.y(py) + dy))];
      keep(key, "text", { x: two(tx), y: two(ty), fill: color, "text-anchor": anchor, class: "live-label" }, text);
    },
    remove(key) {
      kept.get(key)?.remove();
      kept.delete(key);
    },
    /** What a screen reader says in place of the drawing. */
    describe(text) {
      svg.setAttribute("aria-label", text);
    },
    /** Data coordinates of a pointer event. */
    locate(event) {
      const box = svg.getBoundingClientRect();
      const back = ({ domain: [low, high], log }, share) =>
        log ? 10 ** (Math.log10(low) + share * Math.log10(high / low)) : low + share * (high - low);
      const px = ((event.clientX - box.left) / box.width) * width;
      const py = ((event.clientY - box.top) / box.height) * height;
      return [
        back(axes.x, (px - inner.left) / (inner.right - inner.left)),
        back(axes.y, (inner.bottom - py) / (inner.bottom - inner.top)),
      ];
    },
  };
  return plot;
};
