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

    static Int sum_sizes(const Spec& s, bool grad) {
        Int total = 0;
        for (Int l = 0; l < s.layers; l++) {
            const Int in = s.widths[l], out = s.widths[l + 1];
            total += (grad ? in * padded(out) : Matrix::size(in, out)) + padded(out);
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
            grad_bias.p[l] = grad_at + in * op;
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

    void evaluate(const double* x, double* block, Int count, Int at, double* out) override {
        double* a = inputs_of(block, 0, count, at);
        normalise(x, a, a + padded(nx) * count);
        for (Int l = 0; l + 1 < layers; l++) {
            double* y = inputs_of(block, l + 1, count, at);
            weight.p[l].forward(y, a, bias.p[l]);
            activate(y, padded(weight.p[l].outputs), y + padded(weight.p[l].outputs) * count);
            a = y;
        }
        weight.p[layers - 1].forward(out, a, bias.p[layers - 1]);
        for (Int i = 0; i < np; i += W) store(out + i, load(out + i) * load(rate.p + i));
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

    void backward(const double* block, const double*, Int count, Int at, const double* cotangent, double* delta,
                  double* g) const override {
        double* d = delta + delta_start.p[layers - 1] * count + at * np;
        for (Int i = 0; i < np; i += W) store(d + i, load(cotangent + i) * load(rate.p + i));
        for (Int l = layers - 1; l > 0; l--) {
            const Int size = padded(weight.p[l].inputs);
            double* below = delta + delta_start.p[l - 1] * count + at * size;
            weight.p[l].backward(below, d);
            const double* y = inputs_of(block, l, count, at);
            for (Int i = 0; i < size; i += W) {
                const V s = slopes ? load(y + size * count + i) : slope_at(activation, load(y + i));
                store(below + i, load(below + i) * s);
            }
            d = below;
        }
        weight.p[0].backward(gz.p, d);
        const double* z = inputs_of(block, 0, count, at);
        from_normalised(z, z + padded(nx) * count, gz.p, g);
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
        add_products<N>(grad_weight.p[l], x, padded(w.inputs), d, w.inputs, w.outputs);
        add_sums_of<N>(grad_bias.p[l], d, w.outputs);
    }

    void clear() override {
        for (Int l = 0; l < layers; l++)
            memset(grad_weight.p[l], 0, (weight.p[l].inputs + 1) * padded(weight.p[l].outputs) * sizeof(double));
    }

    void gradient(double* to) const override {
        for (Int l = 0; l < layers; l++) {
            const Int in = weight.p[l].inputs, out = weight.p[l].outputs;
            for (Int i = 0; i <= in; i++, to += out)  // the bias is the last row
                memcpy(to, grad_weight.p[l] + i * padded(out), out * sizeof(double));
        }
    }
};

}  // namespace
