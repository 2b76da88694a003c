// Vectors of 64 bytes and aligned scratch memory; part of spline.cpp.

#pragma once

#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

typedef long long Int;

inline Int least(Int a, Int b) { return a < b ? a : b; }

template <class T> struct Lanes;
template <> struct Lanes<float> {
    typedef float V __attribute__((vector_size(64)));
    typedef int M __attribute__((vector_size(64)));
    typedef M C;  // integers, as many
    typedef float H __attribute__((vector_size(32)));
    typedef float Q __attribute__((vector_size(16)));
    static const int n = 16;
};
template <> struct Lanes<double> {
    typedef double V __attribute__((vector_size(64)));
    typedef Int M __attribute__((vector_size(64)));
    typedef int C __attribute__((vector_size(32)));
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

inline bool any_bit(const void* vector) {  // of 64 bytes
    typedef Int H __attribute__((vector_size(32)));
    typedef Int Q __attribute__((vector_size(16)));
    H h[2];
    memcpy(h, vector, sizeof h);
    h[0] |= h[1];
    Q q[2];
    memcpy(q, h, sizeof q);
    q[0] |= q[1];
    return q[0][0] | q[0][1];
}

// Where the first of a position's S + 1 numbers stands; the next are Lanes::n apart. So whole vectors of positions are
// computed and stored as they are.
template <class T, int S> inline Int place(Int position) { return position + (position & -Int(Lanes<T>::n)) * S; }

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
