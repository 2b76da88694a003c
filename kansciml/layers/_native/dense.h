// The dense way: the basis as the left factor of a GEMM that the caller runs; part of spline.cpp.

#pragma once

#include "basis.h"

namespace {

// Left factor (rows, inputs * P) of the GEMM, or with h how it changes along h. With gx, `block` first holds the
// gradient of that factor: it is turned into gx += block * slope, and only then overwritten (where asked for).
template <class T, int S, bool SLOPE>
void dense(const Grid& g, const T* x, const T* h, Int ldx, Int rows, Int inputs, const T* cells, T* block, T* gx,
           Int fill) {
    const int L = Lanes<T>::n;
    const Int P = g.grid + S, width = inputs * P, step = least(rows, inputs > 1024 ? 1 : 1024 / inputs);
#ifdef _OPENMP
#pragma omp parallel num_threads(int(g.threads)) if (g.threads > 1 && rows > step && rows * width > 100000)
#endif
    {
        Scratch<T> b(g, step, inputs, SLOPE && h, false);
#ifdef _OPENMP
#pragma omp for schedule(static)
#endif
        for (Int n0 = 0; n0 < rows; n0 += step) {
            const Int count = least(step, rows - n0);
            basis<T, S, SLOPE>(g, x + n0 * ldx, h ? h + n0 * ldx : 0, ldx, count, inputs, cells, b);
            for (Int n = 0; n < count; n++) {
                T* row = block + (n0 + n) * width;
                const Int k0 = n * inputs;
                if (SLOPE)
                    for (Int i = 0; i < inputs; i++) {
                        const T *of = row + i * P + b.cell.p[k0 + i], *s = b.slope.p + place<T, S>(k0 + i);
                        T total = 0;
                        for (int q = 0; q <= S; q++) total += of[q] * s[q * L];
                        gx[(n0 + n) * ldx + i] += g.uniform ? total * cells[g.n_cells + i] : total;
                    }
                if (!fill) continue;
                memset(row, 0, width * sizeof(T));
                for (Int i = 0; i < inputs; i++) {
                    T* to = row + i * P + b.cell.p[k0 + i];
                    const T* from = b.value.p + place<T, S>(k0 + i);
                    for (int q = 0; q <= S; q++) to[q] = from[q * L];
                }
            }
        }
    }
}

}  // namespace
