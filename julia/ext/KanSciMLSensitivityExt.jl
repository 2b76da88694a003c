# Gradients by the sensitivity algorithms of SciMLSensitivity, on the Lux model of a field.
#
# Of the ways to take vector-Jacobian products, compiled tapes of ReverseDiff are the fastest by a factor of 3 to 100.
# They may be compiled: the only branches on values, the cells of the splines, are inside a rule that runs afresh.
module KanSciMLSensitivityExt

using KanSciML: KanSciML, AbstractField, check
using SciMLBase: AbstractAdjointSensitivityAlgorithm, AbstractSensitivityAlgorithm, FullSpecialize, ODEProblem, remake
using SciMLBase: solve
using SciMLSensitivity
using Zygote: Zygote

# Continuous adjoints: a dense forward solution, then the adjoint equation backwards with jumps at the save points.
struct Adjoint{A<:AbstractAdjointSensitivityAlgorithm}
    algorithm::A
end

# Discrete methods: the solver itself is differentiated.
struct Differentiated{A<:AbstractSensitivityAlgorithm}
    algorithm::A
end

KanSciML.sensitivity_method(algorithm::AbstractAdjointSensitivityAlgorithm) = Adjoint(algorithm)
KanSciML.sensitivity_method(algorithm::AbstractSensitivityAlgorithm) = Differentiated(algorithm)
const DISCRETE = Union{EnzymeAdjoint,MooncakeAdjoint,ReverseDiffAdjoint,TrackerAdjoint,ZygoteAdjoint}
KanSciML.sensitivity_method(algorithm::DISCRETE) = Differentiated(algorithm)

KanSciML.asked(method::Union{Adjoint,Differentiated}, spec) = method.algorithm

const AUTOJACVEC = ReverseDiffVJP(true)
KanSciML.sensitivity_algorithm(::Val{:GaussAdjoint}) = GaussAdjoint(; autojacvec = AUTOJACVEC)
KanSciML.sensitivity_algorithm(::Val{:InterpolatingAdjoint}) = InterpolatingAdjoint(; autojacvec = AUTOJACVEC)
KanSciML.sensitivity_algorithm(::Val{:BacksolveAdjoint}) = BacksolveAdjoint(; autojacvec = AUTOJACVEC)
function KanSciML.sensitivity_algorithm(::Val{:QuadratureAdjoint})
    return QuadratureAdjoint(; autojacvec = AUTOJACVEC, abstol = 0.0, reltol = 0.0)
end
KanSciML.sensitivity_algorithm(::Val{:ReverseDiffAdjoint}) = ReverseDiffAdjoint()
KanSciML.sensitivity_algorithm(::Val{:ForwardDiffSensitivity}) = ForwardDiffSensitivity()

# Quadrature tolerances of 0 are those of the solution.
at_tolerances(algorithm, piece) = algorithm
function at_tolerances(algorithm::QuadratureAdjoint, piece)
    (; autojacvec, abstol, reltol) = algorithm
    abstol == reltol == 0 || return algorithm
    return QuadratureAdjoint(; autojacvec, abstol = piece.atol, reltol = piece.rtol)
end

struct LuxRhs{F<:AbstractField}
    field::F
end

(rhs::LuxRhs)(u, p, t) = rhs.field(rhs.field.spec.time ? vcat(u, t) : u, p)

function ode_problem(problem, piece, params)
    span = (piece.t0, piece.saveat[end])
    return ODEProblem{false,FullSpecialize}(LuxRhs(problem.field), piece.start, span, Vector{Float64}(params))
end

options(problem, piece) = (reltol = piece.rtol, abstol = piece.atol, maxiters = problem.maxiters)

function KanSciML.record!(::Adjoint, workspace, problem, params, piece)
    solution = solve(ode_problem(problem, piece, params), problem.solver; options(problem, piece)...)
    check(solution, problem.maxiters)
    return solution, reduce(hcat, [solution(t) for t in piece.saveat])
end

function KanSciML.pull!(by_field, by_start, method::Adjoint, workspace, problem, params, piece, solution, cotangents)
    # The state at t0 is the start itself.
    first_save = piece.saveat[1] == piece.t0 ? 2 : 1
    jump!(out, u, p, t, i) = (out .= view(cotangents, :, i + first_save - 1); nothing)
    start, field = adjoint_sensitivities(
        solution, problem.solver; t = piece.saveat[first_save:end], dgdu_discrete = jump!,
        sensealg = at_tolerances(method.algorithm, piece), options(problem, piece)...,
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
            remake(ode; p, u0), problem.solver; options(problem, piece)..., saveat = piece.saveat,
            sensealg = method.algorithm,
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
