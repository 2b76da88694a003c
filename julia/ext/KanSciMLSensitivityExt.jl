# Gradients by the sensitivity algorithms of SciMLSensitivity, on the Lux model of a field.
#
# Of the ways to take vector-Jacobian products, compiled tapes of ReverseDiff are the fastest by a factor of 3 to 100.
# They may be compiled: the only branches on values, the cells of the splines, are inside a rule that runs afresh.
module KanSciMLSensitivityExt

using KanSciML: KanSciML, Field, algorithm, check
using SciMLBase: FullSpecialize, ODEProblem, remake, solve
using SciMLSensitivity
using SciMLSensitivity: ReverseDiff, Zygote

ReverseDiff.@grad_from_chainrules KanSciML.bspline_basis(x::ReverseDiff.TrackedArray, knots, pieces)

# Continuous adjoints: a dense forward solution, then the adjoint equation backwards with jumps at the save points.
struct Adjoint
    name::Symbol
end

# Discrete methods: the solver itself is differentiated.
struct Differentiated
    name::Symbol
end

function KanSciML.sensitivity_method(name::Symbol)
    return name in (:ReverseDiffAdjoint, :ForwardDiffSensitivity) ? Differentiated(name) : Adjoint(name)
end

function sensealg(method::Adjoint, piece)
    autojacvec = ReverseDiffVJP(true)
    method.name === :GaussAdjoint && return GaussAdjoint(; autojacvec)
    method.name === :InterpolatingAdjoint && return InterpolatingAdjoint(; autojacvec)
    method.name === :BacksolveAdjoint && return BacksolveAdjoint(; autojacvec)
    return QuadratureAdjoint(; autojacvec, abstol = piece.atol, reltol = piece.rtol)
end

function sensealg(method::Differentiated, piece)
    return method.name === :ReverseDiffAdjoint ? ReverseDiffAdjoint() : ForwardDiffSensitivity()
end

struct LuxRhs{F<:Field}
    field::F
end

(rhs::LuxRhs)(u, p, t) = rhs.field(rhs.field.spec.time ? vcat(u, t) : u, p)

function ode_problem(problem, piece, params)
    problem.field.spec.inputs == 0 ||
        throw(ArgumentError("SciMLSensitivity's algorithms know no inputs: take sensealg Replay or ForwardDiff"))
    span = (piece.t0, piece.saveat[end])
    return ODEProblem{false,FullSpecialize}(LuxRhs(problem.field), piece.start, span, Vector{Float64}(params))
end

options(problem, piece) = (reltol = piece.rtol, abstol = piece.atol, maxiters = problem.maxiters)

function KanSciML.record!(::Adjoint, workspace, problem, params, piece)
    solution = solve(ode_problem(problem, piece, params), algorithm(problem.solver); options(problem, piece)...)
    check(solution, problem.maxiters)
    return solution, reduce(hcat, [solution(t) for t in piece.saveat])
end

function KanSciML.pull!(by_field, by_start, method::Adjoint, workspace, problem, params, piece, solution, cotangents)
    # The state at t0 is the start itself.
    first_save = piece.saveat[1] == piece.t0 ? 2 : 1
    jump!(out, u, p, t, i) = (out .= view(cotangents, :, i + first_save - 1); nothing)
    start, field = adjoint_sensitivities(
        solution, algorithm(problem.solver); t = piece.saveat[first_save:end], dgdu_discrete = jump!,
        sensealg = sensealg(method, piece), options(problem, piece)...,
    )
    copyto!(by_field, vec(field))
    copyto!(by_start, start)
    first_save == 2 && (by_start .+= view(cotangents, :, 1))
    return nothing
end

function KanSciML.record!(method::Differentiated, workspace, problem, params, piece)
    ode = ode_problem(problem, piece, params)
    states, pullback = Zygote.pullback(ode.p, ode.u0) do p, u0
        solution = solve(
            remake(ode; p, u0), algorithm(problem.solver); options(problem, piece)..., saveat = piece.saveat,
            sensealg = sensealg(method, piece),
        )
        Zygote.ignore_derivatives(() -> check(solution, problem.maxiters))
        Array(solution)
    end
    return pullback, copy(states)
end

function KanSciML.pull!(by_field, by_start, ::Differentiated, workspace, problem, params, piece, pullback, cotangents)
    field, start = pullback(cotangents)
    copyto!(by_field, field)
    copyto!(by_start, start)
    return nothing
end

end
