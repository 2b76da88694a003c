# Any model of Lux as a vector field. It is called with batches (widths[1], B), in Float64.

struct LuxSpec{M<:AbstractLuxLayer,B,S<:NamedTuple,D<:AbstractADType}
    model::M
    blocks::B
    state::S
    widths::Vector{Int}               # sizes of x = (u, w, t) and of du/dt
    inputs::Int
    time::Bool
    differentiator::D                 # takes the derivatives that the replay needs
    n_parameters::Int
end

state_size(spec::LuxSpec) = spec.widths[end]

"""
    LuxField(model, n, ps, st; inputs = 0, time = false, differentiator, at)

A model of Lux as the vector field of a [`FitProblem`](@ref), which makes it: `n` components of the state. It is tried
at and near `at (n + inputs + time,)`, where it must be defined.
"""
struct LuxField{S<:LuxSpec} <: AbstractField
    spec::S
end

# Up to so many parameters, forward mode is quick enough to do without another package.
const FEW_PARAMETERS = 64

function LuxField(
    model::AbstractLuxLayer, n::Integer, ps, st; inputs = 0, time = false, differentiator = nothing, at = nothing
)
    blocks, count = blocks_of(LuxCore.initialparameters(Random.Xoshiro(0), model))
    length_of(ps) == count ||
        throw(DimensionMismatch("got ps of $(length_of(ps)) parameters: expected $count, as Lux.setup gives them"))
    AD = isnothing(differentiator) ? default_differentiator(count) : differentiator
    can_differentiate(AD) || need_package_of(AD)
    widths = [n + inputs + time, n]
    field = LuxField(LuxSpec(model, blocks, f64(testmode(st)), widths, Int(inputs), time, AD, count))
    check_batches(field, unpack(blocks, flat_parameters(field, ps)), @something(at, 0.1 .* sin.(1:widths[1])))
    return field
end

function default_differentiator(count)
    return count > FEW_PARAMETERS && can_differentiate(AutoZygote()) ? AutoZygote() : AutoForwardDiff()
end

length_of(ps::AbstractVector{<:Number}) = length(ps)
length_of(ps) = last(blocks_of(ps))

parameter_count(field::LuxField) = field.spec.n_parameters
unpack(field::LuxField, params) = unpack(field.spec.blocks, params)

# The flat Float64 vector of a field, of ps or of one that is flat already.
function flat_parameters(field, params::AbstractVector{<:Number})
    check_parameters(field, params)
    return Vector{Float64}(params)
end
function flat_parameters(field, ps)
    length_of(ps) == parameter_count(field) ||
        throw(DimensionMismatch("got $(length_of(ps)) parameters: expected $(parameter_count(field))"))
    return flatten!(zeros(parameter_count(field)), blocks(field), ps)
end
blocks(field::LuxField) = field.spec.blocks
blocks(field::Field) = field.blocks

# A column of a batch must be what the model gives for this column alone.
function check_batches(field::LuxField, ps, at)
    (; widths) = field.spec
    x = [at 0.9 .* at .+ 0.01]
    told = "expected a model that maps a batch ($(widths[1]), B) to ($(widths[2]), B), column by column"
    y = try
        first(field(x, ps, field.spec.state))
    catch failure
        throw(ArgumentError("$told; at the columns of $x it failed: $(sprint(showerror, failure))"))
    end
    size(y) == (widths[2], 2) || throw(ArgumentError("got an output of size $(size(y)) for 2 states: $told"))
    isapprox(y[:, 1:1], first(field(x[:, 1:1], ps, field.spec.state)); nans = true) ||
        throw(ArgumentError("got an output that depends on other columns of the batch: $told"))
    return nothing
end

function initial_parameters(rng::AbstractRNG, field::LuxField)
    return flat_parameters(field, LuxCore.initialparameters(rng, field.spec.model))
end

LuxCore.initialparameters(rng::AbstractRNG, field::LuxField) = LuxCore.initialparameters(rng, field.spec.model)
LuxCore.initialstates(::AbstractRNG, field::LuxField) = field.spec.state

(field::LuxField)(x, ps, st::NamedTuple) = LuxCore.apply(field.spec.model, x, ps, st)

function (field::LuxField)(x::AbstractVector, params::AbstractVector)
    return vec(field(reshape(x, :, 1), params))
end

function (field::LuxField)(x::AbstractMatrix, params::AbstractVector)
    check_parameters(field, params)
    return first(field(x, unpack(field, params), field.spec.state))
end

function Base.show(io::IO, field::LuxField)
    return print(io, nameof(typeof(field.spec.model)), " of Lux, ", parameter_count(field), " parameters")
end

# Derivatives of a batched map, by the package that an ADType names: methods are here and in the extensions.
#
# `state_jacobians!(jacobians, AD, f, x)`: of f's output by its column, (n, widths[1], B).
# `parameter_gradient(AD, f, ps, cotangents)`: of sum(cotangents .* f(ps)), as a tree.
function state_jacobians! end
function parameter_gradient end

can_differentiate(AD) = hasmethod(state_jacobians!, Tuple{Array{Float64,3},typeof(AD),Function,Matrix{Float64}})
can_differentiate(::AutoForwardDiff) = true

package_of(::AutoZygote) = "Zygote"
package_of(::AutoReverseDiff) = "ReverseDiff"
function package_of(AD)
    throw(ArgumentError("got sensealg $(name_of(AD)): expected AutoForwardDiff, AutoReverseDiff or AutoZygote"))
end
function need_package_of(AD)
    package = package_of(AD)
    throw(ArgumentError("sensealg $(name_of(AD)) needs $package: call `using $package` first"))
end

# A dual number along one component at a time serves all columns.
function state_jacobians!(jacobians, ::AutoForwardDiff, f::F, x::AbstractMatrix{T}) where {F,T}
    for i in axes(x, 1)
        along = [ForwardDiff.Dual{Along}(x[row, b], T(row == i)) for row in axes(x, 1), b in axes(x, 2)]
        view(jacobians, :, i, axes(x, 2)) .= ForwardDiff.partials.(f(along), 1)
    end
    return jacobians
end

function parameter_gradient(::AutoForwardDiff, f::F, ps, cotangents) where {F}
    blocks, count = blocks_of(ps)
    flat = flatten!(Vector{eltype(cotangents)}(undef, count), blocks, ps)
    weighted(p) = sum(cotangents .* f(unpack(blocks, p)))
    config = ForwardDiff.GradientConfig(weighted, flat, ForwardDiff.Chunk{min(count, CHUNK)}())
    return unpack(blocks, ForwardDiff.gradient(weighted, flat, config))
end
