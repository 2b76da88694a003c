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

function ReplayMemory(spec, stages)
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

function Workspace(spec, stages)
    return Workspace(FieldKernel(Float64, spec), Forcing(Float64, spec), ReplayMemory(spec, stages))
end

# Tasks that evaluate one problem at the same time borrow a workspace each; where all are lent, a new one is made.
struct Workspaces{K<:FieldKernel}
    lock::ReentrantLock
    free::Vector{Workspace{K}}
end

Workspaces(first::Workspace) = Workspaces(ReentrantLock(), [first])

function with_workspace(f::F, spec, stages, workspaces::Workspaces{K}) where {F,K}
    (; lock, free) = workspaces
    workspace = @lock lock isempty(free) ? Workspace(spec, stages)::Workspace{K} : pop!(free)
    try
        return f(workspace)
    finally
        @lock lock push!(free, workspace)
    end
end

"""
    FitProblem(model, series; ps, st, solver = Tsit5(), sensealg = nothing, continuity = 1, loss_scale = ones(n),
               rtol = 1e-7, atol = 1e-7, maxiters = 20_000)
    FitProblem(model, u0s, saveat, data; t0 = 0, ...)

The problem of fitting a neural ODE to data: `du/dt = model(u)`, or `model((u, w(t), t))`, solved from the start of
every one of the [`Series`](@ref) by `solver`. The loss is

    sum of w ((u - data) / loss_scale)^2 over all measurements / sum of their weights w

plus, for multiple shooting, `continuity` times the mean over links and components of
`((end - next start) / loss_scale)^2`. In the second form, `u0s (n,)` and `data (n, T)` are of one series, `u0s (n, K)`
and `data (n, T, K)` of several.

  - `model`: a [`kan_field`](@ref) or [`mlp_field`](@ref), which run on kernels of their own, or any layer of Lux that
    maps a batch `(n, B)` to `(n, B)`. `time = true` appends the time to what such a layer is given; inputs of the
    series come before it.
  - `ps`, `st`: as `Lux.setup` gives them; `ps` may be a flat vector, or of ComponentArrays (default: drawn by
    `Xoshiro(0)`). They are taken in Float64, and `st` in test mode.
  - `solver`: an algorithm of OrdinaryDiffEq, or one of [`SOLVERS`](@ref).
  - `sensealg`: how the gradient is computed, see [`SENSEALGS`](@ref).
  - `rtol`, `atol`: tolerances of the solver; `reltol` and `abstol`, as `solve` names them, are taken as well.

Parameters of the problem are one flat vector: the model's, then the learned initial states, in the order of the series.
`remake(problem; ...)` gives the problem with other options.

All series are solved and differentiated on as many threads as Julia has; results do not depend on their number. Tasks
may evaluate one problem at the same time: each works in memory of its own.

Throws an `ArgumentError` or a `DimensionMismatch` if sizes do not fit, a number is out of range, nothing is measured,
or the solver is unknown or its package is not loaded.
"""
struct FitProblem{S,K<:FieldKernel,T<:Union{Nothing,Tableau,RosenbrockTableau},A<:AbstractODEAlgorithm,G}
    field::AbstractField              # not concrete: built-in fields of any size are problems of one type
    spec::S
    params::Vector{Float64}           # of the field, to start from
    series::Vector{Series}
    solver::A
    tableau::T
    sensealg::G
    continuity::Float64
    loss_scale::Vector{Float64}
    rtol::Float64
    atol::Float64
    maxiters::Int
    workspaces::Workspaces{K}
end

function FitProblem(
    model::AbstractLuxLayer, series::AbstractVector{Series}; ps = nothing, st = nothing, time = nothing,
    solver = Tsit5(), sensealg = nothing, continuity = 1.0, loss_scale = nothing, rtol = 1e-7, atol = 1e-7,
    reltol = rtol, abstol = atol, maxiters = 20_000,
)
    isempty(series) && throw(ArgumentError("got no series: expected at least one"))
    n = length(series[1].u0)
    field = as_field(model, series[1], ps, st, time, sensealg)
    (; spec) = field
    check_series(series, spec)
    scales = isnothing(loss_scale) ? ones(n) : loss_scale
    length(scales) == n || throw(DimensionMismatch("got $(length(scales)) loss scales: expected $n"))
    check_tolerances(reltol, abstol)
    all(scale -> 0 < scale < Inf, scales) ||
        throw(ArgumentError("got loss_scale $scales: expected positive, finite numbers"))
    0 <= continuity < Inf || throw(ArgumentError("got continuity $continuity: expected a finite number, 0 or more"))
    maxiters >= 1 || throw(ArgumentError("got maxiters $maxiters: expected at least 1"))
    algorithm = ode_algorithm(solver)
    table = tableau(algorithm)
    params = isnothing(ps) ? initial_parameters(Random.Xoshiro(0), field) : flat_parameters(field, ps)
    workspaces = Workspaces(Workspace(spec, stage_count(table)))
    return FitProblem(
        field, spec, params, collect(series), algorithm, table, gradient_method(sensealg, spec, algorithm, table),
        Float64(continuity), collect(Float64, scales), Float64(reltol), Float64(abstol), Int(maxiters), workspaces,
    )
