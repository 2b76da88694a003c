# Known terms and a network: a universal differential equation (Rackauckas et al. 2020).

struct HybridSpec
    network::FieldSpec                # of any number of inputs and outputs
    equations::Equations
    names::Vector{String}             # of the known parameters that are estimated
    inputs::Int
    time::Bool                        # always: the time is the last number of x
    widths::Vector{Int}               # sizes of x = (u, w, t) and of du/dt
end

function HybridSpec(network::FieldSpec, equations::Equations, names, inputs::Int)
    n = length(equations.slopes)
    for call in equations.calls
        length(call) == network.widths[1] ||
            throw(ArgumentError("got a network of $(network.widths[1]) inputs, called with $(length(call))"))
    end
    limits = Dict(X => n + inputs + 1, TRAINED => length(names))
    for (; code, a, b) in equations.operations
        a <= get(limits, code, a) && (code !== OUTPUT || b <= network.widths[end]) ||
            throw(ArgumentError("the equations refer to more than there is"))
    end
    length(equations.parameters) == length(names) ||
        throw(ArgumentError("got $(length(names)) names of $(length(equations.parameters)) known parameters"))
    return HybridSpec(network, equations, names, inputs, true, [n + inputs + 1, n])
end

state_size(spec::HybridSpec) = spec.widths[end]
FieldKernel(::Type{T}, spec::HybridSpec) where {T} = HybridKernel(T, spec)

# A vector field of known terms and a network. Its parameters: `network`, the network's, then `known`, a trained number
# for each known parameter. Its states are the network's.
struct HybridField{F<:Field,B,S} <: AbstractField
    spec::HybridSpec
    network::F
    blocks::B
    state::S
end

function Field(spec::HybridSpec)
    network = Field(spec.network)
    count, known = parameter_count(network), length(spec.names)
    blocks = (; network = network.blocks, known = ParameterBlock((count + 1):(count + known), (known,)))
    return HybridField(spec, network, blocks, network.state)
end

parameter_count(field::HybridField) = parameter_count(field.network) + length(field.spec.names)

# The known parameters start at their first guesses, which the trained numbers are counted from.
function initial_parameters(rng::AbstractRNG, field::HybridField)
    return vcat(initial_parameters(rng, field.network), zeros(length(field.spec.names)))
end

blocks(field::HybridField) = field.blocks
unpack(field::HybridField, params) = unpack(field.blocks, params)
LuxCore.initialparameters(rng::AbstractRNG, field::HybridField) = drawn_parameters(rng, field)
LuxCore.initialstates(::AbstractRNG, field::HybridField) = field.state
LuxCore.parameterlength(field::HybridField) = parameter_count(field)

# As arrays: every operation gives a row of a number for each of the states.
function (field::HybridField)(x::AbstractVecOrMat, ps, st::NamedTuple)
    (; operations, constants, calls, slopes) = field.spec.equations
    size(x, 1) == field.spec.widths[1] ||
        throw(DimensionMismatch("got states of size $(size(x)): expected $(field.spec.widths[1]) components"))
    blank = zeros(1, size(x, 2))
    values, outputs = Vector{Any}(undef, length(operations)), Vector{Any}(undef, length(calls))
    stacked(places) = reduce(vcat, [values[place] .+ blank for place in places])
    for (place, (; code, a, b)) in enumerate(operations)
        if code === CALL
            outputs[a] = first(field.network(stacked(calls[a]), ps.network, st))
        else
            values[place] = code === NUMBER ? constants[a] : code === TRAINED ? ps.known[a:a] :
                code === X ? x[a:a, :] : code === OUTPUT ? outputs[a][b:b, :] :
                broadcast((left, right) -> applied(code, left, right), values[a], b == 0 ? 0.0 : values[b])
        end
    end
    return x isa AbstractVector ? vec(stacked(slopes)) : stacked(slopes), st
end

# Values of the known parameters, by name.
function estimates(field::HybridField, params)
    kernel = bind!(HybridKernel(Float64, field.spec), params)
    return Dict(zip(field.spec.names, kernel.values[field.spec.equations.parameters]))
end

estimates(field::AbstractField, params) = Dict{String,Float64}()

function Base.show(io::IO, field::HybridField)
    return print(io, "known terms + ", field.network, " and ", length(field.spec.names))
end
