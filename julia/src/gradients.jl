"""
    SENSEALGS

How a gradient can be computed:

  - `:Replay` (default): exact gradient of the discrete solution, see `replay.jl`.
  - `:ForwardDiff`: dual numbers through the solver, in chunks of parameters.
  - after `using SciMLSensitivity`: `:GaussAdjoint`, `:InterpolatingAdjoint`, `:QuadratureAdjoint`, `:BacksolveAdjoint`,
    `:ReverseDiffAdjoint`, `:ForwardDiffSensitivity`, on the Lux model.
"""
const SENSEALGS = (
    :Replay, :ForwardDiff, :GaussAdjoint, :InterpolatingAdjoint, :QuadratureAdjoint, :BacksolveAdjoint,
    :ReverseDiffAdjoint, :ForwardDiffSensitivity,
)
const NATIVE_SENSEALGS = (:Replay, :ForwardDiff)

"""
    loss_and_gradient(problem, params; sensealg = :Replay, n_save = length(problem.saveat))

Loss over the first `n_save` save points and its gradient by `params`; `sensealg` is one of [`SENSEALGS`](@ref).
Throws a [`SolveFailure`](@ref) if the solution or the gradient is not finite, and never returns NaN.
"""
function loss_and_gradient(
    problem::FitProblem, params; sensealg::Symbol = :Replay, n_save::Integer = length(problem.saveat)
)
    check_parameters(problem.field, params)
    1 <= n_save <= length(problem.saveat) ||
        throw(ArgumentError("got n_save $n_save: expected 1 to $(length(problem.saveat))"))
    gradient = zeros(length(params))
    return loss_and_gradient!(gradient, problem, params, sensealg, n_save), gradient
end

function loss_and_gradient!(gradient, problem, params, sensealg::Symbol, n_save::Int)
    sensealg === :Replay && return replay_loss_and_gradient!(gradient, problem, params, n_save)
    sensealg === :ForwardDiff && return forward_loss_and_gradient!(gradient, problem, params, n_save)
    sensealg in SENSEALGS ||
        throw(ArgumentError("unknown sensealg $sensealg: expected one of $(join(SENSEALGS, ", "))"))
    if isempty(methods(sensitivity_loss_and_gradient!))
        throw(ArgumentError("sensealg $sensealg needs SciMLSensitivity: call `using SciMLSensitivity` first"))
    end
    loss = sensitivity_loss_and_gradient!(gradient, problem, params, Val(sensealg), n_save)::Float64
    isfinite(loss) && all(isfinite, gradient) || throw(SolveFailure("the solution or its gradient is not finite"))
    return loss
end

# Its methods are in the extension for SciMLSensitivity.
function sensitivity_loss_and_gradient! end

# Error control looks at values only: dual numbers then take the very steps that plain numbers take.
primal(x::Real) = ForwardDiff.value(x)
primal_norm(u::AbstractArray, t) = sqrt(sum(abs2 ∘ primal, u) / length(u))
primal_norm(u::Real, t) = abs(primal(u))

function forward_loss_and_gradient!(gradient, problem, params, n_save)
    t_end = problem.saveat[n_save]
    saveat = problem.saveat[1:n_save]
    (; data, loss_scale, rtol, atol) = problem
    function loss(p::AbstractVector{T}) where {T}
        kernel = bind!(FieldKernel(T, problem.field.spec), p)
        t_end == problem.t0 && return mean_square(problem, problem.u0) * one(T)
        u0 = Vector{T}(problem.u0)
        solution = integrate(
            kernel, problem, u0, (problem.t0, t_end); rtol, atol, saveat, internalnorm = primal_norm
        )
        total = zero(T)
        for (s, u) in enumerate(solution.u), i in eachindex(u)
            total += abs2((u[i] - data[i, s]) / loss_scale[i])
        end
        return total / (length(u0) * n_save)
    end
    result = ForwardDiff.DiffResults.MutableDiffResult(0.0, (gradient,))
    result = quietly(() -> ForwardDiff.gradient!(result, loss, params))
    value = ForwardDiff.DiffResults.value(result)::Float64
    isfinite(value) && all(isfinite, gradient) || throw(SolveFailure("the solution or its gradient is not finite"))
    return value
end
