# Arrays that the replay reuses from one gradient to the next.
mutable struct ReplayMemory
    states::Matrix{Float64}            # (widths[1], columns): what the field sees at every stage of every step
    const slopes::Vector{Vector{Float64}}     # of the stages of one step, where the solver does not keep them
    const slope_cotangents::Matrix{Float64}   # (n, stages): of the slopes of one step
    const running::Vector{Float64}     # cotangent of the state between two steps
    const pulled::Vector{Float64}      # (widths[1],)
    saved::Matrix{Float64}             # (n, T): states at the save points, then their cotangents
    const step::Vector{Int}            # step that a save point lies in
    const theta::Vector{Float64}       # and where in it
    const first_column::Vector{Int}    # of each step; the last entry is one past the last column
end

function ReplayMemory(spec::Spec, stages)
    n, width = state_size(spec), spec.widths[1]
    return ReplayMemory(
        zeros(width, 0), [zeros(n) for _ in 1:stages], zeros(n, stages), zeros(n), zeros(width), zeros(n, 0), Int[],
        Float64[], Int[],
    )
end

# What one evaluation writes to: a kernel, which holds the parameters, what it sees beside the state, and the arrays of
# the replay.
struct Workspace{K<:FieldKernel}
    kernel::K
    forcing::Forcing{Float64}
    memory::ReplayMemory
end

function Workspace(spec::Spec, stages)
    return Workspace(FieldKernel(Float64, spec), Forcing(Float64, spec), ReplayMemory(spec, stages))
end

# Tasks that evaluate one problem at the same time borrow a workspace each; where all are lent, a new one is made.
struct Workspaces{K<:FieldKernel}
    lock::ReentrantLock
    free::Vector{Workspace{K}}
end

Workspaces(first::Workspace) = Workspaces(ReentrantLock(), [first])

function with_workspace(f::F, spec::Spec, stages, workspaces::Workspaces{K}) where {F,K}
    (; lock, free) = workspaces
    workspace = @lock lock isempty(free) ? Workspace(spec, stages)::Workspace{K} : pop!(free)
    try
        return f(workspace)
    finally
        @lock lock push!(free, workspace)
    end
end

"""
    FitProblem(field, series; solver = :Tsit5, continuity = 1, loss_scale = ones(n), rtol = 1e-7, atol = 1e-7,
               maxiters = 20_000)
    FitProblem(field, u0, saveat, data; t0 = 0, ...)

The problem of fitting a neural ODE to data: `du/dt = field(u, params)`, or `field((u, w(t), t), params)`, solved from
the start of every one of the [`Series`](@ref) by `solver`, one of [`SOLVERS`](@ref). The loss is

    sum of w ((u - data) / loss_scale)^2 over all measurements / sum of their weights w

plus, for multiple shooting, `continuity` times the mean over links and components of
`((end - next start) / loss_scale)^2`. The second form has one series.

Parameters of the problem are one flat vector: the field's, then the learned initial states, in the order of the series.

All series are solved and differentiated on as many threads as Julia has; results do not depend on their number. Tasks
may evaluate one problem at the same time: each works in memory of its own.

Throws an `ArgumentError` or a `DimensionMismatch` if sizes do not fit, a number is out of range, nothing is measured,
or the solver is unknown or its package is not loaded.
"""
struct FitProblem{K<:FieldKernel,T<:Union{Nothing,Tableau,RosenbrockTableau}}
    field::AbstractField
    series::Vector{Series}
    solver::Symbol
    tableau::T
    continuity::Float64
    loss_scale::Vector{Float64}
    rtol::Float64
    atol::Float64
    maxiters::Int
    workspaces::Workspaces{K}
end

