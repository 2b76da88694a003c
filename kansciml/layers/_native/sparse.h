// The sparse way: the S + 1 splines that may differ from zero meet their weights; part of spline.cpp.

#pragma once

#include "products.h"

namespace {

template <class T> T* pack_base(const T* row, Int columns, Int width, T* out) {
    const Int from = row ? columns : 0;
    if (row) memcpy(out, row, columns * sizeof(T));
    memset(out + from, 0, (width - from) * sizeof(T));
    return out + width;
}

// Weights of a tile, contiguous: (inputs, Q, width), columns beyond `columns` zero. A slice of rows O floats apart
// would fall on few sets of the cache. Q is P, or with a base branch P + 1: its weights (null: zero) are last.
template <class T>
void pack(const T* w, const T* scale, const T* base, Int O, Int P, Int Q, Int inputs, Int columns, Int width, T* out) {
    for (Int i = 0; i < inputs; i++) {
        for (Int m = 0; m < P; m++, out += width) {
            const T* row = w + (i * P + m) * O;
            if (scale)
                for (Int o = 0; o < columns; o++) out[o] = row[o] * scale[i * O + o];
            else
                memcpy(out, row, columns * sizeof(T));
            memset(out + columns, 0, (width - columns) * sizeof(T));
        }
        if (Q > P) out = pack_base(base ? base + i * O : 0, columns, width, out);
    }
}

// The gradient of a tile of weights to where it belongs, (inputs, P, O) in memory, and of the base's, (inputs, O).
template <class T>
void unpack(const T* from, Int P, Int Q, Int inputs, Int columns, Int width, Int O, bool add, T* to, T* base) {
    for (Int i = 0; i < inputs; i++)
        for (Int q = 0; q < Q; q++, from += width) {
            T* row = q < P ? to + (i * P + q) * O : base ? base + i * O : 0;
            if (row && add)
                for (Int c = 0; c < columns; c++) row[c] += from[c];
            else if (row)
                memcpy(row, from, columns * sizeof(T));
        }
}

// A finished gradient of scaled weights becomes those of the weights (in place) and of the scales.
template <class T>
void split(const T* w, const T* scale, Int O, Int P, Int inputs, Int columns, T* gw, T* gs) {
    for (Int i = 0; i < inputs; i++, scale += O, gs += O) {
        memset(gs, 0, columns * sizeof(T));
        for (Int m = 0; m < P; m++, w += O, gw += O)
            for (Int c = 0; c < columns; c++) {
                gs[c] += gw[c] * w[c];
                gw[c] *= scale[c];
            }
    }
}

template <class T, int S, int NV>
void add_rows(Int P, const Scratch<T>& b, Int rows, Int inputs, const T* w, T* y, Int O, Int columns) {
    typedef typename Lanes<T>::V V;
    const int L = Lanes<T>::n, width = NV * L;
    for (Int n = 0; n < rows; n++) {
        V acc[NV];
        get_row<T, NV>(y + n * O, columns, acc);
        const int* cell = b.cell.p + n * inputs;
        for (Int i = 0; i < inputs; i++) {
            const T *from = w + (i * P + cell[i]) * width, *value = b.value.p + place<T, S>(n * inputs + i);
            V t[NV] = {};  // a sum of its own: shorter chains of additions that wait for each other
#pragma GCC unroll 8
            for (int q = 0; q <= S; q++)
#pragma GCC unroll 4
                for (int a = 0; a < NV; a++) t[a] += value[q * L] * load(from + q * width + a * L);
#pragma GCC unroll 4
            for (int a = 0; a < NV; a++) acc[a] += t[a];
        }
        put_row<T, NV>(acc, columns, y + n * O);
    }
}

// Calls term(i) for i < inputs, a vector each, and adds the sums of their lanes to `to`.
template <class T, class Term> INLINE void add_dots(Int inputs, T* to, const Term& term) {
    Int i = 0;
    for (; i + 4 <= inputs; i += 4) {
        const typename Lanes<T>::V v[4] = {term(i), term(i + 1), term(i + 2), term(i + 3)};
        add_sums<T>(v, to + i);
    }
    for (; i < inputs; i++) to[i] += sum_lanes<T>(term(i));
}

template <class T, int S, int NV, bool BASE>
void gradients(Int P, const Scratch<T>& b, const Sorted& sorted, Int rows, Int inputs, const T* w, T* gw,
               const T* gy, Int O, Int columns, T* gx) {
    typedef typename Lanes<T>::V V;
    const int L = Lanes<T>::n, width = NV * L;
    const Int Q = P + BASE;
    if (gx)
        for (Int n = 0; n < rows; n++) {
            V of[NV];
            get_row<T, NV>(gy + n * O, columns, of);
            const int* cell = b.cell.p + n * inputs;
            const T* rise = b.rise + n * inputs;
            add_dots(inputs, gx + n * inputs, [&](Int i) {
                const T *from = w + (i * Q + cell[i]) * width, *slope = b.slope.p + place<T, S>(n * inputs + i);
                V total = {};
#pragma GCC unroll 4
                for (int a = 0; a < NV; a++) {
                    V t = {};
#pragma GCC unroll 8
                    for (int q = 0; q <= S; q++) t += slope[q * L] * load(from + q * width + a * L);
                    if (BASE) t += rise[i] * load(w + (i * Q + P) * width + a * L);
                    total += t * of[a];
                }
                return total;
            });
        }
    if (gw) add_chunks<T, S, NV, BASE>(P, b.value.p, b.base, b, sorted, rows, inputs, gw, gy, O, columns);
}

const Int ROWS = 512;  // of a block: its basis stays in the second-level cache
// Bytes of packed weights: with those of a gradient, or of a tangent, still the first-level cache.
const Int TILE_FORWARD = 1 << 15, TILE = 1 << 14;

template <class T> Int tile_inputs(Int I, Int P, Int O, Int bytes = TILE) {
    const Int width = least(4, (O + Lanes<T>::n - 1) / Lanes<T>::n) * BYTES;
    const Int n = bytes / (P * width);
    return least(I, n < 4 ? 4 : n > 64 ? 64 : n);
}

inline Int vectors(Int columns, Int L) { return columns <= L ? 1 : columns <= 2 * L ? 2 : 4; }

template <class T, int S>
void sparse_forward(const Grid& g, const T* x, const T* h, Int N, Int I, Int O, const T* cells, const T* w,
                    const T* scale, T* y) {
    const Int P = g.grid + S, L = Lanes<T>::n, inputs = tile_inputs<T>(I, P, O, TILE_FORWARD);
    Int rows = (N + g.threads - 1) / g.threads;
    rows = rows > ROWS ? ROWS : rows < 1 ? 1 : rows;
#ifdef _OPENMP
#pragma omp parallel num_threads(int(g.threads)) if (g.threads > 1 && N * I * O > 100000)
#endif
    {
        Scratch<T> b(g, rows, inputs, false, false);
        Buffer<T> tile(inputs * P * 4 * L);
#ifdef _OPENMP
#pragma omp for schedule(dynamic)
#endif
        for (Int n = 0; n < N; n += rows) {
            const Int count = least(rows, N - n);
            for (Int i = 0; i < I; i += inputs) {
                const Int ni = least(inputs, I - i);
                const Int at = n * I + i;
                basis<T, S, 0>(g, x + at, h ? h + at : 0, I, count, ni, cells + (g.uniform ? i : i * g.n_cells), b);
                for (Int o = 0; o < O;) {
                    const Int nv = vectors(O - o, L), columns = least(O - o, nv * L);
                    T* to = y + n * O + o;
                    const T *s = scale ? scale + i * O + o : 0, *none = 0;
                    pack(w + i * P * O + o, s, none, O, P, P, ni, columns, nv * L, tile.p);
                    if (nv == 1) add_rows<T, S, 1>(P, b, count, ni, tile.p, to, O, columns);
                    else if (nv == 2) add_rows<T, S, 2>(P, b, count, ni, tile.p, to, O, columns);
                    else add_rows<T, S, 4>(P, b, count, ni, tile.p, to, O, columns);
                    o += columns;
                }
            }
        }
    }
}

template <class T, int S>
void sparse_backward(const Grid& g, const T* gy, const T* x, const T* h, Int N, Int I, Int O, const T* cells,
                     const T* w, const T* scale, const Base<T>* base, const Kept<T>* kept, T* gx, T* gw, T* gs) {
    const Int P = g.grid + S, Q = base ? P + 1 : P, L = Lanes<T>::n, inputs = tile_inputs<T>(I, P, O);
    const Int rows = N < 1 ? 1 : least(N, ROWS);
#ifdef _OPENMP
#pragma omp parallel num_threads(int(g.threads)) if (g.threads > 1 && N * I * O > 100000)
#endif
    {
        Scratch<T> b(g, rows, inputs, h, gw);
        Buffer<T> tile(inputs * Q * 4 * L), gtile(inputs * Q * 4 * L), gxs(rows * inputs);
#ifdef _OPENMP
#pragma omp for schedule(dynamic)
#endif
        for (Int i = 0; i < I; i += inputs) {
            const Int ni = least(inputs, I - i);
            const T* tile_cells = cells + (g.uniform ? i : i * g.n_cells);
            for (Int n = 0; n < N; n += rows) {
                const Int count = least(rows, N - n), at = n * I + i;
                if (h) basis<T, S, 1>(g, x + at, h + at, I, count, ni, tile_cells, b);
                else fill<T, S, 1>(g, x, kept, n, count, i, ni, I, tile_cells, b);
                const Sorted sorted(kept, n, i, I, g.grid);
                memset(gxs.p, 0, count * ni * sizeof(T));
                for (Int o = 0; o < O;) {
                    const Int nv = vectors(O - o, L), columns = least(O - o, nv * L), width = nv * L;
                    const Int edge = i * O + o;
                    const T *s = scale ? scale + edge : 0, *base_weight = base ? base->weight + edge : 0;
                    if (gx) pack(w + i * P * O + o, s, base_weight, O, P, Q, ni, columns, width, tile.p);
                    T *to = gw ? gw + i * P * O + o : 0, *gt = gw ? gtile.p : 0, *gxp = gx ? gxs.p : 0;
                    if (gw) memset(gt, 0, ni * Q * width * sizeof(T));
                    const auto run = nv == 1   ? base ? gradients<T, S, 1, true> : gradients<T, S, 1, false>
                                     : nv == 2 ? base ? gradients<T, S, 2, true> : gradients<T, S, 2, false>
                                     : base    ? gradients<T, S, 4, true>
                                               : gradients<T, S, 4, false>;
                    run(P, b, sorted, count, ni, tile.p, gt, gy + n * O + o, O, columns, gxp);
                    T* base_grad = base && base->grad ? base->grad + edge : 0;
                    if (gw) unpack(gt, P, Q, ni, columns, width, O, n > 0, to, base_grad);
                    if (gs && n + count == N) split(w + i * P * O + o, s, O, P, ni, columns, to, gs + edge);
                    o += columns;
                }
                if (gx)
                    for (Int r = 0; r < count; r++)
                        for (Int k = 0; k < ni; k++) {
                            const T d = gxs.p[r * ni + k];
                            gx[(n + r) * I + i + k] += g.uniform ? d * cells[g.n_cells + i + k] : d;
                        }
            }
        }
    }
}

// Numbers of a layer's input in the order of `Kept`, for tiles of a layer with O outputs.
template <class T, int S> void in_tiles(const Grid& g, const T* from, Int N, Int I, Int O, T* to) {
    const Int inputs = tile_inputs<T>(I, g.grid + S, O);
    for (Int n = 0; n < N; n += ROWS)
        for (Int i = 0; i < I; i += inputs) {
            const Int ni = least(inputs, I - i), count = least(ROWS, N - n), at = kept_at(n, count, i, I);
            for (Int r = 0; r < count; r++) memcpy(to + at + r * ni, from + (n + r) * I + i, ni * sizeof(T));
        }
}

// All of `Kept`, from positions x (in intervals where knots are even), act(x), act'(x) per interval and bend, (N, I).
template <class T, int S>
void keep(const Grid& g, const T* x, const T* value, const T* slope, const T* bend, Int N, Int I, Int O, const T* cells,
          const Kept<T>& to) {
    in_tiles<T, S>(g, x, N, I, O, to.u);
    in_tiles<T, S>(g, bend, N, I, O, to.bend);
    if (value) in_tiles<T, S>(g, value, N, I, O, to.value);
    if (slope) in_tiles<T, S>(g, slope, N, I, O, to.slope);
    if (!to.order) return;
    const Int inputs = tile_inputs<T>(I, g.grid + S, O), G = g.grid;
    Scratch<T> b(g, ROWS, inputs, false, true);
    for (Int n = 0; n < N; n += ROWS)
        for (Int i = 0; i < I; i += inputs) {
            const Int ni = least(inputs, I - i), rows = least(ROWS, N - n);
            const T* tile_cells = cells + (g.uniform ? i : i * g.n_cells);
            fill_basis<T, S, 1>(g, x, to.u + kept_at(n, rows, i, I), I, rows, ni, tile_cells, b);
            for (Int first = 0; first < rows; first += CHUNK) {
                sort(b, first, least(CHUNK, rows - first), ni, G);
                const Int at = (n + first) / CHUNK * I + i;
                for (Int k = 0; k < ni; k++) {
                    unsigned char* next = to.order + (at + k) * CHUNK;
                    for (Int c = 0; c < G; c++) {
                        const Int members = to.members[(at + k) * G + c] = b.members.p[k * G + c];
                        memcpy(next, b.order.p + (k * G + c) * CHUNK, members);
                        next += members;
                    }
                }
            }
        }
}

}  // namespace
