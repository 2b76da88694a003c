// An MLP field; part of ode.cpp.

#pragma once

#include "field.h"

namespace {

struct MLP : Field {
    Int activation;
    bool slopes;  // whether they are kept beside the values
    Buffer<Int> start, delta_start;  // of each layer's inputs, and of its outputs' cotangents, for one point
    Buffer<Matrix> weight;
    Buffer<double> memory, grad, gz;
    Buffer<double*> bias, grad_weight, grad_bias;

    // A weight's gradient lies with its inputs or its outputs along the vectors, whichever takes fewer.
    static bool turned(Int in, Int out) { return out * padded(in) < in * padded(out); }
    static Int smaller(Int in, Int out) { return turned(in, out) ? out * padded(in) : in * padded(out); }

    static Int sum_sizes(const Spec& s, bool grad) {
        Int total = 0;
        for (Int l = 0; l < s.layers; l++) {
            const Int in = s.widths[l], out = s.widths[l + 1];
            total += (grad ? smaller(in, out) : Matrix::size(in, out)) + padded(out);
        }
        return total;
    }

    explicit MLP(const Spec& s)
        : Field(s), activation(s.activation), slopes(keeps_slope(s.activation)), start(layers), delta_start(layers),
          weight(layers), memory(sum_sizes(s, false)), grad(sum_sizes(s, true)), gz(padded(nx)), bias(layers),
          grad_weight(layers), grad_bias(layers) {
        double *at = memory.p, *grad_at = grad.p;
        memset(at, 0, sum_sizes(s, false) * sizeof(double));
        for (Int l = 0; l < layers; l++) {
            const Int in = s.widths[l], out = s.widths[l + 1], op = padded(out);
            start.p[l] = width;
            width += padded(in) * ((l ? slopes : power > 1) ? 2 : 1);
            delta_start.p[l] = deltas;
            deltas += op;
            weight.p[l] = Matrix{in, out, at, at + in * op};
            bias.p[l] = at + Matrix::size(in, out);
            at = bias.p[l] + op;
            grad_weight.p[l] = grad_at;
            grad_bias.p[l] = grad_at + smaller(in, out);
            grad_at = grad_bias.p[l] + op;
            n_parameters += (in + 1) * out;
        }
    }

    void bind(const double* params) override {
        for (Int l = 0; l < layers; l++) {
            const Matrix& w = weight.p[l];
            w.set(params);
            params += w.inputs * w.outputs;
            memcpy(bias.p[l], params, w.outputs * sizeof(double));
            params += w.outputs;
        }
    }

    double* inputs_of(double* block, Int l, Int count, Int at) const {
        return block + start.p[l] * count + at * padded(weight.p[l].inputs);
    }
    const double* inputs_of(const double* block, Int l, Int count, Int at) const {
        return inputs_of(const_cast<double*>(block), l, count, at);
    }

    void evaluate(const Point* points, Int number) override {
        for (Int k = 0; k < number; k++) {
            const Point& p = points[k];
            double* a = inputs_of(p.block, 0, p.count, p.at);
            normalise(p.x, a, a + padded(nx) * p.count);
        }
        for (Int l = 0; l + 1 < layers; l++)
            for (Int k = 0; k < number; k++) {
                const Point& p = points[k];
                double* y = inputs_of(p.block, l + 1, p.count, p.at);
                weight.p[l].forward(y, inputs_of(p.block, l, p.count, p.at), bias.p[l]);
                activate(y, padded(weight.p[l].outputs), y + padded(weight.p[l].outputs) * p.count);
            }
        for (Int k = 0; k < number; k++) {
            const Point& p = points[k];
            weight.p[layers - 1].forward(p.out, inputs_of(p.block, layers - 1, p.count, p.at), bias.p[layers - 1]);
            for (Int i = 0; i < np; i += W) store(p.out + i, load(p.out + i) * load(rate.p + i));
        }
    }

    void activate(double* y, Int size, double* slope) const {
        switch (activation) {
            case TANH: return activate_as<TANH>(y, size, slope);
            case SILU: return activate_as<SILU>(y, size, slope);
            case GELU: return activate_as<GELU>(y, size, slope);
            case RELU: return activate_as<RELU>(y, size, slope);
            default: return activate_as<SIGMOID>(y, size, slope);
        }
    }
    template <int A> static void activate_as(double* y, Int size, double* slope) {
        for (Int i = 0; i < size; i += W) {
            V s;
            store(y + i, activated(A, load(y + i), s));
            if (keeps_slope(A)) store(slope + i, s);
        }
    }

    void prepare(const double*, Int, double*) const override {}

    double* delta_of(const Pulled& p, Int l) const {
        return p.delta + delta_start.p[l] * p.count + p.at * padded(weight.p[l].outputs);
    }

    void backward(const Pulled* points, Int number) const override {
        for (Int k = 0; k < number; k++) {
            double* d = delta_of(points[k], layers - 1);
            for (Int i = 0; i < np; i += W) store(d + i, load(points[k].cotangent + i) * load(rate.p + i));
        }
        for (Int l = layers - 1; l > 0; l--)
            for (Int k = 0; k < number; k++) {
                const Pulled& p = points[k];
                const Int size = padded(weight.p[l].inputs);
                double* below = delta_of(p, l - 1);
                weight.p[l].backward(below, delta_of(p, l));
                const double* y = inputs_of(p.block, l, p.count, p.at);
                for (Int i = 0; i < size; i += W) {
                    const V s = slopes ? load(y + size * p.count + i) : slope_at(activation, load(y + i));
                    store(below + i, load(below + i) * s);
                }
            }
        for (Int k = 0; k < number; k++) {
            const Pulled& p = points[k];
            weight.p[0].backward(gz.p, delta_of(p, 0));
            const double* z = inputs_of(p.block, 0, p.count, p.at);
            from_normalised(z, z + padded(nx) * p.count, gz.p, p.g);
        }
    }

    void pull(const double* block, const double*, Int count, const double* delta) override {
        for (Int l = 0; l < layers; l++) {
            const Matrix& w = weight.p[l];
            const double *x = inputs_of(block, l, count, 0), *d = delta + delta_start.p[l] * count;
            if (count == STAGES) add_points<STAGES>(l, w, x, d);
            else add_points<1>(l, w, x, d);
        }
    }
    template <int N> void add_points(Int l, const Matrix& w, const double* x, const double* d) {
        const Int in = w.inputs, out = w.outputs;
        if (turned(in, out)) add_products<N>(grad_weight.p[l], d, padded(out), x, out, in);
        else add_products<N>(grad_weight.p[l], x, padded(in), d, in, out);
        add_sums_of<N>(grad_bias.p[l], d, w.outputs);
    }

    void clear() override {
        for (Int l = 0; l < layers; l++)
            zero(grad_weight.p[l], smaller(weight.p[l].inputs, weight.p[l].outputs) + padded(weight.p[l].outputs));
    }

    void gradient(double* to) const override {
        for (Int l = 0; l < layers; l++) {
            const Int in = weight.p[l].inputs, out = weight.p[l].outputs;
            const double* from = grad_weight.p[l];
            const bool columns = turned(in, out);
            for (Int i = 0; i < in; i++)
                for (Int o = 0; o < out; o++) *to++ = columns ? from[o * padded(in) + i] : from[i * padded(out) + o];
            memcpy(to, grad_bias.p[l], out * sizeof(double));
            to += out;
        }
    }
};

}  // namespace
