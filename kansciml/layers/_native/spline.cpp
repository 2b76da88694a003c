// Kernels of the spline KAN layer on a CPU, behind a plain C interface: no PyTorch headers, hence no tie to its ABI.
//
// The file is compiled once per instruction set (-DISA=...); the object with -DDISPATCH picks one at run time. All of
// it is in an unnamed namespace and no C++ header is used, so that no shared inline function can leak wide
// instructions into the portable object.
//
// Every position has S + 1 splines that may differ from zero. `basis` finds them: the cell c in [0, G) and the values
// of splines c ... c + S. The dense kernels scatter them into the left factor of a GEMM, the sparse ones gather weights.

#include "basis.h"

#ifdef _OPENMP
#include <omp.h>
#endif

#define JOIN_(a, b, c) a##b##c
#define JOIN(a, b, c) JOIN_(a, b, c)

namespace {

inline Int least(Int a, Int b) { return a < b ? a : b; }

// Left factor (rows, inputs * P) of the GEMM. With gx, `block` first holds the gradient of that factor: it is turned
// into gx += block * slope, and only then overwritten with the values (where asked for).
template <class T, int S, bool SLOPE>
void dense(const Grid& g, const T* x, Int ldx, Int rows, Int inputs, const T* cells, T* block, T* gx, Int fill) {
    const Int P = g.grid + S, width = inputs * P, step = least(rows, inputs > 1024 ? 1 : 1024 / inputs);
#ifdef _OPENMP
#pragma omp parallel num_threads(int(g.threads)) if (g.threads > 1 && rows > step)
#endif
    {
        Scratch<T> b(g, step * inputs);
#ifdef _OPENMP
#pragma omp for schedule(static)
#endif
        for (Int n0 = 0; n0 < rows; n0 += step) {
            const Int count = least(step, rows - n0);
            basis<T, S, SLOPE>(g, x + n0 * ldx, ldx, count, inputs, cells, b);
            for (Int n = 0; n < count; n++) {
                T* row = block + (n0 + n) * width;
                const Int k0 = n * inputs;
                if (SLOPE)
                    for (Int i = 0; i < inputs; i++) {
                        const T *of = row + i * P + b.cell.p[k0 + i], *s = b.slope.p + (k0 + i) * (S + 1);
                        T total = 0;
                        for (int q = 0; q <= S; q++) total += of[q] * s[q];
                        gx[(n0 + n) * ldx + i] += g.uniform ? total * cells[g.n_cells + i] : total;
                    }
                if (!fill) continue;
                memset(row, 0, width * sizeof(T));
                for (Int i = 0; i < inputs; i++)
                    memcpy(row + i * P + b.cell.p[k0 + i], b.value.p + (k0 + i) * (S + 1), (S + 1) * sizeof(T));
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------- sparse

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

template <class T, int S, int NV>
void add_rows(Int P, const Scratch<T>& b, Int rows, Int inputs, const T* w, T* y, Int O, Int columns) {
    typedef typename Lanes<T>::V V;
    const int L = Lanes<T>::n, width = NV * L;
    for (Int n = 0; n < rows; n++) {
        V acc[NV];
        get_row<T, NV>(y + n * O, columns, acc);
        const int* cell = b.cell.p + n * inputs;
        const T* value = b.value.p + n * inputs * (S + 1);
        for (Int i = 0; i < inputs; i++) {
            const T* from = w + (i * P + cell[i]) * width;
#pragma GCC unroll 8
            for (int q = 0; q <= S; q++)
#pragma GCC unroll 4
                for (int a = 0; a < NV; a++) acc[a] += value[i * (S + 1) + q] * load(from + q * width + a * L);
        }
        if (columns == width) {
            for (int a = 0; a < NV; a++) store(y + n * O + a * L, acc[a]);
        } else {
            alignas(64) T t[NV * L];
            for (int a = 0; a < NV; a++) store(t + a * L, acc[a]);
            memcpy(y + n * O, t, columns * sizeof(T));
        }
    }
}

template <class T, int S, int NV>
void gradients(Int P, const Scratch<T>& b, Int rows, Int inputs, const T* w, T* gw, const T* gy, Int O, Int columns,
               T* gx) {
    typedef typename Lanes<T>::V V;
    const int L = Lanes<T>::n, width = NV * L;
    for (Int n = 0; n < rows; n++) {
        V of[NV];
        get_row<T, NV>(gy + n * O, columns, of);
        const int* cell = b.cell.p + n * inputs;
        const T *value = b.value.p + n * inputs * (S + 1), *slope = b.slope.p + n * inputs * (S + 1);
        if (gx)
            for (Int i = 0; i < inputs; i++) {
                const T* from = w + (i * P + cell[i]) * width;
                V total = {};
#pragma GCC unroll 4
                for (int a = 0; a < NV; a++) {
                    V t = {};
#pragma GCC unroll 8
                    for (int q = 0; q <= S; q++) t += slope[i * (S + 1) + q] * load(from + q * width + a * L);
                    total += t * of[a];
                }
                gx[n * inputs + i] += sum_lanes<T>(total);
            }
        if (gw)
            for (Int i = 0; i < inputs; i++) {
                T* to = gw + (i * P + cell[i]) * width;
#pragma GCC unroll 8
                for (int q = 0; q <= S; q++)
#pragma GCC unroll 4
                    for (int a = 0; a < NV; a++) {
                        T* p = to + q * width + a * L;
                        store(p, V(load(p) + value[i * (S + 1) + q] * of[a]));
                    }
            }
    }
}

const Int ROWS = 512;       // of a block: its basis stays in the second-level cache
const Int TILE = 1 << 15;   // bytes of packed weights: the first-level cache

template <class T> Int tile_inputs(Int I, Int P, Int O) {
    const Int width = least(4, (O + Lanes<T>::n - 1) / Lanes<T>::n) * 64;
    const Int n = TILE / (P * width);
    return least(I, n < 4 ? 4 : n > 64 ? 64 : n);
}

inline Int vectors(Int columns, Int L) { return columns <= L ? 1 : columns <= 2 * L ? 2 : 4; }

template <class T, int S>
void sparse_forward(const Grid& g, const T* x, Int N, Int I, Int O, const T* cells, const T* w, const T* scale, T* y) {
    const Int P = g.grid + S, L = Lanes<T>::n, inputs = tile_inputs<T>(I, P, O);
    Int rows = (N + g.threads - 1) / g.threads;
    rows = rows > ROWS ? ROWS : rows < 1 ? 1 : rows;
#ifdef _OPENMP
#pragma omp parallel num_threads(int(g.threads)) if (g.threads > 1 && N * I * O > 100000)
#endif
    {
        Scratch<T> b(g, rows * inputs);
        Buffer<T> tile(inputs * P * 4 * L);
#ifdef _OPENMP
#pragma omp for schedule(dynamic)
#endif
        for (Int n = 0; n < N; n += rows) {
            const Int count = least(rows, N - n);
            for (Int i = 0; i < I; i += inputs) {
                const Int ni = least(inputs, I - i);
                basis<T, S, false>(g, x + n * I + i, I, count, ni, cells + (g.uniform ? i : i * g.n_cells), b);
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
void sparse_backward(const Grid& g, const T* gy, const T* x, Int N, Int I, Int O, const T* cells, const T* w,
                     const T* scale, T* gx, T* gw) {
    const Int P = g.grid + S, L = Lanes<T>::n, inputs = tile_inputs<T>(I, P, O);
    const Int rows = N < 1 ? 1 : least(N, ROWS);
#ifdef _OPENMP
#pragma omp parallel num_threads(int(g.threads)) if (g.threads > 1 && N * I * O > 100000)
#endif
    {
        Scratch<T> b(g, rows * inputs);
        Buffer<T> tile(inputs * P * 4 * L), gtile(inputs * P * 4 * L), gxs(rows * inputs);
#ifdef _OPENMP
#pragma omp for schedule(dynamic)
#endif
        for (Int i = 0; i < I; i += inputs) {
            const Int ni = least(inputs, I - i);
            for (Int n = 0; n < N; n += rows) {
                const Int count = least(rows, N - n);
                basis<T, S, true>(g, x + n * I + i, I, count, ni, cells + (g.uniform ? i : i * g.n_cells), b);
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
                    if (gw)
                        for (Int k = 0; k < ni * P; k++)
                            for (Int c = 0; c < columns; c++) to[k * O + c] += gt[k * width + c];
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

#define ORDERS(CALL) \
    switch (g->order) { \
        case 0: CALL(0); break; \
        case 1: CALL(1); break; \
        case 2: CALL(2); break; \
        case 3: CALL(3); break; \
        case 4: CALL(4); break; \
        case 5: CALL(5); break; \
        default: return 1; \
    } \
    return 0;

#define FUNCTIONS(T, NAME) \
    extern "C" __attribute__((visibility("hidden"))) int JOIN(dense_, NAME, ISA)( \
        const Grid* g, const T* x, Int ldx, Int rows, Int inputs, const T* cells, T* block, T* gx, Int fill) { \
        ORDERS(DENSE) \
    } \
    extern "C" __attribute__((visibility("hidden"))) int JOIN(forward_, NAME, ISA)( \
        const Grid* g, const T* x, Int N, Int I, Int O, const T* cells, const T* w, const T* scale, T* y) { \
        ORDERS(FORWARD) \
    } \
    extern "C" __attribute__((visibility("hidden"))) int JOIN(backward_, NAME, ISA)( \
        const Grid* g, const T* gy, const T* x, Int N, Int I, Int O, const T* cells, const T* w, const T* scale, \
        T* gx, T* gw) { \
        ORDERS(BACKWARD) \
    }
#define DENSE(S) \
    if (gx) dense<Real, S, true>(*g, x, ldx, rows, inputs, cells, block, gx, fill); \
    else dense<Real, S, false>(*g, x, ldx, rows, inputs, cells, block, gx, fill)
#define FORWARD(S) sparse_forward<Real, S>(*g, x, N, I, O, cells, w, scale, y)
#define BACKWARD(S) sparse_backward<Real, S>(*g, gy, x, N, I, O, cells, w, scale, gx, gw)

#ifdef ISA
#define Real float
FUNCTIONS(float, f_)
#undef Real
#define Real double
FUNCTIONS(double, d_)
#undef Real
#endif

#ifdef DISPATCH  // DISPATCH 0: portable alone, 1: and AVX2, 2: and AVX2 and AVX-512
#if DISPATCH >= 1
#define IF_AVX2(x) x
#else
#define IF_AVX2(x)
#endif
#if DISPATCH >= 2
#define IF_AVX512(x) x
#else
#define IF_AVX512(x)
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int kansciml_isa() {
    IF_AVX2(__builtin_cpu_init();)
    IF_AVX512(if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")) return 2;)
    IF_AVX2(if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;)
    return 0;
}

EXPORT int kansciml_openmp() {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

#define FORWARD_TO(NAME, TYPES, ARGS) \
    extern "C" int NAME##avx512 TYPES; \
    extern "C" int NAME##avx2 TYPES; \
    extern "C" int NAME##portable TYPES; \
    EXPORT int kansciml_##NAME TYPES { \
        static const int isa = kansciml_isa(); \
        IF_AVX512(if (isa == 2) return NAME##avx512 ARGS;) \
        IF_AVX2(if (isa >= 1) return NAME##avx2 ARGS;) \
        return isa == -1 ? 1 : NAME##portable ARGS; \
    }
#define ALL(T, N) \
    FORWARD_TO(dense_##N, (const Grid* g, const T* x, Int ldx, Int rows, Int inputs, const T* cells, T* block, T* gx, Int fill), \
               (g, x, ldx, rows, inputs, cells, block, gx, fill)) \
    FORWARD_TO(forward_##N, (const Grid* g, const T* x, Int n, Int i, Int o, const T* cells, const T* w, const T* s, T* y), \
               (g, x, n, i, o, cells, w, s, y)) \
    FORWARD_TO(backward_##N, (const Grid* g, const T* gy, const T* x, Int n, Int i, Int o, const T* cells, const T* w, \
                              const T* s, T* gx, T* gw), \
               (g, gy, x, n, i, o, cells, w, s, gx, gw))
ALL(float, f_)
ALL(double, d_)
#endif
