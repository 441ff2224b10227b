"use strict";

// Chapter 5: RMSprop in batches of ten stops by a lottery. Each seed is a ticket.
{
  const EPOCHS = 50;
  const MOST = 1000; // seeds
  const FEW = 20; // fewer do not tell the odds

  const own = { stroke: "#000000", size: 8 };

  const plural = (n, unit) => (n === 1 ? `one ${unit}` : `${n} ${unit}s`);

  const make = (eta, seed) =>
    Live.run({
      ...{ order: "shuffled", size: 10, seed },
      step: Live.optimizers.rmsprop(eta),
      done: ({ last }) => last.length === EPOCHS,
    });

  const aboutOne = (seed, run, stop, { rule, more }) => {
    if (stop === Infinity) return `Seed ${seed} did not stop within ${EPOCHS} epochs.`;
    const { label } = Live.watched[rule];
    const has = (epoch) => Live.number(run[rule][epoch - 1]);
    const later = Math.min(more, EPOCHS - stop);
    const then = later ? `; ${plural(later, "epoch")} later it is ${has(stop + later)}` : "";
    return `Seed ${seed} stopped after epoch ${stop}, its ${label} at ${has(stop)}${then}.`;
  };

  const aboutAll = (stops, lottery) => {
    const n = stops.length;
    const never = stops.filter((stop) => stop === Infinity).length;
    if (n === 1) return "";
    const half = [...stops].sort((a, b) => a - b)[Math.ceil(n / 2) - 1];
    const within = never ? `; ${never} did not stop within ${EPOCHS}` : `, all within ${EPOCHS}`;
    const most = half === Infinity ? `${n - never} stopped within ${EPOCHS} epochs` : `half stopped by epoch ${half}${within}`;
    const odds = lottery ? ` From epoch ${lottery.first} on, an epoch wins with a probability of ${Live.percent(lottery.share)}.` : "";
    return ` Of ${n} seeds ${most}.${odds}`;
  };

  const drawRun = (plot, run, stop, { epsilon, rule, more }) => {
    const shown = Math.min(EPOCHS, stop + more);
    const points = run[rule].slice(0, shown).map((value, i) => [i + 1, value]);
    const { label, stroke } = Live.watched[rule];
    plot.axes({ y: { label: rule === "last" ? "loss of the last batch" : label } });
    plot.line("running", run.running.slice(0, shown).map((value, i) => [i + 1, value]), Live.ink.printed);
    const side = shown > 25 ? "end" : "start";
    plot.text("name", [shown, run.running[shown - 1]], "running loss", { stroke: Live.ink.printed.stroke, anchor: side, dy: -8 });
    plot.rule("threshold", { y: epsilon });
    plot.text("epsilon", [EPOCHS, epsilon], "ε", { anchor: "end", dy: -5 });
    plot.dots("before", points.slice(0, stop), { stroke });
    plot.dots("after", points.slice(stop), { stroke, opacity: 0.55 });
    plot.dots("stop", stop === Infinity ? [] : [points[stop - 1]], { stroke, size: 11 });
    plot.describe(`Against the epoch, from 1 to ${shown}, ${label}, running loss and threshold, on a logarithmic axis.`);
  };

  const drawAll = (plot, stops, lottery) => {
    const n = stops.length;
    const counts = Live.counts(stops);
    const law = ({ first, share }) =>
      Array.from({ length: EPOCHS + 1 - first }, (_, k) => [first + k, n * share * (1 - share) ** k]);
    const predicted = lottery ? law(lottery) : [];
    const top = Math.max(4, ...[...counts, ...predicted].map(([, number]) => number));
    plot.axes({ y: { domain: [0, top * 1.15] } });
    plot.bars("stops", counts, 0.85, Live.ink.measured);
    plot.line("predicted", predicted, Live.ink.predicted);
    plot.rule("source", { x: 23 });
    plot.text("source name", [23, top * 1.15], "23", { dx: 4 });
    const last = stops[n - 1];
    plot.dots("own", last === Infinity ? [] : [[last, counts.find(([epoch]) => epoch === last)[1]]], own);
    const never = stops.filter((stop) => stop === Infinity).length;
    plot.text("never", [EPOCHS, top], never ? `${never} never` : "", { anchor: "end", dy: 8 });
    plot.describe(`How many of ${n} seeds stopped after each epoch, from 1 to ${EPOCHS}; 23 is marked.`);
  };

  Live.define("ticket", {
    make,
    defaults: { seeds: 1, more: 0, rule: "last", epsilon: 1e-7, eta: 0.01 },
    controls: [
      Live.action("Next seed", ({ seeds }) => ({ seeds: Math.min(MOST, seeds + 1), more: 0 }), { key: "seeds", min: 1, max: MOST }),
      Live.action("100 seeds more", ({ seeds }) => ({ seeds: Math.min(MOST, seeds + 100), more: 0 })),
      Live.action("One more epoch", ({ more }) => ({ more: Math.min(EPOCHS, more + 1) }), { key: "more", min: 0, max: EPOCHS }),
      Live.choice("rule", "The rule looks at", { last: "the last batch", running: "the running loss", global: "the global loss" }),
      Live.range("epsilon", "Threshold ε", { min: 1e-10, max: 1e-2, log: true }),
      Live.range("eta", "Step size η", { min: 0.001, max: 0.1, log: true }),
    ],
    build(stage, _state, { redraw }) {
      const x = { label: "epoch", domain: [0, EPOCHS + 1] };
      const key = [["seeds so far", Live.ink.measured], ["this seed", own], ["a lottery", Live.ink.predicted]];
      const one = Live.plot(stage, { title: "This seed", x, y: { label: "", domain: [1e-12, 1e2], log: true } });
      const all = Live.plot(stage, { title: key, x: { ...x, label: "stopping epoch" }, y: { label: "runs", domain: [0, 4] } });
      const ensemble = Live.ensemble(stage, redraw, make);
      return (state) => {
        const runs = ensemble(state.eta, state.seeds);
        const stops = Live.stops(runs, state.rule, state.epsilon);
        const lottery = runs.length < FEW ? null : Live.lottery(runs, state.rule, state.epsilon);
        const [run, stop] = [runs.at(-1), stops.at(-1)];
        drawRun(one, run, stop, state);
        drawAll(all, stops, lottery);
        return aboutOne(runs.length, run, stop, state) + aboutAll(stops, lottery);
      };
    },
  });
}
