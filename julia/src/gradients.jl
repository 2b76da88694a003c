"""
    SENSEALGS

How a gradient can be computed, by name:

  - `:Replay`: exact gradient of the discrete solution, see `replay.jl` and `rosenbrock.jl`; the default where it knows
    the solver: `BS3`, `Tsit5`, `Vern8`, `Rodas5P`.
  - `:ForwardDiff`: dual numbers through the solver, in chunks of parameters: as exact, at a cost that grows with their
    number; the default for the other solvers.
  - after `using SciMLSensitivity`, without inputs: `:GaussAdjoint`, `:InterpolatingAdjoint`, `:QuadratureAdjoint`,
    `:BacksolveAdjoint`, `:ReverseDiffAdjoint`, `:ForwardDiffSensitivity`, on the Lux model. Its algorithms are taken as
    objects as well.

An ADType, `AutoForwardDiff()`, `AutoReverseDiff()` or `AutoZygote()`, is the replay in which this package takes the
derivatives of the Lux model. So are the gradients of models that are not built in: by default with ForwardDiff up to 64
parameters, beyond that with Zygote, if it is loaded.
"""
const SENSEALGS = (
    :Replay, :ForwardDiff, :GaussAdjoint, :InterpolatingAdjoint, :QuadratureAdjoint, :BacksolveAdjoint,
    :ReverseDiffAdjoint, :ForwardDiffSensitivity,
)

"""
    loss_and_gradient(problem, params; sensealg, series = eachindex(problem.series), n_save = nothing)

Loss of the problem and its gradient by `params` (see [`FitProblem`](@ref)), as a vector of its kind and floating-point
type; without learned initial states, `params` may be the NamedTuple of Lux. `sensealg` (default: the problem's) is one
of [`SENSEALGS`](@ref), an algorithm of SciMLSensitivity, or an ADType. `series` are the numbers of those to fit, of
which `n_save` gives the number of first save points to compare: one number, or one for each (default: all). Of multiple
shooting, those links count whose first series is among them, to its end; the start of the other is a parameter anyway.

Throws a [`SolveFailure`](@ref) if the solution or the gradient is not finite, and never returns NaN.
"""
function loss_and_gradient(
    problem::FitProblem, params; sensealg = nothing, series = eachindex(problem.series), n_save = nothing
)
    needs_other_spec(sensealg, problem.spec) &&
        return loss_and_gradient(remake(problem; sensealg), params; series, n_save)
    method = isnothing(sensealg) ? problem.sensealg :
        gradient_method(sensealg, problem.spec, problem.solver, problem.tableau)
    picked, counts = picked_rows(problem, series, n_save)
    by_field, starts = split_parameters(problem, flat_or_tree(problem, params))
    gradient, by_starts = similar(by_field), similar(starts)
    loss = loss_and_gradient!(gradient, by_starts, problem, by_field, starts, picked, counts, method)::Float64
    learned = findall(one -> one.learned, problem.series)
    return loss, like(params, vcat(gradient, vec(by_starts[:, learned])), problem)
end

# Numbers of the series, and of the save points of each.
function picked_rows(problem, series, n_save)
    picked = collect(Int, series)
    !isempty(picked) && allunique(picked) && all(in(eachindex(problem.series)), picked) ||
        throw(ArgumentError("got series $picked: expected some of $(eachindex(problem.series)), each once"))
    rows = [length(problem.series[k].saveat) for k in picked]
    counts = isnothing(n_save) ? rows : n_save isa Integer ? fill(Int(n_save), length(picked)) : collect(Int, n_save)
    length(counts) == length(rows) && all(1 .<= counts .<= rows) ||
        throw(ArgumentError("got n_save $n_save: expected 1 to $(join(rows, ", "))"))
    return picked, counts
end

# Parameters are a vector of any kind, or a tree; the gradient is given in the same form.
flat_or_tree(problem, params::AbstractVector{<:Number}) = params
flat_or_tree(problem, params) = flat_parameters(problem.field, params)
like(params::Vector{Float64}, gradient, problem) = gradient
like(params::AbstractVector{T}, gradient, problem) where {T<:Number} = copyto!(similar(params, float(T)), gradient)
like(params, gradient, problem) = unpack(problem.field, gradient)