end

function FitProblem(model::AbstractLuxLayer, u0::AbstractVector{<:Real}, saveat, data; t0 = 0.0, options...)
    return FitProblem(model, [Series(u0, saveat, data; t0)]; options...)
end

function FitProblem(model::AbstractLuxLayer, u0s::AbstractMatrix, saveat, data; t0 = 0.0, options...)
    ndims(data) == 3 && size(data, 3) == size(u0s, 2) || throw(
        DimensionMismatch("got u0s of size $(size(u0s)) and data of size $(size(data)): expected (n, K) and (n, T, K)")
    )
    return FitProblem(
        model, [Series(u0s[:, k], saveat, data[:, :, k]; t0) for k in axes(u0s, 2)]; options...
    )
end

# A built-in field is kept as it is, for its kernel, unless other states or a package for its derivatives are asked for.
function as_field(field::AbstractField, one, ps, st, time, sensealg)
    isnothing(time) || time == field.spec.time ||
        throw(ArgumentError("got time = $time for a field that was made with time = $(field.spec.time)"))
    differentiator = sensealg isa AbstractADType ? sensealg : nothing
    isnothing(differentiator) && (isnothing(st) || st == field.state) && return field
    (; spec) = field
    ps = @something ps initial_parameters(Random.Xoshiro(0), field)
    return LuxField(
        field, state_size(spec), ps, @something(st, field.state); spec.inputs, spec.time, differentiator
    )
end

function as_field(model::AbstractLuxLayer, one, ps, st, time, sensealg)
    rng = Random.Xoshiro(0)
    ps = @something ps LuxCore.initialparameters(rng, model)
    differentiator = sensealg isa AbstractADType ? sensealg : nothing
    state = @something st LuxCore.initialstates(rng, model)
    timed, inputs = something(time, false), input_count(one.inputs)
    at = seen_first(one, timed)
    return LuxField(model, length(one.u0), ps, state; inputs, time = timed, differentiator, at)
end

as_field(field::LuxField, one, ps, st, time, sensealg) = as_field(
    field.spec.model, one, @something(ps, initial_parameters(Random.Xoshiro(0), field)),
    @something(st, field.spec.state), something(time, field.spec.time), sensealg,
)

"""
    remake(problem; ...)

The problem with other options: `model`, `series`, and all that [`FitProblem`](@ref) takes.
"""
function SciMLBase.remake(
    problem::FitProblem; model = nothing, series = problem.series, ps = isnothing(model) ? problem.params : nothing,
    st = isnothing(model) ? states_of(problem.field) : nothing, time = isnothing(model) ? problem.spec.time : nothing,
    options...,
)
    (; solver, sensealg, continuity, loss_scale, rtol, atol, maxiters) = problem
    kept = (; solver, sensealg = asked(sensealg, problem.spec), continuity, loss_scale, rtol, atol, maxiters)
    return FitProblem(something(model, model_of(problem.field)), series; ps, st, time, kept..., options...)
end

model_of(field::AbstractField) = field
model_of(field::LuxField) = field.spec.model
states_of(field::AbstractField) = field.state
states_of(field::LuxField) = field.spec.state

function Base.show(io::IO, problem::FitProblem)
    (; field, series, solver, rtol, atol) = problem
    rows = sum(length(one.saveat) for one in series)
    print(io, "FitProblem(", field, "; ", length(series), " series, ", rows, " save times, ", name_of(solver))
    return print(io, ", rtol ", rtol, ", atol ", atol, ")")
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
    return length(problem.params) + state_size(problem.spec) * count(one -> one.learned, problem.series)
end

"""
    initial_parameters(problem)
    initial_parameters(rng, problem)

The model's parameters that the problem was made with, or new ones, then the first guesses of the learned initial
states: a flat Float64 vector.
"""
initial_parameters(problem::FitProblem) = with_starts(copy(problem.params), problem)
initial_parameters(rng::AbstractRNG, problem::FitProblem) = with_starts(initial_parameters(rng, problem.field), problem)

function with_starts(params, problem)
    foreach(one -> one.learned && append!(params, one.u0), problem.series)
    return params
end

# The field's parameters, and the initial states (n, K) of all series.
function split_parameters(problem::FitProblem, params::AbstractVector)
    expected = parameter_count(problem)
    length(params) == expected || throw(DimensionMismatch("got $(length(params)) parameters: expected $expected"))
    count, next = length(problem.params), length(problem.params)
    starts = Matrix{Float64}(undef, state_size(problem.spec), length(problem.series))
    for (k, one) in enumerate(problem.series), i in axes(starts, 1)
        starts[i, k] = one.learned ? params[next += 1] : one.u0[i]
    end
    return Float64[params[i] for i in 1:count], starts
end

with_workspace(f::F, problem::FitProblem) where {F} =
    with_workspace(f, problem.spec, stage_count(problem.tableau), problem.workspaces)

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
