"use strict";
globalThis.Live ??= {};

// The fitting problem and its loops, in double precision, as sgd_analysis has them:
// tests/book/live/ runs both and compares. Weights are [m1, m2, m3], a loss is a mean of squares,
// and indices name the samples in the order in which they are visited.

/** @typedef {number[]} Vector  of length 3 */
/** @typedef {() => number} Random  uniform in [0, 1) */
/** @typedef {(w: Vector, gradient: Vector) => void} Step  moves w */

Live.problem = (() => {
  // As numpy.arange(-10, 10, 0.01, dtype="f") counts: in single precision.
  const n = 2000;
  const spacing = Math.fround(Math.fround(-9.99) + 10);
  const x = Float64Array.from({ length: n }, (_, i) => Math.fround(-10 + Math.fround(i * spacing)));
  const truth = [0.3, -1.7, 2.5];
  const y = x.map((value) => truth[0] * value * value + truth[1] * value + truth[2]);

  /**
   * Half the Hessian of the mean over some samples: the mean of (x², x, 1)ᵀ (x², x, 1).
   * @param {ArrayLike<number>} indices
   * @returns {number[][]}
   */
  function moments(indices, from = 0, to = indices.length) {
    const sums = [0, 0, 0, 0, 0];
    for (let k = from; k < to; k++) {
      let power = 1;
      for (let degree = 0; degree < 5; degree++, power *= x[indices[k]]) sums[degree] += power;
    }
    const mean = sums.map((sum) => sum / (to - from));
    return [2, 1, 0].map((row) => [2, 1, 0].map((column) => mean[row + column]));
  }

  const all = moments(Int32Array.from(x, (_, i) => i));
  return {
    n,
    x,
    y,
    truth,
    moments,
    /** Of all samples, at w: from the distance to the true weights, whose targets are exact. */
    loss: (/** @type {Vector} */ w) => {
      const delta = w.map((value, i) => value - truth[i]);
      return Live.form(all, delta, delta);
    },
    /** @returns {{loss: number, gradient: Vector}} of the samples indices[from:to], at w */
    batch(/** @type {Vector} */ w, /** @type {ArrayLike<number>} */ indices, from = 0, to = indices.length) {
      const [a, b, c] = w;
      let [loss, g1, g2, g3] = [0, 0, 0, 0];
      for (let k = from; k < to; k++) {
        const at = x[indices[k]];
        const residual = (a * at + b) * at + c - y[indices[k]];
        loss += residual * residual;
        g1 += residual * at * at;
        g2 += residual * at;
        g3 += residual;
      }
      const size = to - from;
      const twice = 2 / size;
      return { loss: loss / size, gradient: [twice * g1, twice * g2, twice * g3] };
    },
    /** Eigenvalues of all samples' Hessian, the smallest first, and their unit vectors. */
    get spectrum() {
      const { values, vectors } = Live.eigen(all);
      return { values: values.map((value) => 2 * value), vectors };
    },
    /** The largest eigenvalue of the Hessian of the samples indices[from:to]. */
    steepness: (/** @type {ArrayLike<number>} */ indices, from = 0, to = indices.length) =>
      2 * Live.eigen(moments(indices, from, to)).values[2],
  };
})();

/** uᵀ A v */
Live.form = (A, u, v) => A.reduce((sum, row, i) => sum + u[i] * row.reduce((s, a, j) => s + a * v[j], 0), 0);

/**
 * Eigenvalues of a symmetric matrix, the smallest first, and unit vectors, by Jacobi's rotations.
 * @param {number[][]} matrix
 */
Live.eigen = (matrix) => {
  const size = matrix.length;
  const A = matrix.map((row) => [...row]);
  const V = A.map((_, i) => A.map((_, j) => Number(i === j)));
  for (let turned = true; turned; ) {
    turned = false;
    for (let p = 0; p < size; p++) {
      for (let q = p + 1; q < size; q++) {
        if (!(Math.abs(A[p][q]) > 1e-17 * Math.hypot(A[p][p], A[q][q]))) continue;
        turned = true;
        const theta = (A[q][q] - A[p][p]) / (2 * A[p][q]);
        const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(1, theta));
        const [c, s] = [1 / Math.hypot(1, t), t / Math.hypot(1, t)];
        for (const M of [A, V]) {
          for (let k = 0; k < size; k++) [M[k][p], M[k][q]] = [c * M[k][p] - s * M[k][q], s * M[k][p] + c * M[k][q]];
        }
        for (let k = 0; k < size; k++) [A[p][k], A[q][k]] = [c * A[p][k] - s * A[q][k], s * A[p][k] + c * A[q][k]];
      }
    }
  }
  const ascending = A.map((_, i) => i).sort((i, j) => A[i][i] - A[j][j]);
  return { values: ascending.map((i) => A[i][i]), vectors: ascending.map((i) => V.map((row) => row[i])) };
};

