// Kernels of the spline KAN layer on a CPU, behind a plain C interface: no PyTorch headers, hence no tie to its ABI.
//
// Every position has S + 1 splines that may differ from zero. `basis` finds them: the cell c in [0, G) and the values
// of splines c ... c + S. The dense kernels scatter them into the left factor of a GEMM, the sparse ones gather weights.

#include "dense.h"
#include "dispatch.h"
#include "second.h"

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
    HIDDEN int JOIN(dense_, NAME, ISA)( \
        const Grid* g, const T* x, const T* h, Int ldx, Int rows, Int inputs, const T* cells, T* block, T* gx, \
        Int fill) { \
        ORDERS(DENSE) \
    } \
    HIDDEN int JOIN(forward_, NAME, ISA)( \
        const Grid* g, const T* x, const T* h, Int N, Int I, Int O, const T* cells, const T* w, const T* scale, \
        T* y) { \
        ORDERS(FORWARD) \
    } \
    HIDDEN int JOIN(backward_, NAME, ISA)( \
        const Grid* g, const T* gy, const T* x, const T* h, Int N, Int I, Int O, const T* cells, const T* w, \
        const T* scale, const Base<T>* base, const Kept<T>* kept, T* gx, T* gw, T* gs) { \
        ORDERS(BACKWARD) \
    } \
    HIDDEN int JOIN(second_, NAME, ISA)( \
        const Grid* g, const T* gy, const T* x, const T* h, Int N, Int I, Int O, const T* cells, const T* w, \
        const T* scale, const T* hw, const T* hscale, const Base<T>* base, const Kept<T>* kept, T* ggy, T* gx, T* gw, \
        T* gs, const T* bend, T* values, Int known) { \
        ORDERS(SECOND) \
    } \
    HIDDEN int JOIN(keep_, NAME, ISA)( \
        const Grid* g, const T* x, const T* value, const T* slope, const T* bend, Int N, Int I, Int O, const T* cells, \
        const Kept<T>* to) { \
        ORDERS(KEEP) \
    }
#define DENSE(S) \
    if (gx) dense<Real, S, true>(*g, x, h, ldx, rows, inputs, cells, block, gx, fill); \
    else dense<Real, S, false>(*g, x, h, ldx, rows, inputs, cells, block, gx, fill)
#define FORWARD(S) sparse_forward<Real, S>(*g, x, h, N, I, O, cells, w, scale, y)
#define BACKWARD(S) sparse_backward<Real, S>(*g, gy, x, h, N, I, O, cells, w, scale, base, kept, gx, gw, gs)

#define SECOND(S) \
    second<Real, S>(*g, gy, x, h, N, I, O, cells, w, scale, hw, hscale, base, kept, ggy, gx, gw, gs, bend, values, \
                    known)
#define KEEP(S) keep<Real, S>(*g, x, value, slope, bend, N, I, O, cells, *to)

#ifdef ISA
#define Real float
FUNCTIONS(float, f_)
#undef Real
#define Real double
FUNCTIONS(double, d_)
#undef Real
#endif

#ifdef DISPATCH
EXPORT int kansciml_interface() { return 4; }  // raised with every change of the functions' arguments

EXPORT int kansciml_openmp() {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

#define ALL(T, N) \
    FORWARD_TO(dense_##N, int, \
               (const Grid* g, const T* x, const T* h, Int ldx, Int rows, Int inputs, const T* cells, T* block, T* gx, \
                Int fill), \
               (g, x, h, ldx, rows, inputs, cells, block, gx, fill)) \
    FORWARD_TO(forward_##N, int, \
               (const Grid* g, const T* x, const T* h, Int n, Int i, Int o, const T* cells, const T* w, const T* s, \
                T* y), \
               (g, x, h, n, i, o, cells, w, s, y)) \
    FORWARD_TO(backward_##N, int, \
               (const Grid* g, const T* gy, const T* x, const T* h, Int n, Int i, Int o, const T* cells, const T* w, \
                const T* s, const Base<T>* base, const Kept<T>* kept, T* gx, T* gw, T* gs), \
               (g, gy, x, h, n, i, o, cells, w, s, base, kept, gx, gw, gs)) \
    FORWARD_TO(second_##N, int, \
               (const Grid* g, const T* gy, const T* x, const T* h, Int n, Int i, Int o, const T* cells, const T* w, \
                const T* s, const T* hw, const T* hs, const Base<T>* base, const Kept<T>* kept, T* ggy, T* gx, T* gw, \
                T* gs, const T* bend, T* values, Int known), \
               (g, gy, x, h, n, i, o, cells, w, s, hw, hs, base, kept, ggy, gx, gw, gs, bend, values, known)) \
    FORWARD_TO(keep_##N, int, \
               (const Grid* g, const T* x, const T* value, const T* slope, const T* bend, Int n, Int i, Int o, \
                const T* cells, const Kept<T>* to), \
               (g, x, value, slope, bend, n, i, o, cells, to))
ALL(float, f_)
ALL(double, d_)
#endif
