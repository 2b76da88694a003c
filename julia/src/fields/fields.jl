const ACTIVATIONS = (tanh = tanh, silu = swish, gelu = gelu_erf, relu = relu, sigmoid = sigmoid)

# What a field is, without its parameters. The concrete type of everything downstream depends on `model` alone, so that
# a precompiled gradient serves any widths, grid, order and activation.
struct FieldSpec
    model::Symbol
    widths::Vector{Int}
    activation::Symbol
    grid::Int
    spline_order::Int
    grid_range::Tuple{Float64,Float64}
    outside::Symbol
    center::Vector{Float64}
    scale::Vector{Float64}
    rate::Vector{Float64}
    squash::Bool
    input_power::Int
    inputs::Int
    time::Bool

    function FieldSpec(
        model, widths; activation = :tanh, grid = 5, spline_order = 3, grid_range = (-1, 1), outside = :zero,
        center = zeros(widths[1]), scale = ones(widths[1]), rate = ones(widths[end]), squash = false, input_power = 1,
        inputs = 0, time = false, free_ends = false,
    )
        model in (:mlp, :kan) || throw(ArgumentError("unknown model $model: expected mlp or kan"))
        if !haskey(ACTIVATIONS, activation)
            throw(ArgumentError("unknown activation $activation: expected one of $(join(keys(ACTIVATIONS), ", "))"))
        end
        fed = free_ends ? widths[1] : widths[end] + inputs + time
        if length(widths) < 2 || minimum(widths) < 1 || inputs < 0 || widths[1] != fed
            seen = inputs > 0 || time ? ", but for $inputs inputs$(time ? " and time" : "")" : ""
            throw(ArgumentError("got widths $widths: expected at least two, positive, the first and last equal$seen"))
        end
        for (name, values, n) in ((:center, center, 1), (:scale, scale, 1), (:rate, rate, lastindex(widths)))
            length(values) == widths[n] ||
                throw(ArgumentError("got $(length(values)) values for $name: expected $(widths[n])"))
            all(isfinite, values) && (name !== :scale || all(>(0), values)) ||
                throw(ArgumentError("got $name $values: expected finite numbers (scale: positive)"))
        end
        if input_power < 1 || iseven(input_power)
            throw(ArgumentError("got input_power $input_power: expected an odd positive integer"))
        end
        return new(
            model, widths, activation, grid, spline_order, Float64.(grid_range), checked_outside(outside), center,
            scale, rate, squash, input_power, inputs, time,
        )
    end
end

state_size(spec::FieldSpec) = spec.widths[end]

# What is called as field(x, ps, st) and field(x, params), and has a `spec` with the sizes `widths`, `inputs`, `time`.
abstract type AbstractField <: AbstractLuxLayer end

# One NamedTuple of blocks per layer, in the order of the flat vector; names as Lux gives them.
parameter_blocks(spec::FieldSpec) = spec.model === :mlp ? mlp_blocks(spec) : kan_blocks(spec)

function mlp_blocks(spec::FieldSpec)
    offset = Ref(0)
    return map(spec.widths[1:(end - 1)], spec.widths[2:end]) do n_in, n_out
        (weight = next_block(offset, n_out, n_in), bias = next_block(offset, n_out))
    end
end

function kan_blocks(spec::FieldSpec)
    offset, n_basis = Ref(0), spec.grid + spec.spline_order
    return map(spec.widths[1:(end - 1)], spec.widths[2:end]) do n_in, n_out
        (
            base_weight = next_block(offset, n_out, n_in),
            spline_weight = next_block(offset, n_out, n_basis, n_in),
            spline_scale = next_block(offset, n_out, n_in),
        )
    end
end

