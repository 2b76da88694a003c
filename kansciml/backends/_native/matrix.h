// Products of one small matrix with vectors, from either side; part of ode.cpp.

#pragma once

#include "functions.h"

namespace {

// y = bias + sum_i x[i] w[i], N vectors of it; two sets of sums where one would wait for itself.
template <int N> INLINE void add_rows(double* y, const double* x, const double* w, Int count, Int stride,
                                      const double* bias) {
    const int sets = N < 4 ? 2 : 1;
    V sum[sets][N];
    for (int v = 0; v < N; v++) {
        sum[0][v] = bias ? load(bias + v * W) : V{};
        if (sets > 1) sum[sets - 1][v] = V{};
    }
    Int i = 0;
    for (; i + sets <= count; i += sets)
        for (int s = 0; s < sets; s++)
            for (int v = 0; v < N; v++) sum[s][v] += x[i + s] * load(w + (i + s) * stride + v * W);
    if (i < count)
        for (int v = 0; v < N; v++) sum[0][v] += x[i] * load(w + i * stride + v * W);
    for (int v = 0; v < N; v++) store(y + v * W, sets > 1 ? sum[0][v] + sum[sets - 1][v] : sum[0][v]);
}

// Dot products of x with R rows of w at most, `length` padded numbers each; the other lanes are zero.
template <int R> INLINE V dots(const double* x, const double* w, Int rows, Int length) {
    const int sets = R < 4 ? 2 : 1;
    V sum[sets][W] = {};
    Int i = 0;
    for (; i + sets * W <= length; i += sets * W)
        for (int s = 0; s < sets; s++) {
            const V at = load(x + i + s * W);
            for (int r = 0; r < R; r++) sum[s][r] += at * load(w + least(r, rows - 1) * length + i + s * W);
        }
    if (i < length)
        for (int r = 0; r < R; r++) sum[0][r] += load(x + i) * load(w + least(r, rows - 1) * length + i);
    for (int r = 0; r < R; r++) sum[0][r] = r < rows ? sum[0][r] + (sets > 1 ? sum[sets - 1][r] : V{}) : V{};
    return lane_sums<double>(sum[0]);
}

// A matrix (inputs, outputs) and its transpose, rows padded with zeros.
struct Matrix {
    Int inputs, outputs;
    double *rows, *columns;  // (inputs, padded outputs), (outputs, padded inputs)

    static Int size(Int inputs, Int outputs) { return inputs * padded(outputs) + outputs * padded(inputs); }

    void set(const double* w) const {
        const Int ip = padded(inputs), op = padded(outputs);
        for (Int i = 0; i < inputs; i++)
            for (Int o = 0; o < outputs; o++) rows[i * op + o] = columns[o * ip + i] = w[i * outputs + o];
    }

    static void product(double* y, const double* x, const double* bias, const double* w, const double* transposed,
                        Int inputs, Int outputs) {
        const Int ip = padded(inputs), op = padded(outputs);
        if (outputs * (ip / W) + (outputs > 2 ? 3 * op : 9) < inputs * (op / W)) {
            for (Int o = 0; o < outputs; o += W) {
                const double* w_o = transposed + o * ip;
                const Int left = outputs - o;
                const V sums = left <= 2 ? dots<2>(x, w_o, left, ip) : dots<W>(x, w_o, left, ip);
                store(y + o, bias ? sums + load(bias + o) : sums);
            }
            return;
        }
        Int v = 0;
        for (; v + 4 * W <= op; v += 4 * W) add_rows<4>(y + v, x, w + v, inputs, op, bias ? bias + v : 0);
        const double* left = bias ? bias + v : 0;
        switch ((op - v) / W) {
            case 3: return add_rows<3>(y + v, x, w + v, inputs, op, left);
            case 2: return add_rows<2>(y + v, x, w + v, inputs, op, left);
            case 1: return add_rows<1>(y + v, x, w + v, inputs, op, left);
        }
    }

    // y (outputs) = bias + x w
    void forward(double* y, const double* x, const double* bias) const {
        product(y, x, bias, rows, columns, inputs, outputs);
    }
    // gx (inputs) = w gy
    void backward(double* gx, const double* gy) const { product(gx, gy, 0, columns, rows, outputs, inputs); }
};

// grad (inputs, padded outputs) += sum over N rows of x (N, ldx) times g (N, padded outputs).
template <int N> void add_products(double* grad, const double* x, Int ldx, const double* g, Int inputs, Int outputs) {
    const Int op = padded(outputs);
    for (Int v = 0; v < op; v += W) {
        V own[N];
        for (int s = 0; s < N; s++) own[s] = load(g + s * op + v);
        for (Int i = 0; i < inputs; i++) {
            V a = load(grad + i * op + v), b = {};
            for (int s = 0; s < N; s += 2) {
                a += x[s * ldx + i] * own[s];
                if (s + 1 < N) b += x[(s + 1) * ldx + i] * own[s + 1];
            }
            store(grad + i * op + v, a + b);
        }
    }
}

template <int N> void add_sums_of(double* grad, const double* g, Int outputs) {
    const Int op = padded(outputs);
    for (Int v = 0; v < op; v += W) {
        V a = load(grad + v);
        for (int s = 0; s < N; s++) a += load(g + s * op + v);
        store(grad + v, a);
    }
}

}  // namespace
