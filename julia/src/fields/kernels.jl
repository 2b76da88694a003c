# The fields with their parameters bound, written out for speed: no allocation, no automatic differentiation.
#
# A kernel answers four calls. `rhs!` evaluates one state, for the integrator. `linearise!` visits all states of a
# solve as one batch and keeps what derivatives need. Then `pull_state!` gives the vector-Jacobian product of one column
# by the state, and remembers the cotangent of every layer; `pull_parameters!` turns these into the parameter gradient
# with one matrix product a layer. `T` is Float64, or a dual number for forward differentiation.

abstract type FieldKernel{T} end

function FieldKernel(::Type{T}, spec::FieldSpec) where {T}
    return spec.model === :mlp ? MLPKernel(T, spec) : KANKernel(T, spec)
end

# z = squash((u - center) / scale) ^ power, per component
struct Normalisation
    center::Vector{Float64}
    inverse_scale::Vector{Float64}
    squash::Bool
    power::Int
end

Normalisation(spec::FieldSpec) = Normalisation(spec.center, 1 ./ spec.scale, spec.squash, spec.input_power)

@inline function (normalisation::Normalisation)(u, i)
    z = (u - normalisation.center[i]) * normalisation.inverse_scale[i]
    normalisation.squash && (z = tanh(z))
    return normalisation.power == 1 ? z : z^normalisation.power
end

@inline function value_and_slope(normalisation::Normalisation, u, i)
    slope = normalisation.inverse_scale[i]
    z = (u - normalisation.center[i]) * slope
    if normalisation.squash
        z = tanh(z)
        slope *= 1 - z * z
    end
    power = normalisation.power
    power == 1 && return z, slope
    lower = z^(power - 1)
    return lower * z, slope * power * lower
end

@inline value_and_slope(::typeof(tanh_fast), x) = (y = tanh_fast(x); (y, 1 - y * y))
@inline value_and_slope(::typeof(sigmoid_fast), x) = (y = sigmoid_fast(x); (y, y * (1 - y)))
@inline value_and_slope(::typeof(relu), x) = x > 0 ? (x, one(x)) : (zero(x), zero(x))
@inline function value_and_slope(::typeof(swish), x)
    s = sigmoid_fast(x)
    return x * s, s * (1 + x * (1 - s))
end
@inline function value_and_slope(::typeof(gelu_erf), x)
    probability = (1 + erf(x / sqrt(2.0))) / 2
    return x * probability, probability + x * exp(-x * x / 2) / sqrt(2pi)
end

# `call(f, arguments...)` with the activation of that name. One branch per array instead of a type per activation, so
# that all of them are compiled ahead.
@inline function with_activation(call::F, name::Symbol, arguments...) where {F}
    name === :tanh && return call(tanh_fast, arguments...)
    name === :silu && return call(swish, arguments...)
    name === :gelu && return call(gelu_erf, arguments...)
    name === :relu && return call(relu, arguments...)
    return call(sigmoid_fast, arguments...)
end

# Columns of the batch are processed in place; arrays only grow.
enough(array::Array, columns) = size(array, ndims(array)) >= columns
grown(array::Array{T,N}, columns) where {T,N} = Array{T,N}(undef, size(array)[1:(N - 1)]..., columns)

# Columns of an array with length(y) rows lie one after the other, the first behind `offset` numbers. Four of them at a
# time cost little more than one: y is read and written once.

# y[:] += sum_c a[c] * column c
@inline function add_four!(y, (a, b, c, d), array, offset)
    n = length(y)
    @inbounds @simd for o in 1:n
        sum_of_two = muladd(b, array[offset + n + o], muladd(a, array[offset + o], y[o]))
        y[o] = muladd(d, array[offset + 3n + o], muladd(c, array[offset + 2n + o], sum_of_two))
    end
    return nothing
end

@inline function add_one!(y, a, array, offset)
    @inbounds @simd for o in eachindex(y)
        y[o] = muladd(a, array[offset + o], y[o])
    end
    return nothing
end

# Products of x with the columns.
@inline function dot_four(x, array::AbstractArray{T}, offset) where {T}
    n = length(x)
    a = b = c = d = zero(T) * zero(eltype(x))
    @inbounds @simd for o in 1:n
        a = muladd(array[offset + o], x[o], a)
        b = muladd(array[offset + n + o], x[o], b)
        c = muladd(array[offset + 2n + o], x[o], c)
        d = muladd(array[offset + 3n + o], x[o], d)
    end
    return a, b, c, d
end

@inline function dot_one(x, array::AbstractArray{T}, offset) where {T}
    a = zero(T) * zero(eltype(x))
    @inbounds @simd for o in eachindex(x)
        a = muladd(array[offset + o], x[o], a)
    end
    return a
end