"""
    field(x, ps, st)
    field(x, params)

A learnable vector field `du/dt = rate .* net(z)`, `z = (x .- center) ./ scale`, optionally squashed by tanh and raised
to a power; made by [`mlp_field`](@ref) or [`kan_field`](@ref). `x` is a state `(n,)` or a batch of states `(n, ...)`,
followed by the inputs and the time where the field has them.

It is a layer of Lux: `ps, st = Lux.setup(rng, field)`. The states are `center`, `scale`, `rate`, and `network`, those
of the `Lux.Chain` `field.model`; they are Float64, and the field computes in the type of `x`.

`params` is one flat vector; other sizes throw a `DimensionMismatch`. It holds, layer by layer, `weight (out, in)`,
`bias (out)`, or `base_weight (out, in)`, `spline_weight (out, G + S, in)`, `spline_scale (out, in)`, each column-major:
the order of `ComponentArray(ps)`. `KanSciML.unpack(field, params)` gives `ps` of it, without copying.
"""
struct Field{M,B<:NamedTuple,S} <: AbstractField
    spec::FieldSpec
    model::M
    blocks::B
    state::S
end

function Field(spec::FieldSpec)
    layers = map(eachindex(spec.widths[2:end])) do i
        mapping = spec.widths[i] => spec.widths[i + 1]
        if spec.model === :mlp
            Dense(mapping, i + 1 < length(spec.widths) ? ACTIVATIONS[spec.activation] : identity)
        else
            SplineKANLayer(mapping; spec.grid, spec.spline_order, spec.grid_range, spec.outside)
        end
    end
    model = Chain(layers...)
    names = Tuple(Symbol(:layer_, i) for i in eachindex(layers))
    blocks = NamedTuple{names}(Tuple(parameter_blocks(spec)))
    return Field(spec, model, blocks, field_state(spec, model))
end

function field_state(spec::FieldSpec, model)
    (; center, scale, rate) = spec
    network = LuxCore.initialstates(Random.Xoshiro(0), model)      # nothing in them is random
    return (; center = copy(center), scale = copy(scale), rate = copy(rate), network)
end

"""
    mlp_field(widths; activation = :tanh, center, scale, rate, squash = false, input_power = 1, inputs = 0,
              time = false)

Vector field with an MLP: `Lux.Dense` layers of the given widths, e.g. `[2, 50, 2]`, and an activation between them
(`:tanh`, `:silu`, `:gelu` by erf, `:relu` or `:sigmoid`). `center`, `scale` and `rate` are vectors of the state's
size (default 0, 1, 1). See [`kan_field`](@ref) for the rest.
"""
function mlp_field(
    widths; activation::Symbol = :tanh, center = zeros(widths[1]), scale = ones(widths[1]), rate = ones(widths[end]),
    squash = false, input_power = 1, inputs = 0, time = false, others...,
)
    isempty(others) || refuse("an MLP", others)
    return Field(
        FieldSpec(:mlp, collect(Int, widths); activation, center, scale, rate, squash, input_power, inputs, time)
    )
end

"""
    kan_field(widths; grid = 5, spline_order = 3, grid_range = (-1, 1), outside = :zero, center, scale, rate,
              squash = false, input_power = 1, inputs = 0, time = false)

Vector field with a spline KAN: [`SplineKANLayer`](@ref)s of the given widths, e.g. `[2, 6, 2]`, and their policy
`outside` of the grid. `center` and `scale` normalise the state (choose them so that it stays inside `grid_range`),
`squash` applies tanh after that, `input_power` raises the result to an odd power, `rate` multiplies the output.

`inputs` is the number of inputs ([`Inputs`](@ref)) that the network sees beside the state, `time` whether it sees the
time, last: `widths[1]` is `widths[end] + inputs + time`, as are the lengths of `center` and `scale`.

Throws an `ArgumentError` if a value is out of range.
"""
function kan_field(
    widths; grid = 5, spline_order = 3, grid_range = (-1, 1), outside = :zero, center = zeros(widths[1]),
    scale = ones(widths[1]), rate = ones(widths[end]), squash = false, input_power = 1, inputs = 0, time = false,
    others...,
)
    isempty(others) || refuse("a spline KAN", others)
    return Field(
        FieldSpec(
            :kan, collect(Int, widths); grid, spline_order, grid_range, outside, center, scale, rate, squash,
            input_power, inputs, time,
        )
    )
