# Arrays that the replay reuses from one gradient to the next.
mutable struct ReplayMemory
    states::Matrix{Float64}            # (n, 6N + 1): the Y_j; the last stage of a step is the first of the next
    const slope_cotangents::Matrix{Float64}   # (n, 7): of the k_j of one step
    const running::Vector{Float64}     # cotangent of the state between two steps
    const pulled::Vector{Float64}
    saved::Matrix{Float64}             # (n, T): states at the save points, then their cotangents
    step::Vector{Int}                  # step that a save point lies in
    theta::Vector{Float64}             # and where in it
end

function ReplayMemory(n)
    return ReplayMemory(zeros(n, 0), zeros(n, STAGES), zeros(n), zeros(n), zeros(n, 0), Int[], Float64[])
end

# What one evaluation writes to: a kernel, which holds the parameters, and the arrays of the replay.
struct Workspace{K<:FieldKernel}
    kernel::K
    memory::ReplayMemory
end

Workspace(spec::FieldSpec) = Workspace(FieldKernel(Float64, spec), ReplayMemory(spec.widths[1]))

# Tasks that evaluate one problem at the same time borrow a workspace each; where all are lent, a new one is made.
struct Workspaces{K<:FieldKernel}
    lock::ReentrantLock
    free::Vector{Workspace{K}}
end

Workspaces(first::Workspace) = Workspaces(ReentrantLock(), [first])

function with_workspace(f::F, spec::FieldSpec, workspaces::Workspaces{K}) where {F,K}
    (; lock, free) = workspaces
    workspace = @lock lock isempty(free) ? Workspace(spec)::Workspace{K} : pop!(free)
    try
        return f(workspace)
    finally
        @lock lock push!(free, workspace)
    end
end

function check_times(saveat, t0)
    isempty(saveat) && throw(ArgumentError("got no save times: expected at least one"))
    all(isfinite, saveat) && issorted(saveat; lt = <=) && saveat[1] >= t0 || throw(
        ArgumentError("got save times from $(saveat[1]) to $(saveat[end]): expected finite ones, strictly increasing, " *
            "the first at t0 = $t0 or later")
    )
    return nothing
end

function check_tolerances(rtol, atol)
    0 < rtol < Inf && 0 < atol < Inf ||
        throw(ArgumentError("got rtol $rtol, atol $atol: expected positive, finite tolerances"))
    return nothing
end

"""
    FitProblem(field, u0, saveat, data; t0 = 0, loss_scale = ones(n), rtol = 1e-7, atol = 1e-7,
               maxiters = 20_000)

The problem of fitting a neural ODE to data: `du/dt = field(u, params)`, `u(t0) = u0`, solved by `Tsit5()`, compared
with `data (n, T)` at the times `saveat`. The loss is the mean over times and components of
`((u - data) / loss_scale)^2`.

Tasks may evaluate one problem at the same time, also on several threads: each works in memory of its own.

Throws an `ArgumentError` or a `DimensionMismatch` if sizes do not fit, a number is not finite, or times are not
increasing from `t0`.
"""
struct FitProblem{K<:FieldKernel}
    field::Field
    u0::Vector{Float64}
    t0::Float64
    saveat::Vector{Float64}
    data::Matrix{Float64}
    loss_scale::Vector{Float64}
    rtol::Float64
    atol::Float64
    maxiters::Int
    workspaces::Workspaces{K}
end

