// The gradient's own gradient, where inputs and weights both vary, in one pass over the weights; part of spline.cpp.

#pragma once

#include "sparse.h"

namespace {

const int WIDEST = BYTES == 64 ? 4 : 2;  // vectors that registers hold of each row

// Tangent of the scaled weights, hw * scale + w * hscale (a null pointer: hw is zero, scale is one, hscale is zero),
// packed as `pack` does it.
template <class T>
void pack_tangent(const T* w, const T* scale, const T* hw, const T* hscale, const T* base, Int O, Int P, Int Q,
                  Int inputs, Int columns, Int width, T* out) {
    if (!hscale) return pack(hw, scale, base, O, P, Q, inputs, columns, width, out);
    for (Int i = 0; i < inputs; i++) {
        for (Int m = 0; m < P; m++, out += width) {
            const Int at = (i * P + m) * O;
            for (Int o = 0; o < columns; o++) out[o] = w[at + o] * hscale[i * O + o];
            if (hw)
                for (Int o = 0; o < columns; o++) out[o] += hw[at + o] * scale[i * O + o];
            memset(out + columns, 0, (width - columns) * sizeof(T));
        }
        if (Q > P) out = pack_base(base ? base + i * O : 0, columns, width, out);
    }
}

// From the gradients of the scaled weights, gw along hx and gv of the values, those of weights (in place) and scales.
template <class T>
void split_tangent(const T* w, const T* scale, const T* hw, const T* hscale, Int O, Int P, Int inputs, Int columns,
                   T* gw, const T* gv, T* gs) {
    for (Int i = 0; i < inputs; i++) {
        memset(gs + i * O, 0, columns * sizeof(T));
        for (Int m = 0; m < P; m++) {
            const Int at = (i * P + m) * O;
            T *to = gs + i * O, *weights = gw + at;
            const T *s = scale + i * O, *values = gv + at;
            for (Int c = 0; c < columns; c++) {
                to[c] += weights[c] * w[at + c];
                weights[c] *= s[c];
            }
            if (hw)
                for (Int c = 0; c < columns; c++) to[c] += values[c] * hw[at + c];
            if (hscale)
                for (Int c = 0; c < columns; c++) weights[c] += values[c] * hscale[i * O + c];
        }
    }
}

// ggy += (hx B') W + B V, and to gx, without its first term where BENDS is false: hx B'' . (W gy) + B' . (V gy). The
// base branch is a spline too.
template <class T, int S, int NV, bool BENDS, bool BASE>
void second_rows(Int P, const Scratch<T>& b, Int rows, Int inputs, const T* w, const T* v, const T* gy, T* ggy,
                 Int O, Int columns, T* gx) {
    typedef typename Lanes<T>::V V;
    const int L = Lanes<T>::n, width = NV * L;
    const Int Q = P + BASE;
    for (Int n = 0; n < rows; n++) {
        V of[NV], acc[NV], more[NV] = {};  // two sums: shorter chains of additions that wait for each other
        get_row<T, NV>(gy + n * O, columns, of);
        get_row<T, NV>(ggy + n * O, columns, acc);
        const int* cell = b.cell.p + n * inputs;
        const T *base = b.base + n * inputs, *rise = b.rise + n * inputs, *base_change = b.base_moved.p + n * inputs;
        add_dots(inputs, gx + n * inputs, [&](Int i) {
            const Int at = place<T, S>(n * inputs + i), from = (i * Q + cell[i]) * width, its = (i * Q + P) * width;
            const T *value = b.value.p + at, *slope = b.slope.p + at, *bent = b.curve.p + at;
            const T* change = b.moved.p + at;
            V total = {};
#pragma GCC unroll 4
            for (int a = 0; a < NV; a++) {
                V t = {};
#pragma GCC unroll 8
                for (int q = 0; q <= S; q++) {
                    const V read = load(w + from + q * width + a * L), weight = BENDS ? held<T>(read) : read;
                    const V tangent = held<T>(load(v + from + q * width + a * L));
                    acc[a] += change[q * L] * weight;
                    more[a] += value[q * L] * tangent;
                    t += slope[q * L] * tangent;
                    if (BENDS) t += bent[q * L] * weight;
                }
                if (BASE) {
                    const V tangent = held<T>(load(v + its + a * L));
                    acc[a] += base_change[i] * load(w + its + a * L);
                    more[a] += base[i] * tangent;
                    t += rise[i] * tangent;
                }
                total += t * of[a];
            }
            return total;
        });
        for (int a = 0; a < NV; a++) acc[a] += more[a];
        put_row<T, NV>(acc, columns, ggy + n * O);
    }
}

template <class T, int S, int NV, bool BENDS, bool BASE>
void second_tile(Int P, const Scratch<T>& b, const Sorted& sorted, Int rows, Int inputs, const T* w, const T* v,
                 const T* gy, T* ggy, Int O, Int columns, T* gx, T* gw, T* gv) {
    second_rows<T, S, NV, BENDS, BASE>(P, b, rows, inputs, w, v, gy, ggy, O, columns, gx);
    if (gw) add_chunks<T, S, NV, BASE>(P, b.moved.p, b.base_moved.p, b, sorted, rows, inputs, gw, gy, O, columns);
    if (gv) add_chunks<T, S, NV, false>(P, b.value.p, b.base, b, sorted, rows, inputs, gv, gy, O, columns);
}

template <class T, int S, int NV> auto tile_kernel(bool bends, bool base) {  // what is kept with a base has no bends
    return bends ? second_tile<T, S, NV, true, false>
           : base ? second_tile<T, S, NV, false, true>
                  : second_tile<T, S, NV, false, false>;
}

// All terms of `_spline_second.plain_terms`, and the gradients of both factors of the scaled weights, where hx and a
// tangent of the weights (hw or hscale) are given. `bend` (N, I), hx B'' . (W gy) over hx, and `values` (I, P, O), B^T gy,
// do not depend on the tangents: where `known`, they are read, else `bend` is null and `values` written; values and gs
// are null without a scale, gw where weights need no gradient.
template <class T, int S>
void second(const Grid& g, const T* gy, const T* x, const T* h, Int N, Int I, Int O, const T* cells, const T* w,
            const T* scale, const T* hw, const T* hscale, const Base<T>* base, const Kept<T>* kept, T* ggy, T* gx,
            T* gw, T* gs, const T* bend, T* values, Int known) {
    typedef typename Lanes<T>::V V;
    const Int P = g.grid + S, Q = base ? P + 1 : P, L = Lanes<T>::n, inputs = tile_inputs<T>(I, P, O);
    const Int rows = N < 1 ? 1 : least(N, ROWS);
    const bool bends = !bend && !(kept && kept->bend);
    const bool parallel = g.threads > 1 && N * I * O > 100000;
    const Int threads = parallel ? g.threads : 1;
    Buffer<T> sums(threads > 1 ? threads * rows * O : 0);  // of each thread, for a block of rows
#ifdef _OPENMP
#pragma omp parallel num_threads(int(threads)) if (parallel)
#endif
    {
        Scratch<T> b(g, rows, inputs, bends, gw, true);
        const Int size = inputs * Q * WIDEST * L;
        Buffer<T> tile(size), tangent(size), of_moved(gw ? size : 0), of_values(values && !known ? size : 0);
        Buffer<T> gxs(rows * inputs);
#ifdef _OPENMP
        const Int thread = omp_get_thread_num(), team = omp_get_num_threads();
#else
        const Int thread = 0, team = 1;
#endif
        for (Int n = 0; n < N; n += rows) {
            const Int count = least(rows, N - n);
            T* own = team > 1 ? sums.p + thread * rows * O : ggy + n * O;
            if (team > 1) memset(own, 0, count * O * sizeof(T));
#ifdef _OPENMP
#pragma omp for schedule(static)
#endif
            for (Int i = 0; i < I; i += inputs) {
                const Int ni = least(inputs, I - i), at = n * I + i, places = count * ni;
                const T* tile_cells = cells + (g.uniform ? i : i * g.n_cells);
                if (bends) fill<T, S, 2>(g, x, kept, n, count, i, ni, I, tile_cells, b);
                else fill<T, S, 1>(g, x, kept, n, count, i, ni, I, tile_cells, b);
                lengths(g, h + at, I, count, ni, tile_cells, b);
                const Sorted sorted(kept, n, i, I, g.grid);
                for (Int k = 0; k < places; k += L) {
                    const V along = load(b.u.p + k);
                    for (Int j = k * (S + 1); j < (k + L) * (S + 1); j += L) {
                        store(b.moved.p + j, V(along * load(b.slope.p + j)));
                        if (bends) store(b.curve.p + j, V(along * load(b.curve.p + j)));
                    }
                    if (base) store(b.base_moved.p + k, V(along * load(b.rise + k)));
                }
                memset(gxs.p, 0, places * sizeof(T));
                for (Int o = 0; o < O;) {
                    const Int nv = least(vectors(O - o, L), WIDEST), columns = least(O - o, nv * L), width = nv * L;
                    const Int from = i * P * O + o, edge = i * O + o;
                    const T *s = scale ? scale + edge : 0, *hs = hscale ? hscale + edge : 0, *v = hw ? hw + from : 0;
                    const T* bw = base ? base->weight + edge : 0;
                    const T* bh = base && base->tangent ? base->tangent + edge : 0;
                    pack(w + from, s, bw, O, P, Q, ni, columns, width, tile.p);
                    pack_tangent(w + from, s, v, hs, bh, O, P, Q, ni, columns, width, tangent.p);
                    T *gt = gw ? of_moved.p : 0, *gvt = gw && values && !known ? of_values.p : 0;
                    if (gt) memset(gt, 0, ni * Q * width * sizeof(T));
                    if (gvt) memset(gvt, 0, ni * P * width * sizeof(T));
                    const T* of = gy + n * O + o;
                    const auto run = nv == 1   ? tile_kernel<T, S, 1>(bends, base)
                                     : nv == 2 ? tile_kernel<T, S, WIDEST < 2 ? WIDEST : 2>(bends, base)
                                               : tile_kernel<T, S, WIDEST>(bends, base);
                    run(P, b, sorted, count, ni, tile.p, tangent.p, of, own + o, O, columns, gxs.p, gt, gvt);
                    T *bg = base && base->grad ? base->grad + edge : 0, *none = 0;
                    if (gt) unpack(gt, P, Q, ni, columns, width, O, n > 0, gw + from, bg);
                    if (gvt) unpack(gvt, P, P, ni, columns, width, O, n > 0, values + from, none);
                    if (gt && gs && n + count == N)
                        split_tangent(w + from, s, v, hs, O, P, ni, columns, gw + from, values + from, gs + edge);
                    o += columns;
                }
                const T* its = kept && kept->bend ? kept->bend + kept_at(n, count, i, I) : bend ? bend + at : 0;
                const Int step = kept && kept->bend ? ni : I;
                for (Int r = 0; r < count; r++)
                    for (Int k = 0; k < ni; k++) {
                        const Int p = at + r * I + k;
                        const T d = gxs.p[r * ni + k];
                        const T bent = its ? h[p] * its[r * step + k] : T(0);
                        gx[p] += (g.uniform ? d * cells[g.n_cells + i + k] : d) + bent;
                    }
            }
            if (team > 1) {
#ifdef _OPENMP
#pragma omp for schedule(static)
#endif
                for (Int k = 0; k < count * O; k++)
                    for (Int t = 0; t < team; t++) ggy[n * O + k] += sums.p[t * rows * O + k];
            }
        }
    }
}

}  // namespace
