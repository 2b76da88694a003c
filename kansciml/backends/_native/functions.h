// exp, tanh and the activations of whole vectors of doubles, to 3 units in the last place; part of ode.cpp.

#pragma once

#include <math.h>

#include "../../layers/_native/lanes.h"

namespace {

typedef Lanes<double>::V V;
typedef Lanes<double>::M M;
const Int W = Lanes<double>::n;

inline Int padded(Int n) { return (n + W - 1) / W * W; }
INLINE V splat(double x) { return V{} + x; }
INLINE void zero(double* p, Int size) {  // whole vectors
    for (Int i = 0; i < size; i += W) store(p + i, V{});
}

// x = k ln 2 + r with |r| <= ln 2 / 2: 2^k in `power`; returns e^r - 1. For |x| < 708.
INLINE V reduced(V x, V& power) {
    const double magic = 6755399441055744.0;  // 1.5 * 2^52: its last bits are those of an integer added to it
    V k = x * 1.4426950408889634 + magic;
    typedef unsigned long long U __attribute__((vector_size(BYTES)));
    U bits;
    memcpy(&bits, &k, sizeof bits);
    bits = (bits << 52) + 0x3FF0000000000000ull;
    memcpy(&power, &bits, sizeof bits);
    k -= magic;
    const V r = (x - k * 0.6931471803691238) - k * 1.9082149292705877e-10;  // the first has 32 bits: exact
    const V r2 = r * r, r4 = r2 * r2;
    // (e^r - 1 - r) / r^2, minimax: relative to e^r - 1 good to 2e-17
    const V low = (r * 0.16666666666666685 + 0.5000000000000006) +
                  (r * 0.008333333333315113 + 0.04166666666657785) * r2;
    const V middle = (r * 0.00019841269902006955 + 0.001388888893130854) +
                     (r * 2.7557228787703844e-06 + 2.4801505501860736e-05) * r2;
    const V high = r * 2.5114231000559263e-08 + 2.7625969857700994e-07;
    return r + r2 * (low + r4 * (middle + r4 * high));
}

INLINE V tanh_of(V x) {  // e / (e + 2), e = expm1(2 x)
    x = x > 20.0 ? splat(20.0) : x;
    x = x < -20.0 ? splat(-20.0) : x;
    V power;
    const V r = reduced(x + x, power), e = power * r + (power - 1.0);
    return e / (e + 2.0);
}

INLINE V sigmoid_of(V x) {
    V at = x < -708.0 ? splat(-708.0) : x, power;
    at = at > 708.0 ? splat(708.0) : at;
    const V r = reduced(V{} - at, power), e = power * r + power;
    return x < -708.0 ? V{} : 1.0 / (1.0 + e);
}

INLINE V exp_of(V x) {  // of x <= 0
    V at = x < -708.0 ? splat(-708.0) : x, power;
    const V r = reduced(at, power);
    return x < -708.0 ? V{} : power * r + power;
}

INLINE V normal_of(V x) {  // the normal distribution function
    double t[W];
    store(t, x);
    for (Int i = 0; i < W; i++) t[i] = 0.5 * erfc(-0.7071067811865476 * t[i]);
    return load(t);
}

enum Activation { TANH, SILU, GELU, RELU, SIGMOID };  // as in kansciml.models.field_spec.ACTIVATIONS

// The value, and the slope where it is no function of the value.
INLINE V activated(Int kind, V x, V& slope) {
    switch (kind) {
        case TANH: return tanh_of(x);
        case SIGMOID: return sigmoid_of(x);
        case RELU: return x < 0.0 ? V{} : x;
        case SILU: {
            const V s = sigmoid_of(x);
            slope = s + x * s * (1.0 - s);
            return x * s;
        }
        default: {
            const V s = normal_of(x);
            slope = s + x * exp_of(-0.5 * x * x) * 0.3989422804014327;
            return x * s;
        }
    }
}

inline bool keeps_slope(Int kind) { return kind == SILU || kind == GELU; }

INLINE V slope_at(Int kind, V y) {  // of the others, from the value
    if (kind == TANH) return 1.0 - y * y;
    if (kind == SIGMOID) return y * (1.0 - y);
    return y > 0.0 ? splat(1.0) : V{};
}

// Lane k: the sum of the lanes of v[k], of W vectors.
template <class T> INLINE V lane_sums(const V* v) {
#if BYTES == 64
    V a[4], b[2];
    for (int k = 0; k < 4; k++)
        a[k] = SHUFFLE(v[2 * k], v[2 * k + 1], 0, 8, 2, 10, 4, 12, 6, 14) +
               SHUFFLE(v[2 * k], v[2 * k + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    for (int k = 0; k < 2; k++)
        b[k] = SHUFFLE(a[2 * k], a[2 * k + 1], 0, 1, 8, 9, 4, 5, 12, 13) +
               SHUFFLE(a[2 * k], a[2 * k + 1], 2, 3, 10, 11, 6, 7, 14, 15);
    return SHUFFLE(b[0], b[1], 0, 1, 2, 3, 8, 9, 10, 11) + SHUFFLE(b[0], b[1], 4, 5, 6, 7, 12, 13, 14, 15);
#elif BYTES == 32
    V a[2];
    for (int k = 0; k < 2; k++)
        a[k] = SHUFFLE(v[2 * k], v[2 * k + 1], 0, 4, 2, 6) + SHUFFLE(v[2 * k], v[2 * k + 1], 1, 5, 3, 7);
    return SHUFFLE(a[0], a[1], 0, 1, 4, 5) + SHUFFLE(a[0], a[1], 2, 3, 6, 7);
#else
    return SHUFFLE(v[0], v[1], 0, 2) + SHUFFLE(v[0], v[1], 1, 3);
#endif
}

}  // namespace
