// Gradients of the weights in the sparse way: each row's cotangent times the splines that are not zero there.

#pragma once

#include "basis.h"

namespace {

template <class T, int NV> inline void get_row(const T* p, Int columns, typename Lanes<T>::V* v) {
    const int L = Lanes<T>::n;
    if (columns == NV * L) {
        for (int a = 0; a < NV; a++) v[a] = load(p + a * L);
    } else {
        alignas(64) T t[NV * L] = {};
        memcpy(t, p, columns * sizeof(T));
        for (int a = 0; a < NV; a++) v[a] = load(t + a * L);
    }
}

template <class T, int NV> inline void put_row(const typename Lanes<T>::V* v, Int columns, T* p) {
    const int L = Lanes<T>::n;
    if (columns == NV * L) {
        for (int a = 0; a < NV; a++) store(p + a * L, v[a]);
    } else {
        alignas(64) T t[NV * L];
        for (int a = 0; a < NV; a++) store(t + a * L, v[a]);
        memcpy(p, t, columns * sizeof(T));
    }
}

// gw += factor^T gy, (inputs, P, width), row by row.
template <class T, int S, int NV>
void add_products_unordered(Int P, const T* factor, const Scratch<T>& b, Int rows, Int inputs, T* gw, const T* gy, Int O,
                            Int columns) {
    typedef typename Lanes<T>::V V;
    const int L = Lanes<T>::n, width = NV * L;
    for (Int n = 0; n < rows; n++) {
        V of[NV];
        get_row<T, NV>(gy + n * O, columns, of);
        const int* cell = b.cell.p + n * inputs;
        for (Int i = 0; i < inputs; i++) {
            T* to = gw + (i * P + cell[i]) * width;
            const T* value = factor + place<T, S>(n * inputs + i);
#pragma GCC unroll 8
            for (int q = 0; q <= S; q++)
#pragma GCC unroll 4
                for (int a = 0; a < NV; a++) {
                    T* p = to + q * width + a * L;
                    store(p, V(load(p) + value[q * L] * of[a]));
                }
        }
    }
}

const int HELD = BYTES == 64 ? 4 : 2;  // vectors for each of S + 1 splines that registers hold

// gw += factor^T gy, (inputs, P, width). Rows in the order of their cells, so that sums stay in registers: a store for
// each product would take twice the time.
template <class T, int S, int NV>
void add_products(Int P, const T* factor, const Scratch<T>& b, Int rows, Int inputs, T* gw, const T* gy, Int O,
                  Int columns) {
    typedef typename Lanes<T>::V V;
    const int L = Lanes<T>::n, width = NV * L, NA = NV < HELD ? NV : HELD;
    const Int cells = P - S;
    if (cells > MOST_CELLS) return add_products_unordered<T, S, NV>(P, factor, b, rows, inputs, gw, gy, O, columns);
    for (Int first = 0; first < rows; first += CHUNK) {
        const Int count = least(CHUNK, rows - first);
        T* packed = b.packed.p;
        for (Int n = 0; n < count; n++) {
            V of[NV];
            get_row<T, NV>(gy + (first + n) * O, columns, of);
            for (int a = 0; a < NV; a++) store(packed + n * width + a * L, of[a]);
        }
        memset(b.members.p, 0, inputs * cells * sizeof(int));
        for (Int n = 0; n < count; n++)
            for (Int i = 0; i < inputs; i++) {
                const Int bin = i * cells + b.cell.p[(first + n) * inputs + i];
                b.order.p[bin * CHUNK + b.members.p[bin]++] = (unsigned char)(n);
            }
        for (Int i = 0; i < inputs; i++)
            for (Int c = 0; c < cells; c++) {
                const Int bin = i * cells + c, members = b.members.p[bin];
                const unsigned char* order = b.order.p + bin * CHUNK;
                if (members)
                    for (int part = 0; part < NV; part += NA) {
                        T* to = gw + (i * P + c) * width + part * L;
                        V sum[S + 1][NA];
#pragma GCC unroll 8
                        for (int q = 0; q <= S; q++)
#pragma GCC unroll 4
                            for (int a = 0; a < NA; a++) sum[q][a] = load(to + q * width + a * L);
                        for (Int k = 0; k < members; k++) {
                            const Int n = order[k];
                            const T* value = factor + place<T, S>((first + n) * inputs + i);
                            const T* of = packed + n * width + part * L;
#pragma GCC unroll 8
                            for (int q = 0; q <= S; q++)
#pragma GCC unroll 4
                                for (int a = 0; a < NA; a++) sum[q][a] += value[q * L] * load(of + a * L);
                        }
#pragma GCC unroll 8
                        for (int q = 0; q <= S; q++)
#pragma GCC unroll 4
                            for (int a = 0; a < NA; a++) store(to + q * width + a * L, sum[q][a]);
                    }
            }
    }
}

}  // namespace
