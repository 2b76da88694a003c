// Vectors as wide as registers, and aligned scratch memory; part of spline.cpp.

#pragma once

#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

typedef long long Int;

// What innermost loops call: left to itself, a compiler calls it where many kernels do.
#define INLINE inline __attribute__((always_inline))

inline Int least(Int a, Int b) { return a < b ? a : b; }

// Bytes of a vector: of the registers there are. Wider ones the compiler takes apart, through memory.
#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX2__)
#define BYTES 32
#else
#define BYTES 16
#endif

template <class T> struct Lanes;
template <> struct Lanes<float> {
    typedef float V __attribute__((vector_size(BYTES)));
    typedef int M __attribute__((vector_size(BYTES)));
    typedef M C;  // integers, as many
    typedef float Q __attribute__((vector_size(16)));
    static const int n = BYTES / 4;
};
template <> struct Lanes<double> {
    typedef double V __attribute__((vector_size(BYTES)));
    typedef Int M __attribute__((vector_size(BYTES)));
    typedef int C __attribute__((vector_size(BYTES / 2)));
    typedef double Q __attribute__((vector_size(16)));
    static const int n = BYTES / 8;
};

template <class T> INLINE typename Lanes<T>::V load(const T* p) {
    typename Lanes<T>::V v;
    memcpy(&v, p, sizeof v);
    return v;
}
template <class T> INLINE void store(T* p, const typename Lanes<T>::V& v) { memcpy(p, &v, sizeof v); }

// A vector that is used more than once, in a register: compilers would read it from memory at each use.
template <class T> INLINE typename Lanes<T>::V held(typename Lanes<T>::V v) {
#if BYTES == 64
    asm("" : "+v"(v));
#elif BYTES == 32
    asm("" : "+x"(v));
#endif
    return v;
}

template <class T> INLINE typename Lanes<T>::Q sum_quarters(const typename Lanes<T>::V& v) {  // of 16 bytes each
    const int parts = BYTES / 16;
    typename Lanes<T>::Q q[parts];
    memcpy(q, &v, sizeof v);
    for (int half = parts / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++) q[k] += q[k + half];
    return q[0];
}

template <class T> INLINE T sum_lanes(const typename Lanes<T>::V& v) {
    const typename Lanes<T>::Q q = sum_quarters<T>(v);
    T total = 0;
    for (unsigned k = 0; k < 16 / sizeof(T); k++) total += q[k];
    return total;
}

#if defined(__clang__)
#define SHUFFLE(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#else
#define SHUFFLE(x, y, ...) __builtin_shuffle(x, y, typename Lanes<T>::M{__VA_ARGS__})
#endif
#if BYTES == 64
#define PAIRS(x, y, a, b, c, d) \
    SHUFFLE(x, y, a, b, c, d, a + 4, b + 4, c + 4, d + 4, a + 8, b + 8, c + 8, d + 8, a + 12, b + 12, c + 12, d + 12)
#elif BYTES == 32
#define PAIRS(x, y, a, b, c, d) SHUFFLE(x, y, a, b, c, d, a + 4, b + 4, c + 4, d + 4)
#else
#define PAIRS(x, y, a, b, c, d) SHUFFLE(x, y, a, b, c, d)
#endif

// The sums of four vectors' lanes, added to to[0 ... 3]: for float in half the steps of four times `sum_lanes`.
template <class T> INLINE void add_sums(const typename Lanes<T>::V* v, T* to) {
    for (int k = 0; k < 4; k++) to[k] += sum_lanes<T>(v[k]);
}
template <> INLINE void add_sums<float>(const Lanes<float>::V* v, float* to) {
    typedef float T;
    const int n = Lanes<T>::n;
    const Lanes<T>::V a = PAIRS(v[0], v[1], 0, n, 1, n + 1) + PAIRS(v[0], v[1], 2, n + 2, 3, n + 3);
    const Lanes<T>::V b = PAIRS(v[2], v[3], 0, n, 1, n + 1) + PAIRS(v[2], v[3], 2, n + 2, 3, n + 3);
    const Lanes<T>::V all = PAIRS(a, b, 0, 1, n, n + 1) + PAIRS(a, b, 2, 3, n + 2, n + 3);
    Lanes<T>::Q own;
    memcpy(&own, to, sizeof own);
    own += sum_quarters<T>(all);
    memcpy(to, &own, sizeof own);
}

inline bool any_bit(const void* vector) {
    typedef Int Q __attribute__((vector_size(16)));
    Q q[BYTES / 16];
    memcpy(q, vector, sizeof q);
    for (int k = 1; k < BYTES / 16; k++) q[0] |= q[k];
    return q[0][0] | q[0][1];
}

// Where the first of a position's S + 1 numbers stands; the next are Lanes::n apart. So whole vectors of positions are
// computed and stored as they are.
template <class T, int S> INLINE Int place(Int position) { return position + (position & -Int(Lanes<T>::n)) * S; }

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

}  // namespace
