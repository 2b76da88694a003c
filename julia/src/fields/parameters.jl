# Parameters as trees of arrays, as Lux takes them, and as one flat vector, depth first and column-major: the order of
# ComponentArrays.

# Where an array lies in the flat vector.
struct ParameterBlock{N}
    range::UnitRange{Int}
    dims::NTuple{N,Int}
end

# The block of an array that lies behind the first `offset[]` numbers.
function next_block(offset::Base.RefValue{Int}, dims::Int...)
    range = (offset[] + 1):(offset[] + prod(dims))
    offset[] = last(range)
    return ParameterBlock(range, dims)
end

# The blocks of a tree, and the length of its flat vector.
function blocks_of(ps)
    offset = Ref(0)
    place(array::AbstractArray) = next_block(offset, size(array)...)
    place(branch::Union{NamedTuple,Tuple}) = map(place, branch)
    place(other) = throw(ArgumentError("got parameters of type $(typeof(other)): expected arrays in NamedTuples"))
    return place(ps), offset[]
end

# Slices of a plain vector are views; those of a tape's vector are copies that it can follow.
unpack(block::ParameterBlock, params::Vector) = reshape(view(params, block.range), block.dims)
unpack(block::ParameterBlock, params::AbstractVector) = reshape(params[block.range], block.dims)
unpack(blocks::Union{NamedTuple,Tuple}, params) = map(block -> unpack(block, params), blocks)

# Arrays of their own, and what fills them from the flat vector.
arrays_of(::Type{T}, block::ParameterBlock) where {T} = zeros(T, block.dims)
arrays_of(::Type{T}, blocks::Union{NamedTuple,Tuple}) where {T} = map(block -> arrays_of(T, block), blocks)

function fill_arrays!(array::AbstractArray, block::ParameterBlock, params)
    return copyto!(array, 1, params, first(block.range), length(block.range))
end
function fill_arrays!(arrays::Union{NamedTuple,Tuple}, blocks, params)
    foreach((array, block) -> fill_arrays!(array, block, params), values(arrays), values(blocks))
    return arrays
end

# Writes a tree into the flat vector; a gradient may lack branches, which are zero.
function flatten!(flat, blocks::NamedTuple{names}, tree::NamedTuple) where {names}
    return flatten!(flat, values(blocks), values(NamedTuple{names}(tree)))
end
flatten!(flat, blocks::Tuple, tree::Tuple) = (foreach((b, array) -> flatten!(flat, b, array), blocks, tree); flat)
flatten!(flat, blocks::Union{NamedTuple,Tuple}, ::Nothing) = (foreach(b -> flatten!(flat, b, nothing), blocks); flat)
flatten!(flat, block::ParameterBlock, array::AbstractArray) = copyto!(flat, first(block.range), array, 1, length(array))
flatten!(flat, block::ParameterBlock, ::Nothing) = (flat[block.range] .= 0; flat)

# Tags of dual numbers: along a line, which others may contain, and along a component of the state, around all others.
struct Line end
struct Along end
ForwardDiff.:≺(::Type{Line}, ::Type{Along}) = true
ForwardDiff.:≺(::Type{Along}, ::Type{Line}) = false
ForwardDiff.:≺(::Type{Line}, ::Type{<:ForwardDiff.Tag}) = true
ForwardDiff.:≺(::Type{<:ForwardDiff.Tag}, ::Type{Line}) = false
ForwardDiff.:≺(::Type{<:ForwardDiff.Tag}, ::Type{Along}) = true
ForwardDiff.:≺(::Type{Along}, ::Type{<:ForwardDiff.Tag}) = false

# Constants of a model in the precision that it is called in.
in_type_of(x, array::AbstractArray) = as_floats(float_type(eltype(x)), array)
as_floats(::Type{T}, array::AbstractArray{T}) where {T} = array
as_floats(::Type{T}, array::AbstractArray) where {T} = T.(array)
float_type(::Type{T}) where {T<:AbstractFloat} = T
float_type(::Type{<:ForwardDiff.Dual{Tag,V}}) where {Tag,V} = float_type(V)
float_type(::Type) = Float64

ChainRulesCore.@non_differentiable in_type_of(::Any, ::Any)
