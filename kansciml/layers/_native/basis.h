// The S + 1 splines that may differ from zero at each position, with up to two derivatives; part of spline.cpp.

#pragma once

#include "lanes.h"

namespace {

struct Grid {  // shared with Python: keep the order
    Int grid, order, uniform, outside;  // outside: 0 zero, 1 clamp, 2 linear
    Int n_cells;                        // row length of `cells`: I (uniform) or G + 2S + 1
    Int threads;
};

// Where much is kept, the base branch is one more spline, nowhere zero. A null pointer: zero, or not wanted.
template <class T> struct Base {
    const T *weight, *tangent;  // (I, O)
    T* grad;
};

// What many products with one x share, in the order in which tiles read it: block of rows by block, in it tile by tile,
// in it row by row. A null pointer: not kept.
template <class T> struct Kept {
    T *u, *value, *slope, *bend;     // positions, act(x), act'(x) per interval, and what does not depend on tangents
    unsigned char *order, *members;  // of each chunk of rows and each input: rows in the order of their cells, and how
                                     // many lie in each; (chunks, I, CHUNK), (chunks, I, G)
};

// Splines beyond either end of the weights are dropped, so that a position always reads weights c ... c + S.
template <class T, int S> inline void put(Int e, Int G, const T* v, T* out) {
    const Int c = e < 0 ? 0 : e > G - 1 ? G - 1 : e;
    for (int q = 0; q <= S; q++) {
        const Int from = q + c - e;
        out[q * Lanes<T>::n] = from >= 0 && from <= S ? v[from] : T(0);
    }
}

// A derivative of the splines of order S, out[0 ... S], from one less of those of order S - 1, over their widths.
template <int S, class V> inline void lowered(const V* v, V* out) {
    out[0] = -v[0];
    for (int q = 1; q < S; q++) out[q] = v[q - 1] - v[q];
    if (S > 0) out[S] = v[S - 1];
}

// Splines moved down by `left` places or up by `right`, lane by lane, as `put` does it: turned around, in steps of 1, 2
// and 4 places, and made zero where nothing came from.
template <class T, int S, int D>
void shifted(typename Lanes<T>::V all[][S + 2], const typename Lanes<T>::M& left, const typename Lanes<T>::M& right) {
    typedef typename Lanes<T>::M M;
    const typename Lanes<T>::V zero = {};
    const M none = {}, turn = right > none ? none + (S + 1) - right : left;
    M kept[S + 1];
#pragma GCC unroll 8
    for (int q = 0; q <= S; q++) kept[q] = (none + (S - q) >= left) & (none + q >= right);
    for (int d = 0; d <= D; d++) {
        typename Lanes<T>::V *v = all[d], turned[S + 1];
#pragma GCC unroll 3
        for (int step = 1; step <= S; step *= 2) {
            const M moves = (turn & step) != 0;
#pragma GCC unroll 8
            for (int q = 0; q <= S; q++) turned[q] = moves ? v[(q + step) % (S + 1)] : v[q];
#pragma GCC unroll 8
            for (int q = 0; q <= S; q++) v[q] = turned[q];
        }
#pragma GCC unroll 8
        for (int q = 0; q <= S; q++) v[q] = kept[q] ? v[q] : zero;
    }
}

// S + 1 values (and D derivatives per interval) of uniform splines at u, positions in intervals from the grid's left.
template <class T, int S, int D>
void uniform_basis(const Grid& g, const T* u, Int count, int* cell, T* const* to) {
    typedef typename Lanes<T>::V V;
    typedef typename Lanes<T>::M M;
    const int L = Lanes<T>::n;
    const T G = T(g.grid), low = g.outside ? T(0) : T(-S), high = g.outside ? G : G + S;
    const V zero = {}, one = zero + T(1);
    for (Int k = 0; k < count; k += L) {  // u, cell and the outputs hold a whole number of vectors
        const V at = load(u + k);
        const M nan = at != at, below = at < zero + low, above = at > zero + high;
        V x = below ? zero + low : at;
        x = above ? zero + high : x;
        x = nan ? zero : x;
        V f = __builtin_convertvector(__builtin_convertvector(x, M), V);
        f = f > x ? f - one : f;
        f = x == zero + G ? zero + (G - 1) : f;  // the right end belongs to the last interval
        const V r = x - f;
        V all[3][S + 2], *v = all[0], *s = all[1], *c = all[2];
        v[0] = one;
        for (int q = 0; q <= S; q++) s[q] = c[q] = zero;
#pragma GCC unroll 8
        for (int o = 1; o <= S; o++) {
            if (D > 1 && o == S - 1) lowered<S - 1>(v, s);
            if (D > 1 && o == S && S > 1) lowered<S>(s, c);
            if (o == S) lowered<S>(v, s);  // a straight continuation needs it too
            const T scale = T(1) / T(o);
            v[o] = r * scale * v[o - 1];
            for (int q = o - 1; q > 0; q--)
                v[q] = ((r + T(o - q)) * v[q - 1] + (zero + T(q + 1) - r) * v[q]) * scale;
            v[0] = (one - r) * scale * v[0];
        }
        if (g.outside == 2) {
            const V beyond = at - x;
            for (int q = 0; q <= S; q++) {
                v[q] += beyond * s[q];
                c[q] = below | above ? zero : c[q];
            }
        } else {
            const M out = below | above;
            for (int q = 0; q <= S; q++) {
                s[q] = out ? zero : s[q];
                c[q] = out ? zero : c[q];
                if (g.outside == 0) v[q] = out ? zero : v[q];
            }
        }
        const M e = __builtin_convertvector(f, M), none = {}, end = __builtin_convertvector(zero + (G - 1), M);
        const M outer = (e < none) | (e > end);
        if (g.outside == 0 && any_bit(&outer)) {
            const M left = e < none ? none - e : none, right = e > end ? e - end : none;
            shifted<T, S, D>(all, left, right);
        }
        const M inner = e < none ? none : e > end ? end : e;
        const typename Lanes<T>::C c_at = __builtin_convertvector(inner, typename Lanes<T>::C);
        memcpy(cell + k, &c_at, sizeof c_at);
        for (int d = 0; d <= D; d++)
            for (int q = 0; q <= S; q++) store(to[d] + k * (S + 1) + q * L, V(nan ? at : all[d][q]));
    }
}

// The same for one position on any knots, by the Cox-de Boor recursion. `t` has S made-up knots beyond both ends; only
// splines that the weights do not have stand on them.
template <class T, int S, int D>
void knots_basis(const Grid& g, const T* t, T at, int* cell, T* const* to, Int offset) {
    const Int G = g.grid;
    const Int first = g.outside ? 2 * S : S, last = g.outside ? 2 * S + G : 3 * S + G;  // knots that bound the splines
    const bool below = at < t[first], above = at > t[last], nan = at != at;
    const T x = nan ? t[2 * S] : below ? t[first] : above ? t[last] : at;
    Int lo = first, hi = last;  // t[lo] <= x < t[hi]
    while (hi - lo > 1) {
        const Int mid = (lo + hi) / 2;
        if (x >= t[mid]) lo = mid; else hi = mid;
    }
    if (x == t[2 * S + G]) lo = 2 * S + G - 1;
    T all[3][S + 2] = {}, *v = all[0], *s = all[1], *c = all[2];
    v[0] = T(1);
    for (int o = 1; o <= S; o++) {
        T carried = 0, weighted[S + 1], curved[S + 1];
        for (int q = 0; q < o; q++) {
            const T right = t[lo + q + 1], left = t[lo + q + 1 - o], per = T(1) / (right - left);
            weighted[q] = o * per * v[q];
            if (D > 1) curved[q] = o * per * s[q];
            v[q] = carried + (right - x) * per * v[q];
            carried = (x - left) * weighted[q] / o;
        }
        v[o] = carried;
        if (D > 1 && o == S && S > 1) lowered<S>(curved, c);
        if (D > 1 && o == S - 1) lowered<S - 1>(weighted, s);
        if (o == S) lowered<S>(weighted, s);
    }
    for (int q = 0; q <= S; q++) {
        if (nan) v[q] = s[q] = c[q] = at;
        else if (g.outside == 2) v[q] += (at - x) * s[q];
        else if (below || above) {
            s[q] = 0;
            if (g.outside == 0) v[q] = 0;
        }
        if (below || above) c[q] = 0;
    }
    const Int e = lo - 2 * S;
    *cell = int(e < 0 ? 0 : e > G - 1 ? G - 1 : e);
    for (int d = 0; d <= D; d++) put<T, S>(e, G, all[d], to[d] + offset);
}

// Rows that `add_products` puts in order at a time: with their cotangents in the first-level cache.
const Int CHUNK = 128;
const Int MOST_CELLS = 16;  // beyond, few rows of a chunk share a cell

template <class T> struct Scratch {  // the basis of a tile of rows x inputs, numbers of a position as `place` tells
    Buffer<T> u, value, slope, curve, moved, padded, packed;  // packed, members, order: of `add_products`
    Buffer<T> base_moved;
    Buffer<int> cell;
    Buffer<unsigned char> members, order;
    const T *base = 0, *rise = 0;  // of the base branch, as value and slope: what is kept
    Scratch(const Grid& g, Int rows, Int inputs, bool curved, bool products, bool second = false)
        : Scratch(g, inputs, rows * inputs, (rows * inputs + 16) * (g.order + 1), curved, second,
                  products && g.grid <= MOST_CELLS ? CHUNK : 0) {}

  private:
    Scratch(const Grid& g, Int inputs, Int count, Int numbers, bool curved, bool second, Int chunk)
        : u(count), value(numbers), slope(numbers), curve(curved ? numbers : 0), moved(second ? numbers : 0),
          padded(g.grid + 4 * g.order + 1), packed(chunk * 4 * Lanes<T>::n), base_moved(second ? count : 0), cell(count),
          members(chunk ? inputs * g.grid : 0), order(inputs * g.grid * chunk) {}
};

// Splines at x[n, i], or where u is not null at the positions of `Kept`.
template <class T, int S, int D>
void fill_basis(const Grid& g, const T* x, const T* u, Int ldx, Int rows, Int inputs, const T* cells, Scratch<T>& b) {
    T* const to[3] = {b.value.p, b.slope.p, b.curve.p};
    if (g.uniform && u) return uniform_basis<T, S, D>(g, u, rows * inputs, b.cell.p, to);
    if (g.uniform) {
        const T *low = cells, *per = cells + g.n_cells;
        for (Int n = 0; n < rows; n++)
            for (Int i = 0; i < inputs; i++) b.u.p[n * inputs + i] = (x[n * ldx + i] - low[i]) * per[i];
        for (Int k = rows * inputs; k % Lanes<T>::n; k++) b.u.p[k] = 0;
        uniform_basis<T, S, D>(g, b.u.p, rows * inputs, b.cell.p, to);
        return;
    }
    if (u) x = u, ldx = inputs;
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
            knots_basis<T, S, D>(g, t, x[n * ldx + i], b.cell.p + k, to, place<T, S>(k));
        }
    }
}