# The gradient by the field's parameters and by the initial states (n, K) of all series.
function loss_and_gradient!(
    gradient, by_starts, problem, params, starts, picked::Vector{Int}, counts::Vector{Int}, method::M
) where {M}
    weight = sum(problem.series[k].measured[count] for (k, count) in zip(picked, counts); init = 0.0)
    # A window in a gap still is linked to its neighbours.
    weight > 0 || !all(follows_nothing, problem.series) ||
        throw(ArgumentError("nothing is measured in the part of the data that was picked"))
    measured = weight > 0 ? weight : 1.0
    links = active_links(problem, picked, counts)
    scale, misfits = problem.loss_scale, zeros(length(picked))
    gaps = zeros(length(scale), length(links))           # (end - next start) / loss_scale
    pull_of_gap = 2 * problem.continuity / length(gaps)
    gradients = length(picked) == 1 ? reshape(gradient, :, 1) : Matrix{Float64}(undef, length(gradient), length(picked))
    fill!(by_starts, 0)
    each_piece(problem, params, length(picked)) do workspace, i
        k, count = picked[i], counts[i]
        series = problem.series[k]
        piece = Piece(starts[:, k], series.t0, view(series.saveat, 1:count), series.inputs, problem.rtol, problem.atol)
        tape, states = is_start(piece) ? (nothing, copy(reshape(piece.start, :, 1))) :
            record!(method, workspace, problem, params, piece)
        for (l, link) in enumerate(links)
            link.before == k && (gaps[:, l] .= (view(states, :, count) .- view(starts, :, link.after)) ./ scale)
        end
        misfits[i] = compare!(states, series, scale, 2 / measured)
        for (l, link) in enumerate(links)
            link.before == k && (view(states, :, count) .+= pull_of_gap .* view(gaps, :, l) ./ scale)
        end
        by_field, by_start = view(gradients, :, i), view(by_starts, :, k)
        pull_piece!(by_field, by_start, method, workspace, problem, params, piece, tape, states)
    end
    for (l, link) in enumerate(links)
        view(by_starts, :, link.after) .-= pull_of_gap .* view(gaps, :, l) ./ scale
    end
    length(picked) == 1 || sum!(gradient, gradients)
    loss = sum(misfits) / measured
    isempty(links) || (loss += problem.continuity * sum(abs2, gaps) / length(gaps))
    isfinite(loss) && all(isfinite, gradient) && all(isfinite, by_starts) ||
        throw(SolveFailure("the solution or its gradient is not finite"))
    return loss
end

# Links of multiple shooting whose first series was picked, to its end; the start of the other is a parameter anyway.
function active_links(problem, picked, counts)
    links = @NamedTuple{before::Int, after::Int}[]
    for after in eachindex(problem.series)
        before = problem.series[after].follows
        i = findfirst(==(before), picked)
        isnothing(i) || counts[i] < length(problem.series[before].saveat) || push!(links, (; before, after))
    end
    return links
end

# Sum of w ((u - data) / loss_scale)^2; `states` become `factor / 2` times its gradient.
function compare!(states, series, loss_scale, factor)
    (; data, weights) = series
    total = 0.0
    @inbounds for s in axes(states, 2), i in axes(states, 1)
        residual = (states[i, s] - data[i, s]) / loss_scale[i]
        total += weights[i, s] * residual^2
        states[i, s] = factor * weights[i, s] * residual / loss_scale[i]
    end
    return total
end

function pull_piece!(by_field, by_start, method, workspace, problem, params, piece, tape, cotangents)
    if isnothing(tape)  # of the start alone
        fill!(by_field, 0)
        return copyto!(by_start, cotangents)
    end
    return pull!(by_field, by_start, method, workspace, problem, params, piece, tape, cotangents)
end

