// Dormand-Prince 5(4) for the built-in fields with the exact gradient, behind a plain C interface.
//
// Vectors lie along hidden units and edges, not along pieces: each piece has steps, and cells of its splines, of its own.

#include "../../layers/_native/dispatch.h"
#include "adjoint.h"
#include "forward.h"

#ifdef ISA
HIDDEN void* JOIN(ode_new_, , ISA)(const Spec* s) {
    Field* field = 0;
    if (!s->spline) field = new MLP(*s);
    else switch (s->order) {
        case 1: field = new KAN<1>(*s); break;
        case 2: field = new KAN<2>(*s); break;
        case 3: field = new KAN<3>(*s); break;
        case 4: field = new KAN<4>(*s); break;
        case 5: field = new KAN<5>(*s); break;
    }
    return field ? new Worker(field) : 0;
}

HIDDEN void JOIN(ode_free_, , ISA)(void* worker) { delete static_cast<Worker*>(worker); }

// Of a quadratic loss: each group is differentiated right after it was solved, and its steps are forgotten.
HIDDEN void JOIN(ode_fit_, , ISA)(Worker** workers, Int threads, const Pieces* pieces, const Solution* solution,
                                const Cotangents* cotangents) {
    for (Int k = 0; k < threads; k++) workers[k]->field->bind(solution->params);
#pragma omp parallel for schedule(dynamic) num_threads(int(threads)) if (threads > 1)
    for (Int group = 0; group < groups_of(pieces->count); group++) {
        Worker& own = *workers[thread_number()];
        own.arena.clear();
        Forward(own, *pieces, *solution, group).run();
        if (solution->outcomes[group].failed) continue;
        const Adjoint adjoint(*own.field, pieces->count, *solution, *cotangents, group);
        adjoint.misfit(pieces->saves);
        adjoint.run();
    }
}

HIDDEN void JOIN(ode_solve_, , ISA)(Worker** workers, Int threads, const Pieces* pieces, const Solution* solution) {
    for (Int k = 0; k < threads; k++) {
        workers[k]->arena.clear();
        workers[k]->field->bind(solution->params);
    }
#pragma omp parallel for schedule(dynamic) num_threads(int(threads)) if (threads > 1)
    for (Int group = 0; group < groups_of(pieces->count); group++)
        Forward(*workers[thread_number()], *pieces, *solution, group).run();
}

// The last groups first: their steps are still in the cache.
HIDDEN void JOIN(ode_pull_, , ISA)(Worker** workers, Int threads, Int pieces, const Solution* solution,
                                 const Cotangents* cotangents) {
#pragma omp parallel for schedule(dynamic) num_threads(int(threads)) if (threads > 1)
    for (Int k = groups_of(pieces) - 1; k >= 0; k--)
        Adjoint(*workers[thread_number()]->field, pieces, *solution, *cotangents, k).run();
}
#endif

#ifdef DISPATCH
EXPORT int kansciml_ode_interface() { return 2; }  // raised with every change of the functions' arguments
EXPORT int kansciml_ode_group() { return GROUP; }

FORWARD_TO(ode_new_, void*, (const Spec* spec), (spec))
FORWARD_TO(ode_free_, void, (void* worker), (worker))
FORWARD_TO(ode_fit_, void,
           (Worker** workers, Int threads, const Pieces* pieces, const Solution* solution, const Cotangents* cotangents),
           (workers, threads, pieces, solution, cotangents))
FORWARD_TO(ode_solve_, void, (Worker** workers, Int threads, const Pieces* pieces, const Solution* solution),
           (workers, threads, pieces, solution))
FORWARD_TO(ode_pull_, void,
           (Worker** workers, Int threads, Int pieces, const Solution* solution, const Cotangents* cotangents),
           (workers, threads, pieces, solution, cotangents))
#endif
