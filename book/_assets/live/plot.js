"use strict";
globalThis.Live ??= {};

// Plots: one SVG each, drawn in the figures' light colours, which the style sheet turns in the dark

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
  sorted: { stroke: "#C52FB3", width: 2 },
};

const drawn = (/** @type {string} */ tag, attributes = {}, text = "") => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, String(value)));
  made.textContent = text;
  return made;
};

/**
 * @typedef {{label: string, domain: [number, number], log?: boolean, ticks?: number[]}} Axis
 * @typedef {[number, number][]} Points  in data coordinates
 */

/**
 * A title may be a key: [what, style] of each curve.
 * @param {HTMLElement} stage
 * @param {{title?: string | [string, object][], x: Axis, y: Axis, width?: number, height?: number}} options
 */
Live.plot = (stage, { title = "", x, y, width = 340, height = 250 }) => {
  const inner = { left: 58, right: width - 14, top: title ? 30 : 10, bottom: height - 42 };
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
      const decades = Math.log10(high) - Math.log10(low);
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
    const exact = Number.isInteger(Number(Math.log10(value).toFixed(9)));
    if (!log || !exact || (value >= 0.1 && value < 1000)) return [drawn("tspan", {}, String(text).replace("-", "−"))];
    const exponent = String(Math.round(Math.log10(value))).replace("-", "−");
    return [drawn("tspan", {}, "10"), drawn("tspan", { dy: -5, "font-size": 11 }, exponent)];
  };

  const entry = (what, { stroke: color, size, dash }, i) => [
    drawn("tspan", { fill: color, ...(i ? { dx: 12 } : {}) }, `${size ? "●" : !dash ? "━" : parseFloat(dash) < 3 ? "···" : "- -"} `),
    drawn("tspan", { class: "live-key" }, what),
  ];
  const drawFrame = () => {
    frame.replaceChildren();
    const heading = drawn("text", { x: typeof title === "string" ? inner.left : 4, y: 15, class: "live-plot-title" });
    if (typeof title === "string") heading.textContent = title;
    else title.forEach(([what, style], i) => heading.append(...entry(what, style, i)));
    frame.append(heading);
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
  const stroke = ({ stroke: color, width: wide = 2, dash = "none", opacity = 1 }) => ({
    ...{ fill: "none", stroke: color, "stroke-width": wide, "stroke-dasharray": dash, opacity },
    ...{ "stroke-linejoin": "round" },
  });
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
    /** Lines apart from each other. */
    segments(key, /** @type {Points[]} */ lines, style) {
      const path = (points) => points.map(([px, py]) => `${two(at.x(px))} ${two(at.y(py))}`).join("L");
      keep(key, "path", { d: lines.map((points) => `M${path(points)}`).join(""), ...stroke(style) });
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
