# Gradients by the sensitivity algorithms of SciMLSensitivity, on the Lux model of a field.
#
# Of the ways to take vector-Jacobian products, compiled tapes of ReverseDiff are the fastest by a factor of 3 to 100.
# They may be compiled: the only branches on values, the cells of the splines, are inside a rule that runs afresh.
module KanSciMLSensitivityExt

using KanSciML: KanSciML, Field, FitProblem, check, mean_square, quietly
using OrdinaryDiffEqTsit5: Tsit5
using SciMLBase: FullSpecialize, ODEProblem, remake, solve
using SciMLSensitivity
using SciMLSensitivity: ReverseDiff, Zygote

ReverseDiff.@grad_from_chainrules KanSciML.bspline_basis(x::ReverseDiff.TrackedArray, knots, pieces)

const Adjoint = Union{Val{:GaussAdjoint},Val{:InterpolatingAdjoint},Val{:QuadratureAdjoint},Val{:BacksolveAdjoint}}
const Differentiated = Union{Val{:ReverseDiffAdjoint},Val{:ForwardDiffSensitivity}}

algorithm(::Val{:GaussAdjoint}, problem) = GaussAdjoint(; autojacvec = ReverseDiffVJP(true))
algorithm(::Val{:InterpolatingAdjoint}, problem) = InterpolatingAdjoint(; autojacvec = ReverseDiffVJP(true))
function algorithm(::Val{:QuadratureAdjoint}, problem)
    return QuadratureAdjoint(; autojacvec = ReverseDiffVJP(true), abstol = problem.atol, reltol = problem.rtol)
end
algorithm(::Val{:BacksolveAdjoint}, problem) = BacksolveAdjoint(; autojacvec = ReverseDiffVJP(true))
algorithm(::Val{:ReverseDiffAdjoint}, problem) = ReverseDiffAdjoint()
algorithm(::Val{:ForwardDiffSensitivity}, problem) = ForwardDiffSensitivity()

struct LuxRhs{F<:Field}
    field::F
end

(rhs::LuxRhs)(u, p, t) = rhs.field(u, p)

function ode_problem(problem::FitProblem, params, t_end)
    return ODEProblem{false,FullSpecialize}(LuxRhs(problem.field), problem.u0, (problem.t0, t_end), params)
end

function KanSciML.sensitivity_loss_and_gradient!(gradient, problem, params, name::Val, n_save)
    t_end = problem.saveat[n_save]
    if t_end == problem.t0
        fill!(gradient, 0)
        return mean_square(problem, problem.u0)
    end
    return quietly(() -> differentiate!(gradient, problem, Vector{Float64}(params), name, n_save))
end

# Continuous adjoints: a dense forward solution, then the adjoint equation backwards with jumps at the save points.
function differentiate!(gradient, problem, params, name::Adjoint, n_save)
    (; u0, loss_scale, rtol, atol, maxiters) = problem
    saveat, data = problem.saveat[1:n_save], problem.data[:, 1:n_save]
    options = (reltol = rtol, abstol = atol, maxiters = maxiters)
    solution = solve(ode_problem(problem, params, saveat[end]), Tsit5(); options...)
    check(solution, maxiters)
    residuals = (reduce(hcat, [solution(t) for t in saveat]) .- data) ./ loss_scale
    cotangents = residuals .* (2 / length(residuals)) ./ loss_scale
    # What is saved at t0 does not depend on the parameters.
    first_save = saveat[1] == problem.t0 ? 2 : 1
    jump!(out, u, p, t, i) = (out .= view(cotangents, :, i + first_save - 1); nothing)
    _, by_params = adjoint_sensitivities(
        solution, Tsit5(); t = saveat[first_save:end], dgdu_discrete = jump!, sensealg = algorithm(name, problem),
        options...,
    )
    copyto!(gradient, vec(by_params))
    return sum(abs2, residuals) / length(residuals)
end

# Discrete methods: the solver itself is differentiated.
function differentiate!(gradient, problem, params, name::Differentiated, n_save)
    (; loss_scale, rtol, atol, maxiters) = problem
    saveat, data = problem.saveat[1:n_save], problem.data[:, 1:n_save]
    ode, sensealg = ode_problem(problem, params, saveat[end]), algorithm(name, problem)
    function loss(p)
        solution = solve(remake(ode; p), Tsit5(); reltol = rtol, abstol = atol, maxiters, saveat, sensealg)
        Zygote.ignore_derivatives(() -> check(solution, maxiters))
        return sum(abs2, (Array(solution) .- data) ./ loss_scale) / length(data)
    end
    value, pullback = Zygote.pullback(loss, params)
    copyto!(gradient, only(pullback(1.0)))
    return value
end

end
