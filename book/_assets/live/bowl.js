"use strict";

// The bowl (chapter 2): all samples in every step, from w = 0. The path on the contour lines of the
// global loss in the plane of m1 and m3, and the coordinates of the error along the eigenvectors.
(() => {
  const { truth, spectrum, loss } = Live.problem;
  const H = (/** @type {number[]} */ delta) => {
    const inner = spectrum.vectors.map((v, i) => spectrum.values[i] * dot(v, delta));
    return delta.map((_, j) => inner.reduce((sum, a, i) => sum + a * spectrum.vectors[i][j], 0));
  };
  const dot = (u, v) => u.reduce((sum, a, i) => sum + a * v[i], 0);
  const LAST = 10000;
  const stepAt = (/** @type {number} */ at) => Math.round(10 ** (at / 25)); // 0 … 100 → 1 … 10,000
  const adaptive = ({ optimizer }) => optimizer === "rmsprop" || optimizer === "adam";
  const write = (/** @type {number} */ eta) => eta.toFixed(5).replace(/\.?0+$/, "");
  const names = { gd: "Gradient descent", momentum: "Momentum", rmsprop: "RMSprop", adam: "Adam" };
  const begin = ({ optimizer, eta, stride, beta }) =>
    ({
      gd: () => Live.optimizers.sgd(eta),
      momentum: () => Live.optimizers.sgd(eta, beta),
      rmsprop: () => Live.optimizers.rmsprop(stride),
      adam: () => Live.optimizers.adam(stride),
    })[optimizer]();

  /** The weights before the first step and after each. */
  const path = (state, n) => {
    const step = begin(state);
    const w = [0, 0, 0];
    const seen = [[...w]];
    for (let k = 0; k < n && w.every((value) => Math.abs(value) < 1e8); k++) {
      step(w, H(w.map((value, i) => value - truth[i])));
      seen.push([...w]);
    }
    return seen;
  };
  Live.bowl = { path, stepAt };

  /** The ellipse on which the loss is `level`, m2 being right. */
  const contour = (/** @type {number} */ level) => {
    const [[a, , b], , [, , c]] = Live.problem.moments(Int32Array.from({ length: Live.problem.n }, (_, i) => i));
    const { values, vectors } = Live.eigen([[a, b], [b, c]]);
    return Array.from({ length: 181 }, (_, i) => {
      const angle = (i * Math.PI) / 90;
      const [p, q] = [Math.cos(angle) * Math.sqrt(level / values[0]), Math.sin(angle) * Math.sqrt(level / values[1])];
      return /** @type {[number, number]} */ ([
        truth[0] + p * vectors[0][0] + q * vectors[1][0],
        truth[2] + p * vectors[0][1] + q * vectors[1][1],
      ]);
    });
  };

  /** Steps to draw: every one at first, then ever fewer. */
  const shown = (/** @type {number} */ n) => {
    const steps = new Set([0]);
    for (let k = 1; k <= n; k = Math.max(k + 1, Math.floor(k * 1.015))) steps.add(k);
    return [...steps.add(n)];
  };

  const regime = (/** @type {number} */ factor) =>
    factor > 2 ? "grows" : factor > 1 ? "rings, and fades" : "fades without ringing";

  Live.define("bowl", {
    defaults: { optimizer: "gd", eta: 0.0002, stride: 0.01, beta: 0.9, at: 87 },
    controls: [
      Live.choice("optimizer", "Optimizer", names),
      { ...Live.range("eta", "Step size η", { min: 0.00001, max: 0.0006, log: true, write }), when: (state) => !adaptive(state) },
      { ...Live.range("stride", "Step size η", { min: 0.0001, max: 1, log: true, write }), when: adaptive },
      { ...Live.range("beta", "Momentum β", { min: 0, max: 0.99, step: 0.01 }), when: ({ optimizer }) => optimizer === "momentum" },
      Live.player("at", "Step", { min: 0, max: 100, every: 120, write: (at) => Live.number(stepAt(at)) }),
    ],
    build(stage) {
      const minimum = { ...Live.ink.predicted, size: 6 };
      const level = { stroke: "#808080", width: 1, opacity: 0.6 };
      const bowl = Live.plot(stage, {
        title: [["loss: 0.01, 0.1, 1, 10, 100", level], ["minimum", minimum]],
        x: { label: "weight m₁", domain: [-0.1, 0.7] },
        y: { label: "weight m₃", domain: [-0.4, 3] },
        height: 290,
      });
      // Values of one parameter: the shades of book/matplotlibrc.
      const modeInk = [{ stroke: "#2F9A72" }, { stroke: "#0F4733", dash: "6 3" }, { stroke: "#1F6E51", dash: "8 3 2 3" }];
      const modes = Live.plot(stage, {
        title: spectrum.values.map((value, i) => [`λ ≈ ${Live.number(value)}`, modeInk[i]]),
        x: { label: "step", domain: [1, LAST], log: true },
        y: { label: "error along each eigenvector", domain: [1e-6, 100], log: true },
        height: 290,
      });
      [-2, -1, 0, 1, 2].forEach((power) => {
        bowl.line(`level ${power}`, contour(10 ** power), level);
      });
      return (state) => {
        const k = stepAt(state.at);
        const seen = path(state, LAST);
        const now = Math.min(k, seen.length - 1);
        const ink = Live.ink[state.optimizer];
        const points = shown(now).map((i) => /** @type {[number, number]} */ ([seen[i][0], seen[i][2]]));
        bowl.line("path", points, { ...ink, dash: "none", width: 1.3 });
        bowl.dots("steps", points, { ...ink, size: 4 });
        bowl.dots("now", [points.at(-1)], { ...Live.ink.model, size: 9 });
        bowl.dots("goal", [[truth[0], truth[2]]], minimum);
        const coordinates = seen.map((w) => {
          const delta = w.map((value, i) => value - truth[i]);
          return spectrum.vectors.map((v) => Math.abs(dot(v, delta)));
        });
        const steps = shown(seen.length - 1).slice(1);
        spectrum.values.forEach((value, i) => {
          modes.line(`mode ${i}`, steps.map((s) => [s, Math.max(1e-9, coordinates[s][i])]), modeInk[i]);
        });
        modes.rule("now", { x: Math.max(1, now) });
        const there = loss(seen[now]);
        const method = `${names[state.optimizer]} has a global loss of ${Live.number(there)} after step ${Live.number(now)}${now < k ? ", where it is stopped" : ""}.`;
        const text = adaptive(state)
          ? `${method} At first it takes all weights by about the same stride, however flat the direction.`
          : state.optimizer === "momentum"
            ? `${method} The steepest direction has ηλ = ${Live.number(state.eta * spectrum.values[2])}; its limit is now 2(1 + β) = ${Live.number(2 + 2 * state.beta)}.`
            : `${method} Along the steepest direction ηλ is ${Live.number(state.eta * spectrum.values[2])}: the error ${regime(state.eta * spectrum.values[2])}. Along the flattest it is ${Live.number(state.eta * spectrum.values[0])}: there the steps creep.`;
        bowl.describe(`Contour lines of the loss, long ellipses, and the path of ${names[state.optimizer]} on them. ${text}`);
        modes.describe("The distance from the minimum along the three eigenvectors, against the step, both axes logarithmic.");
        return text;
      };
    },
  });
})();
