// Which instruction set runs: one library holds the same functions compiled for several; part of spline.cpp and ode.cpp.
//
// Each source is compiled once per instruction set (-DISA=...); the object with -DDISPATCH picks one at run time. All of
// it is in an unnamed namespace and no C++ header is used, so that no shared inline function can leak wide instructions
// into the portable object. DISPATCH 0: portable alone, 1: and AVX2, 2: and AVX2 and AVX-512.

#pragma once

#define JOIN_(a, b, c) a##b##c
#define JOIN(a, b, c) JOIN_(a, b, c)
#define HIDDEN extern "C" __attribute__((visibility("hidden")))
#define EXPORT extern "C" __attribute__((visibility("default")))

#ifdef DISPATCH
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

EXPORT int kansciml_isa() {
    IF_AVX2(__builtin_cpu_init();)
    IF_AVX512(if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")) return 2;)
    IF_AVX2(if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;)
    return 0;
}

// kansciml_NAME, which calls NAMEavx512, NAMEavx2 or NAMEportable
#define FORWARD_TO(NAME, RESULT, TYPES, ARGS) \
    extern "C" RESULT NAME##avx512 TYPES; \
    extern "C" RESULT NAME##avx2 TYPES; \
    extern "C" RESULT NAME##portable TYPES; \
    EXPORT RESULT kansciml_##NAME TYPES { \
        static const int isa = kansciml_isa(); \
        IF_AVX512(if (isa == 2) return NAME##avx512 ARGS;) \
        IF_AVX2(if (isa >= 1) return NAME##avx2 ARGS;) \
        (void)isa; \
        return NAME##portable ARGS; \
    }
#endif