# Dual numbers through the solver. Error control looks at values only: they take the very steps that plain numbers take.
struct Forward end

# The method of a gradient that is asked for by name, by an ADType, by an algorithm, or not at all.
gradient_method(::Nothing, spec, solver, ::Nothing) = Forward()
gradient_method(::Nothing, spec, solver, table) = Replay()
gradient_method(::AbstractADType, spec, solver, table) = gradient_method(nothing, spec, solver, table)

function gradient_method(sensealg::Symbol, spec, solver, table)
    if sensealg === :Replay
        isnothing(table) || return Replay()
        told = "sensealg Replay does not know the solver $(name_of(solver))"
        throw(ArgumentError("$told: take ForwardDiff, or Rodas5P"))
    end
    sensealg === :ForwardDiff && return Forward()
    sensealg in SENSEALGS ||
        throw(ArgumentError("unknown sensealg $sensealg: expected one of $(join(SENSEALGS, ", "))"))
    return gradient_method(sensitivity_algorithm(Val(sensealg)), spec, solver, table)
end

function gradient_method(sensealg::AbstractSensitivityAlgorithm, spec, solver, table)
    spec.inputs == 0 || throw(
        ArgumentError("sensealg $(name_of(sensealg)) works without inputs: take Replay or ForwardDiff")
    )
    return sensitivity_method(sensealg)
end

function gradient_method(sensealg, spec, solver, table)
    throw(ArgumentError("got sensealg $sensealg: expected a name, an algorithm of SciMLSensitivity, or an ADType"))
end

# Their methods are in the extension for SciMLSensitivity.
function sensitivity_algorithm end
function sensitivity_method end

function hint_of_sensitivity(io, failure, argument_types, keywords)
    failure.f in (sensitivity_algorithm, sensitivity_method) &&
        print(io, "\nThis sensealg needs SciMLSensitivity: call `using SciMLSensitivity` first.")
    return nothing
end

# What a method was asked for by, for problems that are made from another.
asked(::Replay, spec) = nothing
asked(::Replay, spec::LuxSpec) = spec.differentiator
asked(::Forward, spec) = :ForwardDiff

# Whether the package that differentiates the model is another than the problem's.
needs_other_spec(sensealg, spec) = false
needs_other_spec(sensealg::AbstractADType, spec) = true
needs_other_spec(sensealg::AbstractADType, spec::LuxSpec) = sensealg != spec.differentiator

# Where a workspace has worked on other pieces since: most methods keep nothing in it.
recall!(method, workspace, problem, params, piece, tape) = tape

const CHUNK = 8

primal(x::Real) = ForwardDiff.value(x)
primal_norm(u::AbstractArray, t) = sqrt(sum(abs2 ∘ primal, u) / length(u))
primal_norm(u::Real, t) = abs(primal(u))

function record!(::Forward, workspace, problem, params, piece)
    return true, save!(Matrix{Float64}(undef, length(piece.start), length(piece.saveat)), workspace, problem, piece)
end

function pull!(by_field, by_start, ::Forward, workspace, problem, params, piece, tape, cotangents)
    function weighted(x::AbstractVector{T}) where {T}
        (; spec) = problem
        kernel = bind!(FieldKernel(T, spec), view(x, eachindex(params)))
        start = x[(length(params) + 1):end]
        solution = integrate(
            kernel, Forcing(T, spec), problem, piece, start; saveat = piece.saveat, internalnorm = primal_norm
        )
        return sum(sum(cotangents[i, s] * u[i] for i in eachindex(u)) for (s, u) in enumerate(solution.u))
    end
    x = vcat(params, piece.start)
    # Few chunk sizes, as each is compiled anew.
    config = ForwardDiff.GradientConfig(weighted, x, ForwardDiff.Chunk{min(length(x), CHUNK)}())
    gradient = ForwardDiff.gradient(weighted, x, config)
    copyto!(by_field, view(gradient, eachindex(params)))
    copyto!(by_start, view(gradient, (length(params) + 1):length(gradient)))
    return nothing
end
