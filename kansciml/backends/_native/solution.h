// The pieces of one solve, the steps that were taken, and their memory; part of ode.cpp.

#pragma once

#include "kan.h"
#include "mlp.h"
#include "tableau.h"

namespace {

struct Pieces {  // shared with Python: keep the order
    Int count, inputs, time;
    const double *start, *t0;    // (count, n), (count,)
    const double* saveat;        // of all pieces, one after the other
    const Int* saves;            // (count + 1,): where those of a piece begin
    const double *knots, *base, *slope;  // inputs are base + slope (t - knot) from a knot to the next; infinity ends
    const Int *first, *held;             // (count,): the knot before a piece's t0; whether its inputs are held
};

struct Outcome {  // of a group; shared with Python: keep the order
    Int failed, piece, tried;  // failed: 1 where a piece cannot be solved, with what follows
    double t, h, largest;
    Int accepted, rejected;
};

struct Step {
    Step* before;
    double h;
    Int first, last;         // its save points
    double *block, *fresh;   // the field at its evaluations; and at its start, where that is not the end of the last
};
const Int RECORD = 8;  // numbers that a `Step` takes

struct Solution {  // shared with Python: keep the order
    double rtol, atol;
    Int max_steps, keep;  // keep: the steps, for the gradient
    const double* params;
    double* states;     // of all save points, (all, n)
    Step** last;        // of each piece
    double* theta;      // place of each save point within its step
    Outcome* outcomes;  // of each group
};

struct Cotangents {  // shared with Python: keep the order
    double* states;  // by the states (all, n)
    double* grads;   // by the parameters, what each group adds (groups, P)
    double* starts;  // by the starts (count, n)
    const double *data, *weights, *scale;  // of a quadratic loss, from which `states` is found: (all, n) twice, (n,)
    double factor;                         // of all weights
};

class Arena {  // memory that is given back all at once, and kept for the next solve
    const Int size;  // of a chunk
    double** chunk;
    Int chunks, current, used;

  public:
    explicit Arena(Int largest)
        : size(largest > 1 << 16 ? largest + 7 : 1 << 16), chunk(0), chunks(0), current(-1), used(size) {}
    ~Arena() {
        for (Int i = 0; i < chunks; i++) free(chunk[i]);
        free(chunk);
    }
    Arena(const Arena&) = delete;
    void clear() {
        current = -1;
        used = size;
    }
    double* take(Int numbers) {
        numbers = (numbers + 7) & -8;
        if (used + numbers > size) {
            if (++current == chunks) {
                chunk = static_cast<double**>(realloc(chunk, (chunks + 1) * sizeof(double*)));
                void* q = 0;
                if (!chunk || posix_memalign(&q, 64, size * sizeof(double))) abort();
                chunk[chunks++] = static_cast<double*>(q);
            }
            used = 0;
        }
        double* p = chunk[current] + used;
        used += numbers;
        return p;
    }
};

inline void fetch(const double* p, Int numbers) {  // into the cache, before it is needed
    for (Int i = 0; i < numbers; i += 8) __builtin_prefetch(p + i);
}

// What one thread works with.
struct Worker {
    Field* field;
    Arena arena;

    explicit Worker(Field* f) : field(f), arena(RECORD + f->width * STAGES + f->ends) {}
    ~Worker() { delete field; }
    Worker(const Worker&) = delete;
};

// Groups are solved by any number of threads, each of them alike: results do not depend on who does it.
inline Int thread_number() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

inline Int groups_of(Int pieces) { return (pieces + GROUP - 1) / GROUP; }

struct Range {  // of pieces
    Int begin, end;
    Range(Int group, Int pieces) : begin(group * GROUP), end(least(pieces, begin + GROUP)) {}
};

}  // namespace
