"""
    Inputs(t, values; kind = :linear)

Inputs w(t) of a field, also called forcing or controls: `values (m, L)` (or a vector, for one input) at the knots
`t (L,)`, strictly increasing. `:linear`: straight between knots; `:held`: the value of the last knot at or before t.
Integrators step exactly onto the knots.

`inputs(t)` gives `w (m,)`; beyond the first and last knot that of this knot.

Throws an `ArgumentError` if the knots are not increasing, a number is not finite, or the kind is unknown, a
`DimensionMismatch` if there is not one column for each knot.
"""
struct Inputs
    t::Vector{Float64}
    values::Matrix{Float64}
    held::Bool

    function Inputs(t, values::AbstractMatrix; kind::Symbol = :linear)
        kind in (:linear, :held) || throw(ArgumentError("unknown kind of inputs $kind: expected linear or held"))
        size(values, 2) == length(t) > 0 || throw(
            DimensionMismatch("got inputs of size $(size(values)) at $(length(t)) knots: expected one column a knot")
        )
        all(isfinite, values) && all(isfinite, t) && issorted(t; lt = <=) ||
            throw(ArgumentError("got inputs or knots that are not finite, or knots that are not strictly increasing"))
        return new(t, values, kind === :held)
    end
end

Inputs(t, values::AbstractVector; kind::Symbol = :linear) = Inputs(t, reshape(values, 1, :); kind)

input_count(inputs::Inputs) = size(inputs.values, 1)
input_count(::Nothing) = 0

# Knot that the interval of t begins with; at a knot, of the interval that begins there.
interval_at(inputs::Inputs, t) = max(1, searchsortedlast(inputs.t, primal(t)))

function (inputs::Inputs)(t::Real)
    return input_values!(zeros(typeof(float(t)), input_count(inputs)), 0, inputs, t, interval_at(inputs, t))
end

# w(t) in the interval that the given knot begins, into `x` behind its first `offset` numbers.
function input_values!(x, offset, inputs::Inputs, t, interval)
    (; values, held) = inputs
    if held || interval == length(inputs.t)
        for i in axes(values, 1)
            x[offset + i] = values[i, interval]
        end
        return x
    end
    left, right = inputs.t[interval], inputs.t[interval + 1]
    share = clamp((t - left) / (right - left), 0, 1)
    for i in axes(values, 1)
        x[offset + i] = values[i, interval] + share * (values[i, interval + 1] - values[i, interval])
    end
    return x
end

# What a field sees beside the state while one series is solved. `interval` is that of held inputs: it is set where an
# integrator passes a knot, so that the last stage of a step, which lies on the knot, still sees the value before it.
mutable struct Forcing{T}
    const time::Bool
    const x::Vector{T}                # (u, w, t)
    inputs::Union{Nothing,Inputs}
    interval::Int
end

Forcing(::Type{T}, spec) where {T} = Forcing{T}(spec.time, zeros(T, spec.widths[1]), nothing, 1)

function use_inputs!(forcing::Forcing, inputs, t0)
    forcing.inputs = inputs
    forcing.interval = isnothing(inputs) ? 1 : interval_at(inputs, t0)
    return forcing
end

is_held(inputs) = !isnothing(inputs) && inputs.held

# Held inputs begin the interval of t.
hold!(forcing::Forcing, ::Nothing, t) = nothing
hold!(forcing::Forcing, inputs::Inputs, t) = inputs.held && (forcing.interval = interval_at(inputs, t))

# Writes w(t) and t behind the first n numbers of `x`.
function extend!(x, forcing::Forcing, n, t)
    (; inputs) = forcing
    if !isnothing(inputs)
        interval = inputs.held ? forcing.interval : interval_at(inputs, t)
        input_values!(x, n, inputs, t, interval)
    end
    forcing.time && (x[end] = t)
    return x
end

# Derivatives by t of what `extend!` writes.
function input_rates!(rates, forcing::Forcing, n, t)
    (; inputs) = forcing
    fill!(rates, 0)
    if !isnothing(inputs) && !inputs.held
        left = min(interval_at(inputs, t), length(inputs.t) - 1)
        if left >= 1
            width = inputs.t[left + 1] - inputs.t[left]
            for i in axes(inputs.values, 1)
                rates[n + i] = (inputs.values[i, left + 1] - inputs.values[i, left]) / width
            end
        end
    end
    forcing.time && (rates[end] = 1)
    return rates
end

# Knots strictly inside a span: where integrators must stop.
inner_knots(::Nothing, t0, t_end) = Float64[]
inner_knots(inputs::Inputs, t0, t_end) = filter(t -> t0 < t < t_end, inputs.t)