end

refuse(what, options) = throw(ArgumentError("$what takes no $(join(keys(options), ", ")): leave it out"))

"""
    parameter_count(field)

Length of the flat parameter vector.
"""
parameter_count(field::Field) = last(last(last(field.blocks)).range)
parameter_count(spec::FieldSpec) = last(last(last(parameter_blocks(spec))).range)

function check_parameters(field::AbstractField, params)
    expected = parameter_count(field)
    length(params) == expected || throw(DimensionMismatch("got $(length(params)) parameters: expected $expected"))
    return nothing
end

"""
    initial_parameters(rng, field)

Flat vector of initial parameters, Float64. MLP: Glorot-uniform weights, zero biases. KAN: Glorot-uniform base weights,
normal spline weights of deviation `0.1 / sqrt(in)`, unit scales. The last layer starts at a tenth of that, so that
du/dt is small and the first trajectory stays near its start.
"""
function initial_parameters(rng::AbstractRNG, field::Field)
    params = zeros(parameter_count(field))
    layers = unpack(field, params)
    for (number, layer) in enumerate(layers), name in keys(layer)
        array = layer[name]
        gain = number == length(layers) ? 0.1 : 1.0
        if name in (:weight, :base_weight)
            array .= gain * sqrt(6 / sum(size(array))) .* (2 .* rand(rng, size(array)...) .- 1)
        elseif name === :spline_weight
            array .= gain * 0.1 / sqrt(size(array, 3)) .* randn(rng, size(array)...)
        elseif name === :spline_scale
            array .= 1
        end
    end
    return params
end

unpack(field::Field, params) = unpack(field.blocks, params)

LuxCore.initialparameters(rng::AbstractRNG, field::Field) = drawn_parameters(rng, field)

function drawn_parameters(rng, field)
    return fill_arrays!(arrays_of(Float32, field.blocks), field.blocks, initial_parameters(rng, field))
end

LuxCore.initialstates(::AbstractRNG, field::Field) = field_state(field.spec, field.model)
LuxCore.parameterlength(field::Field) = parameter_count(field)
LuxCore.outputsize(field::Field, x, ::AbstractRNG) = (state_size(field.spec), size(x)[2:(end - 1)]...)

function (field::Field)(x::AbstractArray, ps, st::NamedTuple)
    (; widths, squash, input_power) = field.spec
    # one row would be spread over all components
    size(x, 1) == widths[1] ||
        throw(DimensionMismatch("got states of size $(size(x)): expected $(widths[1]) components"))
    z = (x .- in_type_of(x, st.center)) ./ in_type_of(x, st.scale)
    z = squash ? tanh.(z) : z
    z = input_power == 1 ? z : z .^ input_power
    y, network = LuxCore.apply(field.model, z, ps, st.network)
    return in_type_of(x, st.rate) .* y, merge(st, (; network))
end

function (field::AbstractField)(x::AbstractVecOrMat, params::AbstractVector)
    check_parameters(field, params)
    return first(field(x, unpack(field, params), field.state))
end

function Base.show(io::IO, field::Field)
    (; model, widths, activation, grid, spline_order, outside) = field.spec
    detail = model === :mlp ? "$activation" : "grid=$grid, spline_order=$spline_order$(shown_outside(outside))"
    print(io, model === :mlp ? "MLP" : "KAN", " field ", join(widths, "-"), " ($detail), ")
    return print(io, parameter_count(field), " parameters")
end

# Lux prints the layers of a Chain by this.
Base.show(io::IO, ::MIME"text/plain", field::AbstractField) = show(io, field)
