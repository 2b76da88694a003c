// The exact gradient of the discrete solutions: from the last step of each piece to its first; part of ode.cpp.
//
// With k_j = f(Y_j), Y_j = u + h sum_m a_jm k_m and save points u + h sum_j P_j(theta) k_j this is backpropagation
// through the solver with its step sizes held fixed.

#pragma once

#include "solution.h"

namespace {

struct Adjoint {
    Solution& own;
    Field& field;
    const double* cotangents;  // of all save points, (all, n)
    double* starts;            // gradient by the starts, (pieces, n)
    const Int pieces, n, np;

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
        w.step = own.last[piece];
        memset(w.running, 0, np * sizeof(double));
        memset(w.k[0], 0, np * sizeof(double));
    }

    void begin_step(Walker& w) const {
        double* carried = w.k[0];
        w.k[0] = w.k[SLOPES - 1];
        w.k[SLOPES - 1] = carried;
        for (int j = 0; j < SLOPES - 1; j++) memset(w.k[j], 0, np * sizeof(double));
        memset(w.direct, 0, np * sizeof(double));
        for (Int s = w.step->first; s < w.step->last; s++) {
            double weight[SLOPES];
            dense_weights(own.theta[s], weight);
            memcpy(w.g, cotangents + s * n, n * sizeof(double));
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

    void stage(Walker& w, int j) const {
        field.backward(w.step->block, w.common, STAGES, j - 1, w.k[j], w.delta, w.g);
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
            field.backward(w.step->fresh, w.common, 1, 0, w.k[0], w.delta, w.g);
            field.pull(w.step->fresh, w.common, 1, w.delta);
            for (Int i = 0; i < np; i += W) store(w.running + i, load(w.running + i) + load(w.g + i));
            memset(w.k[0], 0, np * sizeof(double));
        }
        w.step = w.step->before;
        return w.step;
    }

    void run() const {  // the pieces that were solved last first: their steps are still in the cache
        const Int each = (3 + SLOPES) * np + padded(field.common) + field.deltas * STAGES;
        Buffer<double> memory(GROUP * each);
        Walker walkers[GROUP], *going[GROUP];
        Int active = 0, next = 0;
        field.clear();
        for (; active < GROUP && next < pieces; active++, next++) {
            Walker& w = walkers[active];
            w.running = memory.p + active * each;
            w.direct = w.running + np;
            w.g = w.direct + np;
            for (int j = 0; j < SLOPES; j++) w.k[j] = w.g + (j + 1) * np;
            w.common = w.k[SLOPES - 1] + np;
            w.delta = w.common + padded(field.common);
            going[active] = &w;
            begin(w, pieces - 1 - next);
        }
        while (active) {
            for (Int a = 0; a < active; a++) begin_step(*going[a]);
            for (int j = SLOPES - 1; j > 0; j--)
                for (Int a = 0; a < active; a++) stage(*going[a], j);
            for (Int a = 0; a < active; a++) {
                Walker& w = *going[a];
                if (end_step(w)) continue;
                memcpy(starts + w.piece * n, w.running, n * sizeof(double));
                if (next < pieces) begin(w, pieces - 1 - next++);
                else going[a--] = going[--active];
            }
        }
    }
};

}  // namespace
