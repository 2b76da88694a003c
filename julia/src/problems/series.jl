"""
    Series(u0, saveat, data; t0 = 0, weights = nothing, inputs = nothing, learned = false, follows = nothing)

One trajectory to fit: `u(t0) = u0`, compared with `data (n, T)` at the times `saveat`.

  - `data`: NaN where a component was not measured.
  - `weights (n, T)`: of the measurements in the loss, not negative (default: 1 each).
  - `inputs`: [`Inputs`](@ref) of the field, from `t0` to the last save time.
  - `learned`: the initial state is a parameter, of which `u0` is the first guess.
  - `follows`: number of the series whose end is to meet this one's start (multiple shooting); its last save time is
    `t0`, and `learned` is true.

Throws an `ArgumentError` or a `DimensionMismatch` if sizes do not fit, a number is infinite, times are not increasing
from `t0`, or inputs do not cover them.
"""
struct Series
    u0::Vector{Float64}
    t0::Float64
    saveat::Vector{Float64}
    data::Matrix{Float64}             # 0 where nothing was measured
    weights::Matrix{Float64}          # 0 there
    measured::Vector{Float64}         # sum of the weights up to each save time
    inputs::Union{Nothing,Inputs}
    learned::Bool
    follows::Int                      # 0: none
end

function Series(u0, saveat, data; t0 = 0.0, weights = nothing, inputs = nothing, learned = false, follows = nothing)
    n = length(u0)
    size(data) == (n, length(saveat)) ||
        throw(DimensionMismatch("got data of size $(size(data)): expected $((n, length(saveat)))"))
    check_times(saveat, t0)
    all(isfinite, u0) && !any(isinf, data) || throw(ArgumentError("got an initial value or data that are not finite"))
    weights = isnothing(weights) ? ones(size(data)) : weights
    size(weights) == size(data) ||
        throw(DimensionMismatch("got weights of size $(size(weights)): expected $(size(data))"))
    all(w -> 0 <= w < Inf, weights) || throw(ArgumentError("got a negative or infinite weight: expected 0 or more"))
    check_cover(inputs, t0, saveat[end])
    weights = ifelse.(isnan.(data), 0.0, weights)
    data = ifelse.(isnan.(data), 0.0, data)
    measured = cumsum(vec(sum(weights; dims = 1)))
    return Series(u0, t0, saveat, data, weights, measured, inputs, learned, something(follows, 0))
end

function check_times(saveat, t0)
    isempty(saveat) && throw(ArgumentError("got no save times: expected at least one"))
    all(isfinite, saveat) && issorted(saveat; lt = <=) && saveat[1] >= t0 || throw(
        ArgumentError("got save times from $(saveat[1]) to $(saveat[end]): expected finite ones, strictly " *
            "increasing, the first at t0 = $t0 or later")
    )
    return nothing
end

check_cover(::Nothing, t0, t_end) = nothing

function check_cover(inputs::Inputs, t0, t_end)
    inputs.t[1] <= t0 && t_end <= inputs.t[end] || throw(
        ArgumentError("got inputs from $(inputs.t[1]) to $(inputs.t[end]): expected all of $t0 to $t_end")
    )
    return nothing
end

function check_input_count(inputs, spec)
    count = input_count(inputs)
    count == spec.inputs ||
        throw(DimensionMismatch("got $count inputs for a field of $(spec.inputs): expected as many"))
    return nothing
end

function check_series(series, spec)
    n = state_size(spec)
    for (k, one) in enumerate(series)
        length(one.u0) == n || throw(DimensionMismatch("got $(length(one.u0)) initial values: expected $n"))
        check_input_count(one.inputs, spec)
        follows_nothing(one) && continue
        one.follows in eachindex(series) && one.follows != k && one.learned &&
            series[one.follows].saveat[end] == one.t0 || throw(
            ArgumentError("got series $k after series $(one.follows): expected one whose last save time is " *
                "$(one.t0), and a learned initial state")
        )
    end
    sum(one.measured[end] for one in series) > 0 ||
        throw(ArgumentError("nothing is measured in any series: the data are NaN or have weight 0"))
    return nothing
end

follows_nothing(one::Series) = one.follows == 0

# What a field sees at the start of a series: (u, w, t).
function seen_first((; u0, t0, inputs)::Series, time)
    return [u0; isnothing(inputs) ? Float64[] : inputs(t0); fill(t0, time)]
end
