// Gradients of the weights in the sparse way: each row's cotangent times the splines that are not zero there.

#pragma once

#include "basis.h"

namespace {

template <class T, int NV> INLINE void get_row(const T* p, Int columns, typename Lanes<T>::V* v) {
    const int L = Lanes<T>::n;
    if (columns == NV * L) {
        for (int a = 0; a < NV; a++) v[a] = load(p + a * L);
    } else {
        alignas(64) T t[NV * L] = {};
        memcpy(t, p, columns * sizeof(T));
        for (int a = 0; a < NV; a++) v[a] = load(t + a * L);
    }
}

template <class T, int NV> INLINE void put_row(const typename Lanes<T>::V* v, Int columns, T* p) {
    const int L = Lanes<T>::n;
    if (columns == NV * L) {
        for (int a = 0; a < NV; a++) store(p + a * L, v[a]);
    } else {
        alignas(64) T t[NV * L];
        for (int a = 0; a < NV; a++) store(t + a * L, v[a]);
        memcpy(p, t, columns * sizeof(T));
    }
}

// Where `add_products` finds rows in order, for a block's first chunk and a tile's first input; null: nowhere.
struct Sorted {
    const unsigned char *rows, *members;
    Int inputs;  // of the layer

    template <class T>
    Sorted(const Kept<T>* kept, Int n, Int i, Int inputs, Int G) : rows(0), members(0), inputs(inputs) {
        if (!kept || !kept->order) return;
        const Int at = n / CHUNK * inputs + i;
        rows = kept->order + at * CHUNK;
        members = kept->members + at * G;
    }
};

// b.order and b.members of a chunk, with room for all its rows in each cell.
template <class T> void sort(const Scratch<T>& b, Int first, Int count, Int inputs, Int G) {
    memset(b.members.p, 0, inputs * G);
    for (Int n = 0; n < count; n++)
        for (Int i = 0; i < inputs; i++) {
            const Int bin = i * G + b.cell.p[(first + n) * inputs + i];
            b.order.p[bin * CHUNK + b.members.p[bin]++] = (unsigned char)(n);
        }
}

// Calls term(c, members, order) for every cell of input i that rows of the chunk from row `first` on lie in.
template <class T, class Term>
INLINE void each_cell(const Scratch<T>& b, const Sorted& sorted, Int first, Int i, Int G, const Term& term) {
    const Int at = first / CHUNK * sorted.inputs + i;
    const unsigned char* next = sorted.rows ? sorted.rows + at * CHUNK : 0;
    const unsigned char* members = next ? sorted.members + at * G : b.members.p + i * G;
    for (Int c = 0; c < G; c++) {
        if (members[c]) term(c, Int(members[c]), next ? next : b.order.p + (i * G + c) * CHUNK);
        if (next) next += members[c];
    }
}

// Rows of a chunk, columns beyond `columns` zero: (count, width).
template <class T, int NV> void pack_rows(const T* p, Int O, Int count, Int columns, T* out) {
    const int L = Lanes<T>::n;
    for (Int n = 0; n < count; n++) {
        typename Lanes<T>::V v[NV];
        get_row<T, NV>(p + n * O, columns, v);
        for (int a = 0; a < NV; a++) store(out + (n * NV + a) * L, v[a]);
    }
}

// gw += factor^T gy, row by row; shapes as below.
template <class T, int S, int NV, bool BASE>
void add_products_unordered(Int P, const T* factor, const T* base, const Scratch<T>& b, Int rows, Int inputs,
                            T* gw, const T* gy, Int O, Int columns) {
    typedef typename Lanes<T>::V V;
    const int L = Lanes<T>::n, width = NV * L;
    const Int Q = P + BASE;
    for (Int n = 0; n < rows; n++) {
        V of[NV];
        get_row<T, NV>(gy + n * O, columns, of);
        for (Int i = 0; i < inputs; i++) {
            const Int at = n * inputs + i;
            T *to = gw + (i * Q + b.cell.p[at]) * width, *its = gw + (i * Q + P) * width;
            const T* value = factor + place<T, S>(at);
#pragma GCC unroll 8
            for (int q = 0; q <= S; q++)
#pragma GCC unroll 4
                for (int a = 0; a < NV; a++) {
                    T* p = to + q * width + a * L;
                    store(p, V(load(p) + value[q * L] * of[a]));
                }
            if (BASE)
                for (int a = 0; a < NV; a++) store(its + a * L, V(load(its + a * L) + base[at] * of[a]));
        }
    }
}

const int HELD = BYTES == 64 ? 4 : 2;  // vectors for each of S + 1 splines that registers hold

// gw += factor^T gy, (inputs, P, width), or with BASE (inputs, P + 1, width) and base^T gy to the last, for a chunk whose
// gy is in b.packed. Rows in the order of their cells, so that sums stay in registers: a store for each product
// would take twice the time.
template <class T, int S, int NV, bool BASE>
void add_products(Int P, const T* factor, const T* base, const Scratch<T>& b, const Sorted& sorted, Int first,
                  Int inputs, T* gw) {
    typedef typename Lanes<T>::V V;
    const int L = Lanes<T>::n, width = NV * L, NA = NV < HELD ? NV : HELD;
    const Int Q = P + BASE;
    for (Int i = 0; i < inputs; i++)
        for (int part = 0; part < NV; part += NA) {
            T *its = gw + (i * Q + P) * width + part * L, *packed = b.packed.p + part * L;
            V base_sum[NA] = {};
            each_cell(b, sorted, first, i, P - S, [&](Int c, Int members, const unsigned char* order) {
                T* to = gw + (i * Q + c) * width + part * L;
                V sum[S + 1][NA];
#pragma GCC unroll 8
                for (int q = 0; q <= S; q++)
#pragma GCC unroll 4
                    for (int a = 0; a < NA; a++) sum[q][a] = load(to + q * width + a * L);
                for (Int k = 0; k < members; k++) {
                    const Int n = order[k];
                    const Int at = (first + n) * inputs + i;
                    const T *value = factor + place<T, S>(at), *of = packed + n * width;
#pragma GCC unroll 8
                    for (int q = 0; q <= S; q++)
#pragma GCC unroll 4
                        for (int a = 0; a < NA; a++) sum[q][a] += value[q * L] * load(of + a * L);
                    if (BASE)
#pragma GCC unroll 4
                        for (int a = 0; a < NA; a++) base_sum[a] += base[at] * load(of + a * L);
                }
#pragma GCC unroll 8
                for (int q = 0; q <= S; q++)
#pragma GCC unroll 4
                    for (int a = 0; a < NA; a++) store(to + q * width + a * L, sum[q][a]);
            });
            if (BASE)
                for (int a = 0; a < NA; a++) store(its + a * L, V(load(its + a * L) + base_sum[a]));
        }
}

template <class T, int S, int NV, bool BASE>
void add_chunks(Int P, const T* factor, const T* base, const Scratch<T>& b, const Sorted& sorted, Int rows,
                Int inputs, T* gw, const T* gy, Int O, Int columns) {
    if (P - S > MOST_CELLS) {
        add_products_unordered<T, S, NV, BASE>(P, factor, base, b, rows, inputs, gw, gy, O, columns);
        return;
    }
    for (Int first = 0; first < rows; first += CHUNK) {
        const Int count = least(CHUNK, rows - first);
        pack_rows<T, NV>(gy + first * O, O, count, columns, b.packed.p);
        if (!sorted.rows) sort(b, first, count, inputs, P - S);
        add_products<T, S, NV, BASE>(P, factor, base, b, sorted, first, inputs, gw);
    }
}

}  // namespace
