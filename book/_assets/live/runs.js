"use strict";
globalThis.Live ??= {};

// Many seeds' runs for the figures of stopping epochs: made a few at a time, while the page lives
// on and the picture fills up, and what a rule makes of them.

/** @typedef {"last" | "running" | "global"} Watched  the global loss is that at the epoch's end */
/** @typedef {Record<Watched, number[]>} Run  a number an epoch */

/** How they are called and drawn. */
Live.watched = {
  running: { label: "running loss", ...Live.ink.printed },
  global: { label: "global loss", ...Live.ink.model },
  last: { label: "last batch", ...Live.ink.measured },
};

Live.percent = (/** @type {number} */ share) => `${Number((100 * share).toPrecision(share < 0.1 ? 1 : 2))}%`;

/**
 * One run from w = 0, until `done` says so after an epoch.
 * @param {{order: string, size: number, step: Step, seed: number, done: (run: Run) => boolean}} settings
 * @returns {Run}
 */
Live.run = ({ order, size, step, seed, done }) => {
  const random = Live.random(seed);
  const w = [0, 0, 0];
  const run = { last: [], running: [], global: [] };
  do {
    const { batchLoss, running } = Live.epoch(w, Live.orders[order](size, random), size, step);
    run.last.push(batchLoss[batchLoss.length - 1]);
    run.running.push(running);
    run.global.push(Live.problem.loss(w));
  } while (!done(run));
  return run;
};

/**
 * The runs of the seeds 1 to n, as far as they are made; `redraw` is called when there are more.
 * A setting's runs are kept. But for the first, none is made before the stage has been on screen.
 * @template Setting
 * @param {HTMLElement} stage
 * @param {() => void} redraw
 * @param {(setting: Setting, seed: number) => Run} make
 * @returns {(setting: Setting, n: number) => Run[]}
 */
Live.ensemble = (stage, redraw, make) => {
  const kept = new Map();
  let [seen, timer] = [false, 0];
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen = true;
    observer.disconnect();
    redraw();
  }).observe(stage);
  return (setting, n) => {
    const key = JSON.stringify(setting);
    if (!kept.has(key)) kept.set(key, [make(setting, 1)]);
    const runs = kept.get(key);
    const slice = () => {
      const end = performance.now() + 20;
      do runs.push(make(setting, runs.length + 1));
      while (runs.length < n && performance.now() < end);
      redraw();
    };
    clearTimeout(timer); // another setting's
    if (seen && runs.length < n) timer = setTimeout(slice);
    return runs.slice(0, n);
  };
};

/** After which epoch, from 1, each run has the watched number below epsilon; Infinity: it has not. */
Live.stops = (/** @type {Run[]} */ runs, /** @type {Watched} */ watched, /** @type {number} */ epsilon) =>
  runs.map((run) => {
    const index = run[watched].findIndex((value) => value < epsilon);
    return index < 0 ? Infinity : index + 1;
  });

/** [epoch, number of runs that stop after it], the epochs ascending, without "never". */
Live.counts = (/** @type {number[]} */ stops) => {
  const counts = new Map();
  for (const epoch of [...stops].sort((a, b) => a - b)) counts.set(epoch, (counts.get(epoch) ?? 0) + 1);
  counts.delete(Infinity);
  return [...counts];
};

/**
 * The lottery that would give such stops: the first epoch in which any run wins, and the share that
 * wins of all the runs' epochs from then on, stopped or not. Null if none ever wins.
 */
Live.lottery = (/** @type {Run[]} */ runs, /** @type {Watched} */ watched, /** @type {number} */ epsilon) => {
  const first = Math.min(...Live.stops(runs, watched, epsilon));
  if (first === Infinity) return null;
  const epochs = runs.flatMap((run) => run[watched].slice(first - 1));
  return { first, share: epochs.filter((value) => value < epsilon).length / epochs.length };
};

/**
 * What the thresholds do by which each epoch could be told: the least and the greatest, over the
 * runs, of a number's minimum so far. Between one epoch's greatest and the least of the epoch before
 * lie the thresholds for which all runs stop after that epoch.
 * @returns {{epoch: number, low: number, high: number, unites: [number, number] | null}[]}
 */
Live.stairs = (/** @type {Run[]} */ runs, /** @type {Watched} */ watched) => {
  const lowest = runs.map((run) => {
    let least = Infinity;
    return run[watched].map((value) => (least = Math.min(least, value)));
  });
  const epochs = Math.min(...lowest.map((values) => values.length));
  let before = Infinity;
  return Array.from({ length: epochs }, (_, e) => {
    const [low, high] = [Math.min, Math.max].map((of) => of(...lowest.map((values) => values[e])));
    const unites = high < before ? [high, before] : null;
    before = low;
    return { epoch: e + 1, low, high, unites };
  });
};
