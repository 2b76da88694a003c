// The exact gradient of a group's discrete solutions: from the last step of each piece to its first; part of ode.cpp.
//
// With k_j = f(Y_j), Y_j = u + h sum_m a_jm k_m and save points u + h sum_j P_j(theta) k_j this is backpropagation
// through the solver with its step sizes held fixed.

#pragma once

#include "solution.h"

namespace {

struct Adjoint {
    Field& field;
    const Solution& from;
    const Cotangents& to;
    const Int group;
    const Range range;
    const Int n, np;

    Adjoint(Field& f, Int pieces, const Solution& solution, const Cotangents& cotangents, Int number)
        : field(f), from(solution), to(cotangents), group(number), range(number, pieces), n(f.n), np(f.np) {}

    // The cotangents of the states of a quadratic loss.
    void misfit(const Int* saves) const {
        for (Int s = saves[range.begin]; s < saves[range.end]; s++)
            for (Int i = 0; i < n; i++) {
                const Int at = s * n + i;
                const double residual = (from.states[at] - to.data[at]) / to.scale[i];
                to.states[at] = to.weights[at] * residual * to.factor / to.scale[i];
            }
    }

    struct Walker {
        Int piece;
        Step* step;
        double *running;     // cotangent of the state at the step's end, later at its start
        double *direct, *g;  // of its save points, by u; of a stage's state
        double *k[SLOPES];   // cotangents of the slopes; the last is the first of the step after
        double *common, *delta;
    };

    void begin(Walker& w, Int piece) const {
        w.piece = piece;
        w.step = from.last[piece];
        zero(w.running, np);
        zero(w.k[0], np);
    }

    void begin_step(Walker& w) const {
        double* carried = w.k[0];
        w.k[0] = w.k[SLOPES - 1];
        w.k[SLOPES - 1] = carried;
        for (int j = 0; j < SLOPES - 1; j++) zero(w.k[j], np);
        zero(w.direct, np);
        for (Int s = w.step->first; s < w.step->last; s++) {
            double weight[SLOPES];
            dense_weights(from.theta[s], weight);
            memcpy(w.g, to.states + s * n, n * sizeof(double));
            for (Int i = n; i < np; i++) w.g[i] = 0;
            for (Int i = 0; i < np; i += W) {
                const V c = load(w.g + i);
                store(w.direct + i, load(w.direct + i) + c);
                for (int j = 0; j < SLOPES; j++)
                    store(w.k[j] + i, load(w.k[j] + i) + (w.step->h * weight[j]) * c);
            }
        }
        field.prepare(w.step->block, STAGES, w.common);
        if (w.step->before) fetch(w.step->before->block, STAGES * field.width + field.ends);
    }

    void after_stage(Walker& w, int j) const {
        for (Int i = 0; i < np; i += W) {
            const V g = load(w.g + i), sum = load(w.running + i) + g;
            store(w.running + i, sum);
            const V passed = w.step->h * (j == SLOPES - 1 ? sum : g);
            for (int m = 0; m < j; m++) store(w.k[m] + i, load(w.k[m] + i) + A[j][m] * passed);
        }
    }

    // Whether there is a step before.
    bool end_step(Walker& w) const {
        field.pull(w.step->block, w.common, STAGES, w.delta);
        for (Int i = 0; i < np; i += W) store(w.running + i, load(w.running + i) + load(w.direct + i));
        if (w.step->fresh) {
            field.prepare(w.step->fresh, 1, w.common);
            const Pulled point = {w.step->fresh, w.common, 1, 0, w.k[0], w.delta, w.g};
            field.backward(&point, 1);
            field.pull(w.step->fresh, w.common, 1, w.delta);
            for (Int i = 0; i < np; i += W) store(w.running + i, load(w.running + i) + load(w.g + i));
            zero(w.k[0], np);
        }
        w.step = w.step->before;
        return w.step;
    }

    void run() const {  // the pieces that were solved last first: their steps are still in the cache
        const Int each = (3 + SLOPES) * np + padded(field.common) + field.deltas * STAGES;
        Buffer<double> memory(LANES * each);
        Walker walkers[LANES], *going[LANES];
        Pulled points[LANES];
        Int active = 0, next = range.end;
        field.clear();
        for (; active < LANES && next > range.begin; active++) {
            Walker& w = walkers[active];
            w.running = memory.p + active * each;
            w.direct = w.running + np;
            w.g = w.direct + np;
            for (int j = 0; j < SLOPES; j++) w.k[j] = w.g + (j + 1) * np;
            w.common = w.k[SLOPES - 1] + np;
            w.delta = w.common + padded(field.common);
            going[active] = &w;
            begin(w, --next);
        }
        while (active) {
            for (Int a = 0; a < active; a++) begin_step(*going[a]);
            for (int j = SLOPES - 1; j > 0; j--) {
                for (Int a = 0; a < active; a++) {
                    const Walker& w = *going[a];
                    points[a] = Pulled{w.step->block, w.common, STAGES, j - 1, w.k[j], w.delta, w.g};
                }
                field.backward(points, active);
                for (Int a = 0; a < active; a++) after_stage(*going[a], j);
            }
            for (Int a = 0; a < active; a++) {
                Walker& w = *going[a];
                if (end_step(w)) continue;
                memcpy(to.starts + w.piece * n, w.running, n * sizeof(double));
                if (next > range.begin) begin(w, --next);
                else going[a--] = going[--active];
            }
        }
        field.gradient(to.grads + group * field.n_parameters);
    }
};

}  // namespace
