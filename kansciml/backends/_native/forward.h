// Integration of a group of pieces, with the steps of kansciml.backends._engines.explicit; part of ode.cpp.

#pragma once

#include "solution.h"

namespace {

struct Forward {
    Worker& own;
    Field& field;
    const Pieces& all;
    const Solution& to;
    const Range range;
    Outcome& outcome;
    const double rtol, atol;
    const Int n, np;

    Forward(Worker& worker, const Pieces& pieces, const Solution& solution, Int group)
        : own(worker), field(*worker.field), all(pieces), to(solution), range(group, pieces.count),
          outcome(solution.outcomes[group]), rtol(solution.rtol), atol(solution.atol), n(field.n), np(field.np) {}

    struct Walker {
        Int piece, tried, interval, save;
        double t, h, stop, size, end;
        bool lands;  // on a knot
        Step *step, *before;
        double *u, *after, *x, *k[SLOPES];
    };

    void drive(double* x, double t, Int interval) const {
        if (all.inputs) {
            const double s = t - all.knots[interval];
            for (Int i = 0; i < all.inputs; i++)
                x[n + i] = all.base[interval * all.inputs + i] + all.slope[interval * all.inputs + i] * s;
        }
        if (all.time) x[n + all.inputs] = t;
    }

    double until(Int interval) const { return all.inputs ? all.knots[interval + 1] : INFINITY; }

    double* begin_step(Walker& w) {  // a record, whose block of evaluations follows it
        if (!w.step) {
            double* p = own.arena.take(RECORD + field.width * STAGES + field.ends);
            w.step = reinterpret_cast<Step*>(p);
            w.step->block = p + RECORD;
            w.step->fresh = 0;
            fetch(p, RECORD + field.width * STAGES + field.ends);
        }
        w.step->first = w.step->last = w.save;
        return w.step->block;
    }

    void evaluate(const Point& point) const { field.evaluate(&point, 1); }

    void evaluate_fresh(Walker& w) {
        if (!w.step->fresh) w.step->fresh = own.arena.take(field.width + field.ends);
        memcpy(w.x, w.u, np * sizeof(double));
        drive(w.x, w.t, w.interval);
        evaluate(Point{w.x, w.step->fresh, 1, 0, w.k[0]});
    }

    void begin(Walker& w, Int piece) {
        w.piece = piece;
        w.tried = 0;
        w.t = all.t0[piece];
        w.save = all.saves[piece];
        w.stop = all.saveat[all.saves[piece + 1] - 1];
        w.interval = all.inputs ? all.first[piece] : 0;
        for (Int i = 0; i < np; i++) w.u[i] = i < n ? all.start[piece * n + i] : 0;
        w.before = 0;
        if (to.keep) w.step = 0;
        begin_step(w);
        evaluate_fresh(w);
        w.h = first_step(w);
    }

    double first_step(Walker& w) const {  // Hairer, Norsett & Wanner I, sec. II.4
        double d0 = 0, d1 = 0, d2 = 0;
        for (Int i = 0; i < n; i++) {
            const double scale = atol + fabs(w.u[i]) * rtol;
            d0 = larger(d0, fabs(w.u[i] / scale));
            d1 = larger(d1, fabs(w.k[0][i] / scale));
        }
        const double h0 = d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : 0.01 * d0 / d1;
        for (Int i = 0; i < np; i += W) store(w.x + i, load(w.u + i) + h0 * load(w.k[0] + i));
        drive(w.x, w.t + h0, w.interval);
        evaluate(Point{w.x, w.step->block, STAGES, 0, w.k[1]});
        for (Int i = 0; i < n; i++) {
            const double scale = atol + fabs(w.u[i]) * rtol;
            d2 = larger(d2, fabs((w.k[1][i] - w.k[0][i]) / scale));
        }
        d2 /= h0;
        const double most = d2 > d1 ? d2 : d1, least = h0 * 1e-3 > 1e-6 ? h0 * 1e-3 : 1e-6;
        const double h1 = d1 <= 1e-15 && d2 <= 1e-15 ? least : pow(0.01 / most, 0.2);
        return h1 < 100 * h0 ? h1 : 100 * h0;
    }

    static double larger(double a, double b) { return b > a || b != b ? b : a; }  // NaN stays

    Point stage(const Walker& w, int j) const {
        double* x = j == SLOPES - 1 ? w.after : w.x;
        for (Int i = 0; i < np; i += W) {
            V sum = load(w.u + i);
            for (int m = 0; m < j; m++) sum += (w.size * A[j][m]) * load(w.k[m] + i);
            store(x + i, sum);
        }
        if (x != w.x && field.nx > n) memcpy(w.x, x, np * sizeof(double)), x = w.x;
        drive(x, w.t + C[j] * w.size, w.interval);
        return Point{x, w.step->block, STAGES, j - 1, w.k[j]};
    }

