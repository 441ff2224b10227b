"use strict";

// Chapter 7: when three numbers say stop, and by how much that depends on the threshold.
{
  const [LOW, HIGH] = [0.05, 0.2]; // thresholds
  const STEPS = 11600; // enough for all three numbers to come below LOW

  /** Runs go on until each number has been below the lowest threshold. */
  const make = ({ size, order }, seed) =>
    Live.run({
      ...{ order, size, seed },
      step: Live.optimizers.sgd(0.0002),
      done: (run) => Object.values(run).every((values) => values.some((value) => value < LOW)),
    });

  const epochsOf = (/** @type {number} */ size) => Math.ceil((STEPS * size) / Live.problem.n) + 2;

  const when = (/** @type {[number, number][]} */ counts) => {
    const [[first, most]] = counts;
    const last = counts[counts.length - 1][0];
    if (counts.length === 1) return `all ${most} runs stop after epoch ${first}`;
    if (last === first + 1) return `${most} runs stop after epoch ${first}, ${counts[1][1]} after ${last}`;
    return `runs stop after epochs ${first} to ${last}`;
  };

  /** The share of the models, as a rule leaves them, whose own loss is not below epsilon. */
  const above = (runs, stops, epsilon) =>
    runs.filter((run, s) => run.global[stops[s] - 1] >= epsilon).length / runs.length;

  const drawStops = (plot, watched, counts, { size, n }) => {
    const top = Math.max(...counts.map(([, number]) => number));
    plot.axes({ x: { domain: [0, epochsOf(size) + 1] }, y: { domain: [0, top * 1.1], ticks: [0, top] } });
    plot.bars("stops", counts, 0.9, Live.watched[watched]);
    plot.describe(`By the ${Live.watched[watched].label}, of ${n} runs ${when(counts)}.`);
  };

  const drawStairs = (plot, stairs, epsilon) => {
    const shown = stairs.filter(({ low, high }) => high > LOW && low < HIGH);
    const [first, last] = [shown[0].epoch - 1, shown[shown.length - 1].epoch + 1];
    plot.axes({ y: { domain: [first, last] } });
    const across = ([low, high], epoch) => [[low, epoch], [high, epoch]];
    const bands = shown.filter(({ unites }) => unites).map(({ unites }) => across(unites, (first + last) / 2));
    plot.segments("unites", bands, { ...Live.ink.measured, width: 999, opacity: 0.3 });
    const bars = shown.map(({ low, high, epoch }) => across([low, high], epoch));
    plot.segments("bars", bars, { ...Live.ink.printed, width: 4 });
    plot.rule("threshold", { x: epsilon });
    plot.text("epsilon", [epsilon, last], "ε", { dx: 4 });
    plot.describe(
      `Epochs ${first + 1} to ${last - 1}, and from where to where the runs' running losses reach after each; ` +
        "bands mark the thresholds for which all runs stop after the same epoch.",
    );
  };

  /** The share of the thresholds, on a logarithmic scale, for which all runs stop together. */
  const agreeing = (stairs) => {
    const within = (value) => Math.log(Math.min(HIGH, Math.max(LOW, value)));
    const lengths = stairs.map(({ unites }) => (unites ? within(unites[1]) - within(unites[0]) : 0));
    return lengths.reduce((sum, length) => sum + length) / Math.log(HIGH / LOW);
  };

  const say = (runs, stops, counts, epsilon, share) => {
    const left = (watched) => Live.percent(above(runs, stops[watched], epsilon));
    return (
      `By the running loss ${when(counts.running)}; ${left("running")} of these models have a global loss above ` +
      `${Live.number(epsilon)}, and ${left("last")} of those that the last batch stops. ` +
      `The running loss unites all ${runs.length} seeds for ${Live.percent(share)} of these thresholds.`
    );
  };

  Live.define("threshold", {
    make,
    defaults: { epsilon: 0.1, size: "10", seeds: "64", order: "shuffled" },
    controls: [
      Live.range("epsilon", "Threshold ε", { min: LOW, max: HIGH, log: true }),
      Live.choice("size", "Batch size", { 2: "2", 5: "5", 10: "10", 20: "20" }),
      Live.choice("seeds", "Seeds", { 16: "16", 64: "64", 128: "128" }),
      Live.choice("order", "Order", { shuffled: "shuffled", replacement: "with replacement" }),
    ],
    build(stage, _state, { redraw, changed }) {
      const epoch = { label: "", domain: [0, 1] };
      const stairs = Live.plot(stage, {
        title: "Green: thresholds that unite all seeds",
        x: { label: "running loss, threshold ε", domain: [LOW, HIGH], log: true, ticks: [0.05, 0.1, 0.2] },
        y: { ...epoch, label: "epoch" },
        height: 360,
      });
      const column = stage.appendChild(document.createElement("div"));
      const panels = Object.entries(Live.watched).map(([watched, { label }], i) => {
        const x = { ...epoch, label: i === 2 ? "epoch after which a run stops" : "" };
        return [watched, Live.plot(column, { title: `Stops by the ${label}`, x, y: { ...epoch, label: "runs" }, height: 120 })];
      });
      const drag = (event) => {
        const [at] = stairs.locate(event);
        changed({ epsilon: Number(Math.min(HIGH, Math.max(LOW, at)).toPrecision(3)) });
      };
      stairs.svg.style.cursor = "ew-resize";
      let start = 0;
      stairs.svg.addEventListener("pointerdown", (event) => {
        stairs.svg.setPointerCapture(event.pointerId);
        start = event.clientX;
      });
      stairs.svg.addEventListener("pointermove", (event) => {
        if (!event.buttons || Math.abs(event.clientX - start) < 8) return; // may be a finger that scrolls
        start = NaN;
        drag(event);
      });
      stairs.svg.addEventListener("click", drag);

      const ensemble = Live.ensemble(stage, redraw, make);
      return ({ epsilon, size, seeds, order }) => {
        const runs = ensemble({ size: Number(size), order }, Number(seeds));
        const stops = {};
        const counts = {};
        for (const [watched, plot] of panels) {
          stops[watched] = Live.stops(runs, watched, epsilon);
          counts[watched] = Live.counts(stops[watched]);
          drawStops(plot, watched, counts[watched], { size: Number(size), n: runs.length });
        }
        const steps = Live.stairs(runs, "running");
        drawStairs(stairs, steps, epsilon);
        return say(runs, stops, counts, epsilon, agreeing(steps));
      };
    },
  });
}
