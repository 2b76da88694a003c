// The S + 1 splines that may differ from zero at each position of a tile, with their slopes; part of spline.cpp.

#pragma once

#include <stdlib.h>
#include <string.h>

namespace {

typedef long long Int;

struct Grid {  // shared with Python: keep the order
    Int grid, order, uniform, outside;  // outside: 0 zero, 1 clamp, 2 linear
    Int n_cells;                        // row length of `cells`: I (uniform) or G + 2S + 1
    Int threads;
};

template <class T> struct Lanes;
template <> struct Lanes<float> {
    typedef float V __attribute__((vector_size(64)));
    typedef int M __attribute__((vector_size(64)));
    typedef float H __attribute__((vector_size(32)));
    typedef float Q __attribute__((vector_size(16)));
    static const int n = 16;
};
template <> struct Lanes<double> {
    typedef double V __attribute__((vector_size(64)));
    typedef Int M __attribute__((vector_size(64)));
    typedef double H __attribute__((vector_size(32)));
    typedef double Q __attribute__((vector_size(16)));
    static const int n = 8;
};

template <class T> inline typename Lanes<T>::V load(const T* p) {
    typename Lanes<T>::V v;
    memcpy(&v, p, sizeof v);
    return v;
}
template <class T> inline void store(T* p, const typename Lanes<T>::V& v) { memcpy(p, &v, sizeof v); }

template <class T> inline T sum_lanes(const typename Lanes<T>::V& v) {
    typename Lanes<T>::H h[2];
    memcpy(h, &v, sizeof v);
    h[0] += h[1];
    typename Lanes<T>::Q q[2];
    memcpy(q, h, sizeof q);
    q[0] += q[1];
    T t[16 / sizeof(T)], total = 0;
    memcpy(t, q, sizeof t);
    for (unsigned k = 0; k < 16 / sizeof(T); k++) total += t[k];
    return total;
}

template <class T> struct Buffer {  // aligned to a cache line; scratch memory of one thread
    T* p;
    explicit Buffer(Int n) {
        void* q = 0;
        if (posix_memalign(&q, 64, (n + 64) * sizeof(T))) abort();
        p = static_cast<T*>(q);
    }
    ~Buffer() { free(p); }
    Buffer(const Buffer&) = delete;
};

// Splines beyond either end of the weights are dropped, so that a position always reads weights c ... c + S.
template <class T, int S> inline void put(Int e, Int G, const T* v, T* out) {
    const Int c = e < 0 ? 0 : e > G - 1 ? G - 1 : e;
    for (int q = 0; q <= S; q++) {
        const Int from = q + c - e;
        out[q] = from >= 0 && from <= S ? v[from] : T(0);
    }
}

// S + 1 values (and slopes per interval) of uniform splines at u, positions in intervals from the grid's left end.
template <class T, int S, bool SLOPE>
void uniform_basis(const Grid& g, const T* u, Int count, int* cell, T* value, T* slope) {
    typedef typename Lanes<T>::V V;
    typedef typename Lanes<T>::M M;
    const int L = Lanes<T>::n;
    const T G = T(g.grid), low = g.outside ? T(0) : T(-S), high = g.outside ? G : G + S;
    const V zero = {}, one = zero + T(1);
    for (Int k = 0; k < count; k += L) {  // u, value, slope, cell hold a whole number of vectors
        const V at = load(u + k);
        const M nan = at != at, below = at < zero + low, above = at > zero + high;
        V x = below ? zero + low : at;
        x = above ? zero + high : x;
        x = nan ? zero : x;
        V f = __builtin_convertvector(__builtin_convertvector(x, M), V);
        f = f > x ? f - one : f;
        f = x == zero + G ? zero + (G - 1) : f;  // the right end belongs to the last interval
        const V r = x - f;
        V v[S + 2], s[S + 1];
        v[0] = one;
        for (int q = 0; q <= S; q++) s[q] = zero;
#pragma GCC unroll 8
        for (int o = 1; o <= S; o++) {
            if (o == S) {
                s[0] = -v[0];
                for (int q = 1; q < S; q++) s[q] = v[q - 1] - v[q];
                s[S] = v[S - 1];
            }
            const T scale = T(1) / T(o);
            v[o] = r * scale * v[o - 1];
            for (int q = o - 1; q > 0; q--)
                v[q] = ((r + T(o - q)) * v[q - 1] + (zero + T(q + 1) - r) * v[q]) * scale;
            v[0] = (one - r) * scale * v[0];
        }
        if (g.outside == 2) {
            const V beyond = at - x;
            for (int q = 0; q <= S; q++) v[q] += beyond * s[q];
        } else {
            const M out = below | above;
            for (int q = 0; q <= S; q++) {
                s[q] = out ? zero : s[q];
                if (g.outside == 0) v[q] = out ? zero : v[q];
            }
        }
        for (int q = 0; q <= S; q++) {
            v[q] = nan ? at : v[q];
            s[q] = nan ? at : s[q];
        }
        const M e = __builtin_convertvector(f, M);
        alignas(64) T vs[S + 1][L], ss[S + 1][L];
        for (int q = 0; q <= S; q++) {
            store(vs[q], v[q]);
            if (SLOPE) store(ss[q], s[q]);
        }
        const M outer = (e < 0) | (e >= __builtin_convertvector(zero + G, M));
        Int any = 0;
        if (g.outside == 0)
            for (int j = 0; j < L; j++) any |= outer[j];
        for (int j = 0; j < L; j++) {
            cell[k + j] = int(e[j]);
            for (int q = 0; q <= S; q++) value[(k + j) * (S + 1) + q] = vs[q][j];
            if (SLOPE)
                for (int q = 0; q <= S; q++) slope[(k + j) * (S + 1) + q] = ss[q][j];
        }
        if (any)
            for (int j = 0; j < L; j++)
                if (outer[j]) {
                    T a[S + 1];
                    for (int q = 0; q <= S; q++) a[q] = vs[q][j];
                    put<T, S>(e[j], g.grid, a, value + (k + j) * (S + 1));
                    if (SLOPE) {
                        for (int q = 0; q <= S; q++) a[q] = ss[q][j];
                        put<T, S>(e[j], g.grid, a, slope + (k + j) * (S + 1));
                    }
                    cell[k + j] = e[j] < 0 ? 0 : int(g.grid - 1);
                }
    }
}

// The same for one position on any knots, by the Cox-de Boor recursion. `t` has S made-up knots beyond both ends; only
// splines that the weights do not have stand on them.
template <class T, int S>
void knots_basis(const Grid& g, const T* t, T at, int* cell, T* value, T* slope) {
    const Int G = g.grid;
    const Int from = g.outside ? 2 * S : S, to = g.outside ? 2 * S + G : 3 * S + G;  // knots that bound the splines
    const bool below = at < t[from], above = at > t[to], nan = at != at;
    const T x = nan ? t[2 * S] : below ? t[from] : above ? t[to] : at;
    Int lo = from, hi = to;  // t[lo] <= x < t[hi]
    while (hi - lo > 1) {
        const Int mid = (lo + hi) / 2;
        if (x >= t[mid]) lo = mid; else hi = mid;
    }
    if (x == t[2 * S + G]) lo = 2 * S + G - 1;
    T v[S + 2], s[S + 1] = {};
    v[0] = T(1);
    for (int o = 1; o <= S; o++) {
        T carried = 0, before = 0;
        for (int q = 0; q < o; q++) {
            const T right = t[lo + q + 1], left = t[lo + q + 1 - o], weighted = v[q] / (right - left);
            if (o == S) s[q] = S * (before - weighted);
            before = weighted;
            v[q] = carried + (right - x) * weighted;
            carried = (x - left) * weighted;
        }
        v[o] = carried;
        if (o == S) s[S] = S * before;
    }
    for (int q = 0; q <= S; q++) {
        if (nan) v[q] = s[q] = at;
        else if (g.outside == 2) v[q] += (at - x) * s[q];
        else if (below || above) {
            s[q] = 0;
            if (g.outside == 0) v[q] = 0;
        }
    }
    const Int e = lo - 2 * S;
    *cell = int(e < 0 ? 0 : e > G - 1 ? G - 1 : e);
    put<T, S>(e, G, v, value);
    if (slope) put<T, S>(e, G, s, slope);
}

template <class T> struct Scratch {  // the basis of a tile of rows x inputs, one position after the other
    Buffer<T> u, value, slope, padded;
    Buffer<int> cell;
    Scratch(const Grid& g, Int count)
        : u(count), value((count + 16) * (g.order + 1)), slope((count + 16) * (g.order + 1)),
          padded(g.grid + 4 * g.order + 1), cell(count) {}
};

// Basis at x[n, i], n < rows, i < inputs (x and cells point to the tile). Slopes: per interval (uniform) or per unit of x.
template <class T, int S, bool SLOPE>
void basis(const Grid& g, const T* x, Int ldx, Int rows, Int inputs, const T* cells, Scratch<T>& b) {
    if (g.uniform) {
        const T *low = cells, *per = cells + g.n_cells;
        for (Int n = 0; n < rows; n++)
            for (Int i = 0; i < inputs; i++) b.u.p[n * inputs + i] = (x[n * ldx + i] - low[i]) * per[i];
        for (Int k = rows * inputs; k % Lanes<T>::n; k++) b.u.p[k] = 0;
        uniform_basis<T, S, SLOPE>(g, b.u.p, rows * inputs, b.cell.p, b.value.p, b.slope.p);
        return;
    }
    const Int size = g.grid + 2 * S + 1;
    T* t = b.padded.p;
    for (Int i = 0; i < inputs; i++) {
        memcpy(t + S, cells + i * g.n_cells, size * sizeof(T));
        for (int k = 1; k <= S; k++) {
            t[S - k] = t[S] - k * (t[S + 1] - t[S]);
            t[S + size - 1 + k] = t[S + size - 1] + k * (t[S + size - 1] - t[S + size - 2]);
        }
        for (Int n = 0; n < rows; n++) {
            const Int k = n * inputs + i;
            knots_basis<T, S>(g, t, x[n * ldx + i], b.cell.p + k, b.value.p + k * (S + 1),
                              SLOPE ? b.slope.p + k * (S + 1) : 0);
        }
    }
}

}  // namespace
