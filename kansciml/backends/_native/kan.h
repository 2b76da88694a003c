// A field of spline KAN layers of order S on uniform knots; part of ode.cpp.

#pragma once

#include "field.h"

namespace {

// y (N vectors) = sum over inputs of the base row and the S + 1 rows of the cell, times their values.
template <int S, int N>
INLINE void add_edges(double* y, const double* w, const double* cell, const double* silu, const double* basis,
                      Int inputs, Int length, Int rows, Int stride) {
    V sum[S + 2][N] = {};
    for (Int i = 0; i < inputs; i++) {
        const double *own = w + i * rows * stride, *row = own + Int(cell[i]) * stride;
        for (int v = 0; v < N; v++) {
            sum[S + 1][v] += silu[i] * load(own + (rows - 1) * stride + v * W);
            for (int q = 0; q <= S; q++) sum[q][v] += basis[q * length + i] * load(row + q * stride + v * W);
        }
    }
    for (int v = 0; v < N; v++) {
        V total = sum[S + 1][v];
        for (int q = 0; q <= S; q++) total += sum[q][v];
        store(y + v * W, total);
    }
}

template <int S> struct KAN : Field {
    struct Layer {
        Int inputs, outputs;
        Int start, delta_start;  // for one point
        Int common;
        double *weight, *grad;  // (inputs, rows, padded outputs)
    };
    // Of an input: S rows of zeros, the splines, S + 1 rows of zeros and the base weights. Cell c reads rows c ... c + S;
    // positions outside the knots read the zeros of cell `cells`.
    Int splines, cells, rows, widest, room;  // room: for the inputs of a layer at LANES points
    double per_cell, offset;  // a position in cells from the first knot is x per_cell + offset
    double piece[S + 1][S + 1];
    Buffer<Layer> layer;
    Buffer<double> memory, found, outputs, params;
    Int size;  // numbers of all weights

    static Int sum_sizes(const Spec& s) {
        Int total = 0;
        for (Int l = 0; l < s.layers; l++) total += s.widths[l] * padded(s.widths[l + 1]);
        return total * (s.grid + 3 * S + 2);
    }
    static Int count_parameters(const Spec& s) {
        Int total = 0;
        for (Int l = 0; l < s.layers; l++) total += s.widths[l] * s.widths[l + 1] * (2 + s.grid + S);
        return total;
    }
    static Int widest_of(const Spec& s) {
        Int w = 0;
        for (Int l = 0; l <= s.layers; l++) w = s.widths[l] > w ? s.widths[l] : w;
        return padded(w);
    }

    explicit KAN(const Spec& s)
        : Field(s), splines(s.grid + S), cells(s.grid + 2 * S), rows(s.grid + 3 * S + 2), widest(widest_of(s)),
          per_cell(s.grid / (s.high - s.low)), offset(S - s.low * per_cell), layer(layers), memory(2 * sum_sizes(s)),
          room(LANES * widest + W),
          found((S + 5) * (room + W)), outputs(2 * room), params(count_parameters(s)), size(sum_sizes(s)) {
        n_parameters = count_parameters(s);
        memcpy(piece, s.pieces, sizeof piece);
        memset(memory.p, 0, 2 * size * sizeof(double));
        double* at = memory.p;
        width = padded(nx) * (power > 1 ? 2 : 1);
        for (Int l = 0; l < layers; l++) {
            const Int in = s.widths[l], out = s.widths[l + 1];
            layer.p[l] = Layer{in, out, width, deltas, common, at, at + size};
            at += in * rows * padded(out);
            width += 4 * in;
            ends += 4 * W;  // whole vectors are written
            deltas += padded(out);
            common += 2 * (S + 1) * padded(STAGES * in);
        }
    }

    void bind(const double* from) override {
        memcpy(params.p, from, n_parameters * sizeof(double));
        for (Int l = 0; l < layers; l++) {
            const Layer& y = layer.p[l];
            const Int O = y.outputs, op = padded(O);
            const double *base = from, *spline = base + y.inputs * O, *scale = spline + y.inputs * splines * O;
            from = scale + y.inputs * O;
            for (Int i = 0; i < y.inputs; i++) {
                double* to = y.weight + (i * rows + S) * op;
                for (Int m = 0; m < splines; m++)
                    for (Int o = 0; o < O; o++) to[m * op + o] = spline[(i * splines + m) * O + o] * scale[i * O + o];
                memcpy(y.weight + (i * rows + rows - 1) * op, base + i * O, O * sizeof(double));
            }
        }
    }

    // Of a layer's inputs: place within the cell, cell, silu and its slope; which = 0 ... 3, for all points of a block.
    double* kept(double* block, Int l, Int which, Int count) const {
        const Layer& y = layer.p[l];
        return block + y.start * count + (4 * l + which) * W + which * count * y.inputs;
    }
    const double* kept(const double* block, Int l, Int which, Int count) const {
        return kept(const_cast<double*>(block), l, which, count);
    }

    INLINE void splines_at(V r, V* value) const {
        for (int q = 0; q <= S; q++) {
            V b = splat(piece[q][S]);
            for (int p = S - 1; p >= 0; p--) b = b * r + piece[q][p];
            value[q] = b;
        }
    }

    void evaluate(const Point* points, Int number) override {
        double *a = outputs.p, *next = a + room;  // inputs of a layer, of all points one after the other
        for (Int k = 0; k < number; k++) {
            double* z = points[k].block + points[k].at * padded(nx);
            normalise(points[k].x, z, z + padded(nx) * points[k].count);
            for (Int i = 0; i < nx; i += W) store(a + k * nx + i, load(z + i));
        }
        for (Int l = 0; l < layers; l++) {
            const Layer& own = layer.p[l];
            const Int I = own.inputs, O = own.outputs, op = padded(O), stride = padded(number * I) + W;
            locate(a, number * I, stride);
            for (Int k = 0; k < number; k++) {
                const Point& p = points[k];
                const double* own_found = found.p + k * I;
                for (Int which = 0; which < 4; which++) {
                    double* to = kept(p.block, l, which, p.count) + p.at * I;
                    for (Int i = 0; i < I; i += W) store(to + i, load(own_found + which * stride + i));
                }
                double* y = l + 1 < layers ? next + k * O : p.out;
                const double *cell = own_found + stride, *silu = cell + stride, *basis = own_found + 4 * stride;
                Int v = 0;
                for (; v + 2 * W <= op; v += 2 * W)
                    add_edges<S, 2>(y + v, own.weight + v, cell, silu, basis, I, stride, rows, op);
                if (v < op) add_edges<S, 1>(y + v, own.weight + v, cell, silu, basis, I, stride, rows, op);
            }
            double* swapped = a;
            a = next;
            next = swapped;
        }
        for (Int k = 0; k < number; k++)
            for (Int i = 0; i < np; i += W) store(points[k].out + i, load(points[k].out + i) * load(rate.p + i));
    }
    // What is kept of inputs, and their splines, into the rows of `found`.
    INLINE void locate(const double* a, Int count, Int stride) {
        for (Int i = 0; i < count; i += W) {
            const double magic = 6755399441055744.0;  // rounds to a whole number
            const V in = load(a + i), u = in * per_cell + offset, s = sigmoid_of(in), silu = in * s;
            const M inside = (u >= 0.0) & (u < double(cells));
            const V v = inside ? u : splat(double(cells)), nearest = (v + magic) - magic;
            const V cell = nearest > v ? nearest - 1.0 : nearest, r = v - cell;
            double* to = found.p + i;
            store(to, r);
            store(to + stride, cell);
            store(to + 2 * stride, silu);
            store(to + 3 * stride, s + silu * (1.0 - s));
            V value[S + 1];
            splines_at(r, value);
            for (int q = 0; q <= S; q++) store(to + (4 + q) * stride, value[q]);
        }
    }

    void prepare(const double* block, Int count, double* found) const override {
        for (Int l = 0; l < layers; l++) {
            const Int positions = count * layer.p[l].inputs, stride = padded(positions);
            const double* at = kept(block, l, 0, count);
            double *value = found + layer.p[l].common, *slope = value + (S + 1) * stride;
            for (Int i = 0; i < positions; i += W) {
                V v[S + 1];
                const V r = load(at + i);
                splines_at(r, v);
                for (int q = 0; q <= S; q++) {
                    store(value + q * stride + i, v[q]);
                    V d = splat(S * piece[q][S]);
                    for (int p = S - 1; p > 0; p--) d = d * r + p * piece[q][p];
                    store(slope + q * stride + i, d * per_cell);
                }
            }
        }
    }

    double* delta_of(const Pulled& p, Int l) const {
        return p.delta + layer.p[l].delta_start * p.count + p.at * padded(layer.p[l].outputs);
    }

    void backward(const Pulled* points, Int number) const override {
        for (Int k = 0; k < number; k++) {
            double* d = delta_of(points[k], layers - 1);
            for (Int i = 0; i < np; i += W) store(d + i, load(points[k].cotangent + i) * load(rate.p + i));
        }
        for (Int l = layers - 1; l >= 0; l--)
            for (Int k = 0; k < number; k++) gather(l, points[k]);
        for (Int k = 0; k < number; k++) {
            const Pulled& p = points[k];
            const double* z = p.block + p.at * padded(nx);
            from_normalised(z, z + padded(nx) * p.count, p.g, p.g);
        }
    }
    // The cotangent of layer l's inputs, from that of its outputs.
    INLINE void gather(Int l, const Pulled& p) const {
        const Layer& own = layer.p[l];
        const Int I = l ? own.inputs : n, op = padded(own.outputs), stride = padded(p.count * own.inputs);
        const double* slope = p.common + own.common + (S + 1) * stride + p.at * own.inputs;
        const double* cell = kept(p.block, l, 1, p.count) + p.at * own.inputs;
        const double *bend = kept(p.block, l, 3, p.count) + p.at * own.inputs, *d = delta_of(p, l);
        double* to = l ? delta_of(p, l - 1) : p.g;
        Int i = 0;
        for (; i + 2 < I; i += W) store(to + i, slopes_of<W>(own, least(W, I - i), i, cell, bend, slope, stride, d));
        if (i < I) store(to + i, slopes_of<2>(own, I - i, i, cell, bend, slope, stride, d));
    }
    // Of `count` inputs, R at most, from the first: products of their derivatives with d; the other lanes are zero.
    template <int R> INLINE V slopes_of(const Layer& own, Int count, Int first, const double* cell, const double* bend,
                                        const double* slope, Int stride, const double* d) const {
        const Int op = padded(own.outputs);
        V part[W] = {};
#pragma GCC unroll 8
        for (int k = 0; k < R; k++) {
            const Int i = first + least(k, count - 1);
            const double *w = own.weight + i * rows * op, *row = w + Int(cell[i]) * op;
            for (Int o = 0; o < op; o += W) {
                V j = bend[i] * load(w + (rows - 1) * op + o);
#pragma GCC unroll 8
                for (int q = 0; q <= S; q++) j += slope[q * stride + i] * load(row + q * op + o);
                part[k] += j * load(d + o);
            }
            if (k >= count) part[k] = V{};
        }
        return lane_sums<double>(part);
    }

    void pull(const double* block, const double* found, Int count, const double* delta) override {
        for (Int l = 0; l < layers; l++) {
            const Layer& own = layer.p[l];
            const Int I = own.inputs, op = padded(own.outputs), stride = padded(count * I);
            const double *cell = kept(block, l, 1, count), *silu = kept(block, l, 2, count);
            const double *value = found + own.common, *d = delta + own.delta_start * count;
            for (Int i = 0; i < I; i++)
                for (Int o = 0; o < op; o += W) {
                    double* to = own.grad + i * rows * op + o;
                    V base = load(to + (rows - 1) * op), sum[S + 1] = {};
                    for (Int s = 0; s < count; s++) {
                        const Int p = s * I + i;
                        const V c = load(d + s * op + o);
                        base += silu[p] * c;
                        for (int q = 0; q <= S; q++) sum[q] += value[q * stride + p] * c;
                        if (s + 1 < count && cell[p + I] == cell[p]) continue;
                        double* row = to + Int(cell[p]) * op;  // the points that follow lie in another cell
                        for (int q = 0; q <= S; q++) {
                            store(row + q * op, load(row + q * op) + sum[q]);
                            sum[q] = V{};
                        }
                    }
                    store(to + (rows - 1) * op, base);
                }
        }
    }

    void clear() override { memset(memory.p + size, 0, size * sizeof(double)); }

    void gradient(double* to) const override {
        const double* from = params.p;
        for (Int l = 0; l < layers; l++) {
            const Layer& y = layer.p[l];
            const Int O = y.outputs, op = padded(O), edges = y.inputs * O;
            const double *spline = from + edges, *scale = spline + edges * splines;
            double *base_to = to, *spline_to = to + edges, *scale_to = spline_to + edges * splines;
            for (Int i = 0; i < y.inputs; i++) {
                const double* g = y.grad + (i * rows + S) * op;
                for (Int o = 0; o < O; o++) {
                    base_to[i * O + o] = y.grad[(i * rows + rows - 1) * op + o];
                    double total = 0;
                    for (Int m = 0; m < splines; m++) {
                        const Int k = (i * splines + m) * O + o;
                        spline_to[k] = g[m * op + o] * scale[i * O + o];
                        total += g[m * op + o] * spline[k];
                    }
                    scale_to[i * O + o] = total;
                }
            }
            from = scale + edges;
            to = scale_to + edges;
        }
    }
};

}  // namespace