    // Largest error over atol + rtol max(|u0|, |u1|).
    double error_ratio(const Walker& w) const {
        V most = {};
        M nan = {};
        for (Int i = 0; i < np; i += W) {
            V e = {};
            for (int j = 0; j < SLOPES; j++) e += E[j] * load(w.k[j] + i);
            const V a = load(w.u + i), b = load(w.after + i), p = a < 0.0 ? -a : a, q = b < 0.0 ? -b : b;
            e /= atol + rtol * (p > q ? p : q);
            e = e < 0.0 ? -e : e;
            nan |= e != e;
            most = e > most ? e : most;
        }
        double largest = 0;
        for (Int i = 0; i < W; i++) largest = most[i] > largest ? most[i] : largest;
        return any_bit(&nan) ? NAN : w.size * largest;
    }

    void save(Walker& w) {
        Step& step = *w.step;
        step.h = w.size;
        const Int stop = all.saves[w.piece + 1];
        for (; w.save < stop && all.saveat[w.save] <= w.end; w.save++) {
            double weight[SLOPES];
            const double theta = (all.saveat[w.save] - w.t) / w.size;
            to.theta[w.save] = theta;
            dense_weights(theta, weight);
            double* state = to.states + w.save * n;
            for (Int i = 0; i < np; i += W) {
                V sum = {};
                for (int j = 0; j < SLOPES; j++) sum += weight[j] * load(w.k[j] + i);
                sum = load(w.u + i) + w.size * sum;
                if (i + W <= n) store(state + i, sum);
                else memcpy(state + i, &sum, (n - i) * sizeof(double));
            }
        }
        step.last = w.save;
    }

    // Whether the piece goes on.
    bool advance(Walker& w) {
        const double ratio = error_ratio(w), factor = SAFETY / pow(ratio, 0.2);
        w.tried++;
        if (!(ratio <= 1.0)) {
            outcome.rejected++;
            w.h = w.size * (ratio < INFINITY && factor > SHRINK ? factor : SHRINK);
            return true;
        }
        outcome.accepted++;
        const double h = w.size * (ratio == 0.0 || factor > GROW ? GROW : factor > 1.0 ? factor : 1.0);
        w.h = w.lands && w.h > h ? w.h : h;
        save(w);
        if (to.keep) {
            w.step->before = w.before;
            w.before = w.step;
            w.step = 0;
        }
        w.t = w.end;
        if (w.t >= w.stop) return false;
        double* swapped = w.u;
        w.u = w.after;
        w.after = swapped;
        swapped = w.k[0];
        w.k[0] = w.k[SLOPES - 1];
        w.k[SLOPES - 1] = swapped;
        begin_step(w);
        if (w.lands) {
            w.interval++;
            if (all.held[w.piece]) evaluate_fresh(w);
        }
        return true;
    }

    void fail(const Walker& w) {
        outcome.failed = 1;
        outcome.piece = w.piece;
        outcome.tried = w.tried;
        outcome.t = w.t;
        outcome.h = w.h;
        for (Int i = 0; i < n; i++) outcome.largest = larger(outcome.largest, fabs(w.u[i]));
    }

    void run() {
        const Int room = padded(field.nx) > np ? padded(field.nx) : np, each = 2 * np + room + SLOPES * np;
        Buffer<double> memory(LANES * each);
        memset(memory.p, 0, LANES * each * sizeof(double));
        Walker walkers[LANES], *going[LANES];
        Point points[LANES];
        Int active = 0, next = range.begin;
        for (; active < LANES && next < range.end; active++, next++) {
            Walker& w = walkers[active];
            w.u = memory.p + active * each;
            w.after = w.u + np;
            for (int j = 0; j < SLOPES; j++) w.k[j] = w.after + (j + 1) * np;
            w.x = w.k[SLOPES - 1] + np;
            w.step = 0;
            going[active] = &w;
            begin(w, next);
        }
        while (active) {
            for (Int a = 0; a < active; a++) {
                Walker& w = *going[a];
                if (w.tried >= to.max_steps || !(w.t + w.h > w.t)) return fail(w);
                const double left = until(w.interval) - w.t;
                w.lands = 1.01 * w.h >= left;
                w.size = w.lands ? left : w.h;
                w.end = w.lands ? until(w.interval) : w.t + w.h;
            }
            for (int j = 1; j < SLOPES; j++) {
                for (Int a = 0; a < active; a++) points[a] = stage(*going[a], j);
                field.evaluate(points, active);
            }
            for (Int a = 0; a < active; a++) {
                Walker& w = *going[a];
                if (advance(w)) continue;
                to.last[w.piece] = w.before;
                if (next < range.end) {
                    begin(w, next++);
                } else {  // the last one takes its place
                    going[a--] = going[--active];
                }
            }
        }
    }
};

}  // namespace