function FitProblem(
    field::Field, u0, saveat, data; t0 = 0.0, loss_scale = ones(length(u0)), rtol = 1e-7, atol = 1e-7, maxiters = 20_000
)
    n = field.spec.widths[1]
    length(u0) == n == length(loss_scale) ||
        throw(DimensionMismatch("got $(length(u0)) initial values, $(length(loss_scale)) loss scales: expected $n"))
    size(data) == (n, length(saveat)) ||
        throw(DimensionMismatch("got data of size $(size(data)): expected $((n, length(saveat)))"))
    check_times(saveat, t0)
    check_tolerances(rtol, atol)
    all(isfinite, u0) && all(isfinite, data) || throw(ArgumentError("got an initial value or data that are not finite"))
    all(scale -> 0 < scale < Inf, loss_scale) ||
        throw(ArgumentError("got loss_scale $loss_scale: expected positive, finite numbers"))
    maxiters >= 1 || throw(ArgumentError("got maxiters $maxiters: expected at least 1"))
    workspaces = Workspaces(Workspace(field.spec))
    return FitProblem(field, u0, t0, saveat, data, loss_scale, rtol, atol, maxiters, workspaces)
end

function FitProblem(
    field::Field, u0, t0, saveat, data, loss_scale, rtol, atol, maxiters, workspaces::Workspaces{K}
) where {K}
    return FitProblem{K}(field, u0, t0, saveat, data, loss_scale, rtol, atol, maxiters, workspaces)
end

with_workspace(f::F, problem::FitProblem) where {F} = with_workspace(f, problem.field.spec, problem.workspaces)

struct BoundField{K<:FieldKernel}
    kernel::K
end

(field::BoundField)(du, u, p, t) = rhs!(du, u, field.kernel)

# The solution of the kernel's field over `tspan`; warnings of the solver become the message of a SolveFailure.
function integrate(kernel::FieldKernel, problem::FitProblem, u0, tspan; rtol, atol, options...)
    ode = ODEProblem{true,FullSpecialize}(BoundField(kernel), u0, tspan)
    (; maxiters) = problem
    solution = solve(ode, Tsit5(); reltol = rtol, abstol = atol, maxiters, options...)
    check(solution, maxiters)
    return solution
end

function check(solution, maxiters)
    successful_retcode(solution) && return nothing
    t = round(solution.t[end]; sigdigits = 6)
    if solution.retcode == ReturnCode.MaxIters
        throw(SolveFailure("the solution needs more than $maxiters steps (reached t = $t): raise max_steps, or loosen rtol and atol"))
    end
    largest = round(maximum(abs, solution.u[end]); sigdigits = 3)
    throw(SolveFailure("the solution blows up near t = $t (largest state $largest, $(solution.retcode))"))
end

# Solvers warn before they give up; the exception says it all. The logger hides the type of what `f` returns.
quietly(f::F) where {F} = with_logger(f, NullLogger())

"""
    trajectory(problem, params; saveat = problem.saveat, rtol = problem.rtol, atol = problem.atol)

States `(n, T)` at the times `saveat`, saved by the solver.

Throws a [`SolveFailure`](@ref), an `ArgumentError` if the times are not finite and strictly increasing from `t0` or a
tolerance is not positive, a `DimensionMismatch` for another number of parameters.
"""
function trajectory(
    problem::FitProblem, params; saveat = problem.saveat, rtol = problem.rtol, atol = problem.atol
)
    states = Matrix{Float64}(undef, length(problem.u0), length(saveat))
    return trajectory!(states, problem, params, saveat, rtol, atol)
end

function trajectory!(states::Matrix{Float64}, problem::FitProblem, params, saveat, rtol, atol)
    check_times(saveat, problem.t0)
    check_tolerances(rtol, atol)
    check_parameters(problem.field, params)
    if saveat[end] == problem.t0
        states .= problem.u0
        return states
    end
    with_workspace(problem) do workspace
        kernel = bind!(workspace.kernel, params)
        quietly() do
            solution = integrate(kernel, problem, problem.u0, (problem.t0, saveat[end]); rtol, atol, saveat)
            length(solution.u) == length(saveat) || throw(SolveFailure("the solver saved $(length(solution.u)) states"))
            for (column, state) in zip(eachcol(states), solution.u)
                copyto!(column, state)
            end
        end
    end
    all(isfinite, states) || throw(SolveFailure("the solution is not finite"))
    return states
end
