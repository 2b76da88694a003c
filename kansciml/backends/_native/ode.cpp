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
    return field ? new Solution(field) : 0;
}

HIDDEN void JOIN(ode_free_, , ISA)(void* solution) { delete static_cast<Solution*>(solution); }

HIDDEN void JOIN(ode_solve_, , ISA)(void* solution, const double* params, const Pieces* pieces, double rtol, double atol,
                                  Int max_steps, Int keep, double* states, Outcome* outcome) {
    Solution& own = *static_cast<Solution*>(solution);
    own.arena.clear();
    own.make_room(pieces->count, pieces->saves[pieces->count]);
    own.field->bind(params);
    memset(outcome, 0, sizeof *outcome);
    Forward forward = {own, *own.field, *pieces, rtol, atol, max_steps, keep != 0, states, *outcome, own.field->n,
                       own.field->np};
    forward.run();
}

HIDDEN void JOIN(ode_pull_, , ISA)(void* solution, Int pieces, const double* cotangents, double* grad, double* starts) {
    Solution& own = *static_cast<Solution*>(solution);
    Adjoint adjoint = {own, *own.field, cotangents, starts, pieces, own.field->n, own.field->np};
    adjoint.run();
    own.field->gradient(grad);
}
#endif

#ifdef DISPATCH
EXPORT int kansciml_ode_interface() { return 1; }  // raised with every change of the functions' arguments

FORWARD_TO(ode_new_, void*, (const Spec* spec), (spec))
FORWARD_TO(ode_free_, void, (void* solution), (solution))
FORWARD_TO(ode_solve_, void,
           (void* solution, const double* params, const Pieces* pieces, double rtol, double atol, Int max_steps,
            Int keep, double* states, Outcome* outcome),
           (solution, params, pieces, rtol, atol, max_steps, keep, states, outcome))
FORWARD_TO(ode_pull_, void, (void* solution, Int pieces, const double* cotangents, double* grad, double* starts),
           (solution, pieces, cotangents, grad, starts))
#endif