// Where `Kept` has a tile of rows [n, n + count), from input i of I on; for all its numbers but order and members.
inline Int kept_at(Int n, Int count, Int i, Int I) { return n * I + i * count; }

// Splines, D derivatives, and where it is kept the base branch, at rows [n, n + count) and from input i of I on.
template <class T, int S, int D>
void fill(const Grid& g, const T* x, const Kept<T>* kept, Int n, Int count, Int i, Int inputs, Int I, const T* cells,
          Scratch<T>& b) {
    const Int from = kept_at(n, count, i, I);
    fill_basis<T, S, D>(g, x + n * I + i, kept ? kept->u + from : 0, I, count, inputs, cells, b);
    if (kept && kept->value) b.base = kept->value + from, b.rise = kept->slope + from;
}

// b.u = h, in intervals where knots are even; a whole number of vectors.
template <class T> void lengths(const Grid& g, const T* h, Int ldx, Int rows, Int inputs, const T* cells, Scratch<T>& b) {
    for (Int n = 0; n < rows; n++)
        for (Int i = 0; i < inputs; i++)
            b.u.p[n * inputs + i] = g.uniform ? h[n * ldx + i] * cells[g.n_cells + i] : h[n * ldx + i];
    for (Int k = rows * inputs; k % Lanes<T>::n; k++) b.u.p[k] = 0;
}

// Basis at x[n, i], n < rows, i < inputs (x, h and cells point to the tile), D derivatives per interval (uniform) or
// per unit of x. With h, instead of each the next one times h per unit of x: how the basis changes along h.
template <class T, int S, int D>
void basis(const Grid& g, const T* x, const T* h, Int ldx, Int rows, Int inputs, const T* cells, Scratch<T>& b) {
    if (!h) return fill_basis<T, S, D>(g, x, 0, ldx, rows, inputs, cells, b);
    fill_basis<T, S, D + 1>(g, x, 0, ldx, rows, inputs, cells, b);
    typedef typename Lanes<T>::V V;
    const int L = Lanes<T>::n;
    lengths(g, h, ldx, rows, inputs, cells, b);
    for (Int k = 0; k < rows * inputs; k += L) {
        const V along = load(b.u.p + k);
        for (Int j = k * (S + 1); j < (k + L) * (S + 1); j += L) {
            store(b.value.p + j, V(along * load(b.slope.p + j)));
            if (D > 0) store(b.slope.p + j, V(along * load(b.curve.p + j)));
        }
    }
}

}  // namespace