/**
 * Numbers that a seed decides (Bob Jenkins's small fast counter, 32 bits).
 * @param {number} seed
 * @returns {Random}
 */
Live.random = (seed) => {
  let [a, b, c, counter] = [0x9e3779b9, seed | 0, 0x85ebca6b, 1];
  const next = () => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return sum >>> 0;
  };
  for (let i = 0; i < 16; i++) next();
  return () => next() / 2 ** 32;
};

/** Orders of the samples: each gives the indices of one epoch. `size` is that of a batch. */
Live.orders = (() => {
  const { n } = Live.problem;
  const range = Int32Array.from({ length: n }, (_, i) => i);
  /** The sorted batches of `size`, the b-th of m being the one that place(b, m) names. */
  const blocks = (/** @type {number} */ size, place) => {
    const m = Math.ceil(n / size);
    const indices = [];
    for (let b = 0; b < m; b++) {
      const first = place(b, m) * size;
      for (let i = first; i < Math.min(first + size, n); i++) indices.push(i);
    }
    return Int32Array.from(indices);
  };
  return {
    sorted: () => range,
    /** The sorted batches from the middle down to the first, then from the middle on. */
    middle: (/** @type {number} */ size) => blocks(size, (b, m) => (b < m >> 1 ? (m >> 1) - 1 - b : b)),
    /** The sorted batches up, and in the next epoch down. `epoch` counts from 1. */
    back: (/** @type {number} */ size, _random, /** @type {number} */ epoch) =>
      epoch % 2 ? range : blocks(size, (b, m) => m - 1 - b),
    /** Batch b takes every m-th sample, from sample b on; `size` divides n. */
    strided: (/** @type {number} */ size) => {
      const m = n / size;
      return range.map((k) => (k % size) * m + Math.floor(k / size));
    },
    shuffled: (_size, /** @type {Random} */ random) => {
      const indices = range.slice();
      for (let i = n - 1; i > 0; i--) {
        const j = Math.floor(random() * (i + 1));
        [indices[i], indices[j]] = [indices[j], indices[i]];
      }
      return indices;
    },
    /** Each place takes a random one of a buffer of `held` samples, which refills in sorted order. */
    buffer: (_size, /** @type {Random} */ random, _epoch, /** @type {number} */ held) => {
      const waiting = [...range.subarray(0, held)];
      return range.map((k) => {
        const j = Math.floor(random() * waiting.length);
        const drawn = waiting[j];
        if (k + held < n) waiting[j] = k + held;
        else waiting.splice(j, 1);
        return drawn;
      });
    },
    replacement: (_size, /** @type {Random} */ random) => range.map(() => Math.floor(random() * n)),
  };
})();

/** Optimizers with PyTorch's defaults, one state each. @type {Record<string, (...settings: number[]) => Step>} */
Live.optimizers = {
  sgd: (eta, beta = 0) => {
    const p = [0, 0, 0];
    return (w, g) => {
      for (let i = 0; i < 3; i++) w[i] -= eta * (p[i] = beta * p[i] + g[i]);
    };
  },
  rmsprop: (eta, alpha = 0.99) => {
    const u = [0, 0, 0];
    return (w, g) => {
      for (let i = 0; i < 3; i++) {
        u[i] = alpha * u[i] + (1 - alpha) * g[i] * g[i];
        w[i] -= (eta * g[i]) / (Math.sqrt(u[i]) + 1e-8);
      }
    };
  },
  adam: (eta, beta1 = 0.9, beta2 = 0.999) => {
    const [p, u] = [[0, 0, 0], [0, 0, 0]];
    let k = 0;
    return (w, g) => {
      k += 1;
      w.forEach((_, i) => {
        p[i] = beta1 * p[i] + (1 - beta1) * g[i];
        u[i] = beta2 * u[i] + (1 - beta2) * g[i] ** 2;
        w[i] -= (eta * p[i]) / (1 - beta1 ** k) / (Math.sqrt(u[i] / (1 - beta2 ** k)) + 1e-8);
      });
    };
  },
};

/**
 * One epoch: moves w, and says what its batches had before their own updates.
 * @param {Vector} w
 * @param {ArrayLike<number>} indices
 * @param {number} size
 * @param {Step} step
 * @param {(w: Vector, b: number) => void} [watch]  sees the weights after each step b = 1, 2, …
 * @returns {{batchLoss: Float64Array, running: number}}
 */
Live.epoch = (w, indices, size, step, watch) => {
  const n = indices.length;
  const batchLoss = new Float64Array(Math.ceil(n / size));
  let sum = 0;
  for (let b = 0; b < batchLoss.length; b++) {
    const [from, to] = [b * size, Math.min((b + 1) * size, n)];
    const { loss, gradient } = Live.problem.batch(w, indices, from, to);
    batchLoss[b] = loss;
    sum += loss * (to - from);
    step(w, gradient);
    watch?.(w, b + 1);
  }
  return { batchLoss, running: sum / n };
};