function FitProblem(
    field::AbstractField, series::AbstractVector{Series}; solver::Symbol = :Tsit5, continuity = 1.0,
    loss_scale = ones(state_size(field.spec)), rtol = 1e-7, atol = 1e-7, maxiters = 20_000,
)
    check_series(series, field.spec)
    check_solver(solver)
    n = state_size(field.spec)
    length(loss_scale) == n || throw(DimensionMismatch("got $(length(loss_scale)) loss scales: expected $n"))
    check_tolerances(rtol, atol)
    all(scale -> 0 < scale < Inf, loss_scale) ||
        throw(ArgumentError("got loss_scale $loss_scale: expected positive, finite numbers"))
    0 <= continuity < Inf || throw(ArgumentError("got continuity $continuity: expected a finite number, 0 or more"))
    maxiters >= 1 || throw(ArgumentError("got maxiters $maxiters: expected at least 1"))
    table = tableau(solver)
    workspaces = Workspaces(Workspace(field.spec, stage_count(table)))
    return FitProblem(field, series, solver, table, continuity, loss_scale, rtol, atol, maxiters, workspaces)
end

function FitProblem(
    field::AbstractField, series, solver, table::T, continuity, loss_scale, rtol, atol, maxiters, workspaces::Workspaces{K}
) where {K,T}
    return FitProblem{K,T}(field, series, solver, table, continuity, loss_scale, rtol, atol, maxiters, workspaces)
end

function FitProblem(field::AbstractField, u0, saveat, data; t0 = 0.0, options...)
    return FitProblem(field, [Series(u0, saveat, data; t0)]; options...)
end

function check_tolerances(rtol, atol)
    0 < rtol < Inf && 0 < atol < Inf ||
        throw(ArgumentError("got rtol $rtol, atol $atol: expected positive, finite tolerances"))
    return nothing
end

"""
    parameter_count(problem)

Length of the problem's flat parameter vector: of the field, and `n` for each learned initial state.
"""
function parameter_count(problem::FitProblem)
    return parameter_count(problem.field) + state_size(problem.field.spec) * count(one -> one.learned, problem.series)
end

"""
    initial_parameters(rng, problem)

The field's initial parameters, then the first guesses of the learned initial states.
"""
function initial_parameters(rng::AbstractRNG, problem::FitProblem)
    starts = (one.u0 for one in problem.series if one.learned)
    return reduce(vcat, starts; init = initial_parameters(rng, problem.field))
end

# The field's parameters, and the initial states (n, K) of all series.
function split_parameters(problem::FitProblem, params)
    expected = parameter_count(problem)
    length(params) == expected || throw(DimensionMismatch("got $(length(params)) parameters: expected $expected"))
    count = parameter_count(problem.field)
    starts = reduce(hcat, one.u0 for one in problem.series)
    learned = findall(one -> one.learned, problem.series)
    starts[:, learned] .= reshape(view(params, (count + 1):expected), size(starts, 1), :)
    return params[1:count], starts
end

with_workspace(f::F, problem::FitProblem) where {F} =
    with_workspace(f, problem.field.spec, stage_count(problem.tableau), problem.workspaces)

# Calls `f(workspace, i)` for i = 1 to `count`, with the parameters bound, on as many threads as there are. Of several
# failures the first by i is thrown, whatever the number of threads.
function each_piece(f::F, problem::FitProblem, params, count::Int) where {F}
    if count == 1
        bound_workspace(workspace -> f(workspace, 1), problem, params)
        return nothing
    end
    failures = Vector{Any}(nothing, count)
    next = Threads.Atomic{Int}(1)
    function work(workspace)
        while (i = Threads.atomic_add!(next, 1)) <= count
            try
                f(workspace, i)
            catch failure
                failures[i] = failure
            end
        end
        return nothing
    end
    if Threads.nthreads() == 1
        bound_workspace(work, problem, params)
    else
        @sync for _ in 1:min(Threads.nthreads(), count)
            Threads.@spawn bound_workspace(work, problem, params)
        end
    end
    failed = findfirst(!isnothing, failures)
    isnothing(failed) || throw(failures[failed])
    return nothing
end

function bound_workspace(f::F, problem::FitProblem, params) where {F}
    with_workspace(problem) do workspace
        bind!(workspace.kernel, params)
        quietly(() -> f(workspace))
    end
    return nothing
end

# Solvers warn before they give up; the exception says it all. The logger hides the type of what `f` returns.
quietly(f::F) where {F} = with_logger(f, NullLogger())
