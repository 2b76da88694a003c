// The sparse way: the S + 1 splines that may differ from zero meet their weights; part of spline.cpp.

#pragma once

#include "products.h"

namespace {

// Weights of a tile, contiguous: (inputs, P, width), columns beyond `columns` zero. A slice of rows O floats apart
// would fall on few sets of the cache.
template <class T>
void pack(const T* w, const T* scale, Int O, Int P, Int inputs, Int columns, Int width, T* out) {
    for (Int i = 0; i < inputs; i++)
        for (Int m = 0; m < P; m++, out += width) {
            const T* row = w + (i * P + m) * O;
            if (scale)
                for (Int o = 0; o < columns; o++) out[o] = row[o] * scale[i * O + o];
            else
                memcpy(out, row, columns * sizeof(T));
            memset(out + columns, 0, (width - columns) * sizeof(T));
        }
}

// The gradient of a tile of weights to where it belongs, (inputs, P, O) in memory.
template <class T>
void unpack(const T* from, Int P, Int inputs, Int columns, Int width, Int O, bool add, T* to) {
    for (Int k = 0; k < inputs * P; k++, from += width, to += O)
        if (add)
            for (Int c = 0; c < columns; c++) to[c] += from[c];
        else
            memcpy(to, from, columns * sizeof(T));
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
template <class T, class Term> inline void add_dots(Int inputs, T* to, const Term& term) {
    Int i = 0;
    for (; i + 4 <= inputs; i += 4) {
        const typename Lanes<T>::V v[4] = {term(i), term(i + 1), term(i + 2), term(i + 3)};
        add_sums<T>(v, to + i);
    }
    for (; i < inputs; i++) to[i] += sum_lanes<T>(term(i));
}

template <class T, int S, int NV>
void gradients(Int P, const Scratch<T>& b, Int rows, Int inputs, const T* w, T* gw, const T* gy, Int O, Int columns,
               T* gx) {
    typedef typename Lanes<T>::V V;
    const int L = Lanes<T>::n, width = NV * L;
    if (gx)
        for (Int n = 0; n < rows; n++) {
            V of[NV];
            get_row<T, NV>(gy + n * O, columns, of);
            const int* cell = b.cell.p + n * inputs;
            add_dots(inputs, gx + n * inputs, [&](Int i) {
                const T *from = w + (i * P + cell[i]) * width, *slope = b.slope.p + place<T, S>(n * inputs + i);
                V total = {};
#pragma GCC unroll 4
                for (int a = 0; a < NV; a++) {
                    V t = {};
#pragma GCC unroll 8
                    for (int q = 0; q <= S; q++) t += slope[q * L] * load(from + q * width + a * L);
                    total += t * of[a];
                }
                return total;
            });
        }
    if (gw) add_products<T, S, NV>(P, b.value.p, b, rows, inputs, gw, gy, O, columns);
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
                    pack(w + i * P * O + o, scale ? scale + i * O + o : 0, O, P, ni, columns, nv * L, tile.p);
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
                     const T* w, const T* scale, T* gx, T* gw, T* gs) {
    const Int P = g.grid + S, L = Lanes<T>::n, inputs = tile_inputs<T>(I, P, O);
    const Int rows = N < 1 ? 1 : least(N, ROWS);
#ifdef _OPENMP
#pragma omp parallel num_threads(int(g.threads)) if (g.threads > 1 && N * I * O > 100000)
#endif
    {
        Scratch<T> b(g, rows, inputs, h, gw);
        Buffer<T> tile(inputs * P * 4 * L), gtile(inputs * P * 4 * L), gxs(rows * inputs);
#ifdef _OPENMP
#pragma omp for schedule(dynamic)
#endif
        for (Int i = 0; i < I; i += inputs) {
            const Int ni = least(inputs, I - i);
            for (Int n = 0; n < N; n += rows) {
                const Int count = least(rows, N - n);
                const Int at = n * I + i;
                basis<T, S, 1>(g, x + at, h ? h + at : 0, I, count, ni, cells + (g.uniform ? i : i * g.n_cells), b);
                memset(gxs.p, 0, count * ni * sizeof(T));
                for (Int o = 0; o < O;) {
                    const Int nv = vectors(O - o, L), columns = least(O - o, nv * L), width = nv * L;
                    if (gx) pack(w + i * P * O + o, scale ? scale + i * O + o : 0, O, P, ni, columns, width, tile.p);
                    T *to = gw ? gw + i * P * O + o : 0, *gt = gw ? gtile.p : 0, *gxp = gx ? gxs.p : 0;
                    if (gw) memset(gt, 0, ni * P * width * sizeof(T));
                    const T* from = gy + n * O + o;
                    if (nv == 1) gradients<T, S, 1>(P, b, count, ni, tile.p, gt, from, O, columns, gxp);
                    else if (nv == 2) gradients<T, S, 2>(P, b, count, ni, tile.p, gt, from, O, columns, gxp);
                    else gradients<T, S, 4>(P, b, count, ni, tile.p, gt, from, O, columns, gxp);
                    if (gw) unpack(gt, P, ni, columns, width, O, n > 0, to);
                    if (gs && n + count == N) {
                        const Int edge = i * O + o;
                        split(w + i * P * O + o, scale + edge, O, P, ni, columns, to, gs + edge);
                    }
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

}  // namespace
