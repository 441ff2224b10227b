"use strict";

// One epoch, step by step: its batches, the parabola that they swing, and the two losses.

Live.define("epoch", (() => {
  const { number, ink, problem } = Live;
  const [SIZE, EPOCHS, STEP_SIZE] = [10, 48, 0.0002];
  const STEPS = problem.n / SIZE;
  const orders = {
    sorted: "sorted",
    middle: "from the middle",
    back: "there and back",
    strided: "strided",
    shuffled: "shuffled",
    buffer: "buffer of K",
  };
  const held = Object.fromEntries([2, 10, 50, 200, 500, 1000, 2000].map((k) => [k, k]));
  const named = (state) => orders[state.order].replace("K", state.held);

  /** What was computed last is kept, as long as the same is asked for. */
  const remember = (compute) => {
    let [asked, result] = ["", null];
    return (...given) => {
      if (asked !== String(given)) [asked, result] = [String(given), compute(...given)];
      return result;
    };
  };
  /** The samples' order in each epoch, and the weights before it; at the end, those after the last. */
  const run = remember((order, held, eta) => {
    const [random, step, w] = [Live.random(1), Live.optimizers.sgd(eta), [0, 0, 0]];
    const visits = Array.from({ length: EPOCHS }, (_, e) => Live.orders[order](SIZE, random, e + 1, Number(held)));
    const starts = visits.map((indices) => {
      const before = [...w];
      Live.epoch(w, indices, SIZE, step);
      return before;
    });
    return { visits, starts: [...starts, w] };
  });
  const curvatures = remember((order, held, epoch) => {
    const indices = run(order, held, STEP_SIZE).visits[epoch - 1];
    return Array.from({ length: STEPS }, (_, b) => problem.steepness(indices, b * SIZE, (b + 1) * SIZE));
  });
  /** Losses and weights of one epoch: [k] after k steps. */
  const within = remember((order, held, eta, epoch) => {
    const { visits, starts } = run(order, held, eta);
    const [indices, w] = [visits[epoch - 1], [...starts[epoch - 1]]];
    const weights = [[...w]];
    const { batchLoss } = Live.epoch(w, indices, SIZE, Live.optimizers.sgd(eta), () => weights.push([...w]));
    let sum = 0;
    const printed = Array.from(batchLoss, (loss, b) => (sum += loss) / (b + 1));
    const model = weights.map((at) => problem.loss(at));
    const runsAway = !(problem.loss(starts[EPOCHS]) < problem.loss(starts[0]));
    return { indices, weights, batchLoss, printed, model, runsAway };
  });

  const height = (w, at) => (w[0] * at + w[1]) * at + w[2];
  const across = Array.from({ length: 401 }, (_, i) => -10 + i / 20);
  const curve = (w) => across.map((at) => [at, height(w, at)]);
  const whole = { min: 1, step: 1, write: String };

  return {
    defaults: { order: "sorted", held: "2", eta: STEP_SIZE, epoch: EPOCHS, step: STEPS },
    compact: ["order", "held", "step"],
    controls: [
      Live.choice("order", "Order", orders),
      { ...Live.choice("held", "K, samples held", held), when: ({ order }) => order === "buffer" },
      Live.range("eta", "Step size η", { min: STEP_SIZE / 10, max: 1.2 * STEP_SIZE, log: true, write: String }),
      Live.range("epoch", "Epoch", { ...whole, max: EPOCHS }),
      Live.player("step", "Step", { ...whole, min: 0, max: STEPS }),
    ],
    build(stage, _state, { compact }) {
      const batch = { ...ink.printed, size: 7 };
      const fit = Live.plot(stage, {
        title: [["the data", ink.backdrop], ["the model", ink.model], ["this batch", batch]],
        x: { label: "x", domain: [-10, 10] },
        y: { label: "y", domain: [-40, 80] },
      });
      fit.line("data", curve(problem.truth), ink.backdrop);
      const steps = { label: "step of the epoch", domain: [0, STEPS] };
      const losses = Live.plot(stage, {
        title: [["a batch's loss", batch], ["printed so far", ink.printed], ["the model's", ink.model]],
        x: steps,
        y: { label: "loss", domain: [1e-4, 1e12], log: true },
      });
      const bowls = compact ? null : Live.plot(stage, {
        title: [["ηλ of a batch", ink.measured], ["above 2 errors can grow", ink.reference]],
        x: steps,
        y: { label: "ηλ", domain: [0, 5] },
        height: 180,
      });

      return (state) => {
        const { order, held, eta, epoch, step } = state;
        const { indices, weights, batchLoss, printed, model, runsAway } = within(order, held, eta, epoch);
        const w = weights[step];
        const now = Array.from(indices.subarray((step - 1) * SIZE, step * SIZE), (i) => [problem.x[i], problem.y[i]]);

        fit.line("model", curve(w), ink.model);
        fit.dots("batch", step ? now : [], batch);
        const end = Math.abs(height(w, 10) - 20) > Math.abs(height(w, -10) - 20) ? 10 : -10;
        const reached = height(w, end);
        const far = Math.abs(reached - 20) > 60 ? `at x = ${end}: ${number(reached)}`.replace("-", "−") : "";
        fit.text("far", [0, reached > 20 ? -40 : 80], far && `the model ${far}`, { anchor: "middle", dy: reached > 20 ? -8 : 14 });

        const highest = Math.max(1e12, ...batchLoss, ...model.filter((loss) => loss > 0));
        losses.axes({ y: { domain: [1e-4, 10 ** Math.min(308, 4 * Math.ceil(Math.log10(highest) / 4))] } });
        losses.dots("batches", Array.from(batchLoss.subarray(0, step), (loss, b) => [b + 1, loss]), { ...batch, size: 3.5, opacity: 0.35 });
        losses.line("model", model.slice(0, step + 1).map((loss, k) => [k, loss]), ink.model);
        losses.line("printed", printed.slice(0, step).map((loss, b) => [b + 1, loss]), ink.printed);

        const lambda = bowls && curvatures(order, held, epoch);
        if (bowls) {
          bowls.rule("limit", { y: 2 });
          bowls.line("all", lambda.map((value, b) => [b + 1, eta * value]), ink.measured);
          bowls.dots("now", step ? [[step, eta * lambda[step - 1]]] : [], { ...ink.measured, size: 9 });
        }

        fit.describe(`The data, a parabola, and the model's${far && `, which leaves the panel: ${far}`}.`);
        losses.describe("Loss, on a logarithmic axis, against the step of the epoch: the batches', what is printed so far, and the model's.");
        bowls?.describe("Step size times curvature of each batch, against the step, with the limit of 2.");
        const done = step === STEPS;
        const when = done ? `After epoch ${epoch}` : `After step ${step} of epoch ${epoch}`;
        const says = step ? `the loop ${done ? "prints" : "would print"} ${number(printed[step - 1])}; its` : "nothing is printed yet; the";
        return `${when} (${named(state)}): ${says} model has ${number(model[step])}.${runsAway ? " Epoch after epoch, the weights run away." : ""}`;
      };
    },
  };
})());
