// What both kinds of field share: sizes, normalisation, activations, memory; part of ode.cpp.

#pragma once

#include "matrix.h"

namespace {

struct Spec {  // shared with Python: keep the order
    Int layers, activation, grid, order, squash, power, spline;  // spline: 1 for a KAN, 0 for an MLP
    double low, high;
    const Int* widths;                      // (layers + 1,)
    const double *center, *scale, *rate;    // (widths[0],) twice, (widths[layers],)
    const double* pieces;                   // (order + 1, order + 1): coefficients in r of the splines of a cell
};

const Int STAGES = 6;  // evaluations of a step, the first being the last of the step before

const Int GROUP = 8;   // pieces that one thread solves together, and differentiates while their steps are in its cache
const Int LANES = 8;   // pieces that take their steps side by side: while one waits for its sums, others add

struct Point {  // of a field's evaluation
    const double* x;
    double* block;  // of `count` points, this one being number `at`
    Int count, at;
    double* out;  // f(x), (np)
};

struct Pulled {  // of its backward pass
    const double *block, *common;
    Int count, at;
    const double* cotangent;
    double *delta, *g;  // g: cotangent of the state (np), from that of f; zero beyond n
};

// A field bound to parameters. It is evaluated at points of a block, STAGES of them or a single one; what the backward
// pass needs of a point is kept in the block, `width` numbers each and `ends` for the block. Up to LANES points, each of
// a block of its own, take a layer side by side.
struct Field {
    Int n, nx, np, layers, n_parameters;
    Int width, ends;
    Int deltas;  // numbers that the backward pass of a point leaves for `pull`
    Int common;  // numbers that `prepare` finds for STAGES points
    Int squash, power;
    Buffer<double> center, inverse, state_inverse, rate;

    explicit Field(const Spec& s)
        : n(s.widths[s.layers]), nx(s.widths[0]), np(padded(n)), layers(s.layers), n_parameters(0), width(0), ends(0),
          deltas(0), common(0), squash(s.squash), power(s.power), center(padded(nx)), inverse(padded(nx)),
          state_inverse(np), rate(np) {
        for (Int i = 0; i < padded(nx); i++) {
            center.p[i] = i < nx ? s.center[i] : 0;
            inverse.p[i] = i < nx ? 1 / s.scale[i] : 0;
        }
        for (Int i = 0; i < np; i++) {
            state_inverse.p[i] = i < n ? inverse.p[i] : 0;
            rate.p[i] = i < n ? s.rate[i] : 0;
        }
    }
    virtual ~Field() {}

    virtual void bind(const double* params) = 0;
    virtual void evaluate(const Point* points, Int number) = 0;
    // What the backward passes of a block's points have in common.
    virtual void prepare(const double* block, Int count, double* common) const = 0;
    virtual void backward(const Pulled* points, Int number) const = 0;
    // The parameters' gradient of a block, all its points passed backward.
    virtual void pull(const double* block, const double* common, Int count, const double* delta) = 0;
    virtual void clear() = 0;
    virtual void gradient(double* grad) const = 0;  // grad (P,) of all pulls since `clear`

    // z (padded nx): normalised x; and before its power, where there is one
    INLINE void normalise(const double* x, double* z, double* base) const {
        for (Int i = 0; i < nx; i += W) {
            V a = (load(x + i) - load(center.p + i)) * load(inverse.p + i);
            if (squash) a = tanh_of(a);
            if (power > 1) {
                store(base + i, a);
                V b = a;
                for (Int p = 1; p < power; p++) b *= a;
                a = b;
            }
            store(z + i, a);
        }
    }
    // g (np): cotangent of the states, from that of z
    INLINE void from_normalised(const double* z, const double* base, const double* gz, double* g) const {
        const double* at = power > 1 ? base : z;
        for (Int i = 0; i < n; i += W) {
            V slope = load(gz + i) * load(state_inverse.p + i) * double(power);
            const V a = load(at + i);
            if (squash) slope *= 1.0 - a * a;
            for (Int p = 1; p < power; p++) slope *= a;
            store(g + i, slope);
        }
    }
};

}  // namespace
