# A layer of Lux that a Julia file of the user's defines.

# Code is evaluated once for each scaling, so that equal ones give layers of one type, for which all is compiled.
const LAYERS_OF_FILES = Dict{Tuple{String,NamedTuple},AbstractLuxLayer}()

"""
    layer_of_file(source, name, scaling)

The layer of Lux that the text `source` of a Julia file ends with: the file's last value is the layer, or a function
that gives it of `scaling`, the NamedTuple `(; center, scale, rate)` of the data. It is evaluated in a module of its
own; `name` is the file's, for messages. Calls of the layer need the newest world: `Base.invokelatest`.

Throws an `ArgumentError` of one line if the code fails, or its last value is neither.
"""
function layer_of_file(source, name, scaling)
    return get!(LAYERS_OF_FILES, (source, scaling)) do
        value = try
            last_value = Base.include_string(Module(Symbol(name)), source, name)
            last_value isa Function ? Base.invokelatest(last_value, scaling) : last_value
        catch failure
            throw(ArgumentError(in_one_line(name, failure)))
        end
        value isa AbstractLuxLayer || throw(
            ArgumentError("$name ends with a value of type $(typeof(value)): expected a layer of Lux, or a function " *
                "of (; center, scale, rate) that gives one")
        )
        return value
    end
end

function in_one_line(name, failure)
    text = sprint(showerror, failure isa LoadError ? failure.error : failure)
    place, syntax = match(r"Error @ (\S+)", text), match(r"── (.*)", text)
    isnothing(place) || isnothing(syntax) || return "$(place[1]): syntax error: $(syntax[1])"
    line = failure isa LoadError ? ":$(failure.line)" : ""
    return "$name$line: $(first(eachsplit(text, '\n'; keepempty = false)))"
end

# A model of x = (u, w, t) as one of (v, w, tau): x = shift .+ factor .* (v, w, tau), dv/dtau = rate .* du/dt.
struct InUnits{M<:AbstractLuxLayer} <: LuxCore.AbstractLuxWrapperLayer{:model}
    model::M
    shift::Vector{Float64}
    factor::Vector{Float64}
    rate::Vector{Float64}
end

function (layer::InUnits)(x, ps, st::NamedTuple)
    (; model, shift, factor, rate) = layer
    du, state = LuxCore.apply(model, in_type_of(x, shift) .+ in_type_of(x, factor) .* x, ps, st)
    return in_type_of(x, rate) .* du, state
end

# The field of a file, as Python describes it.
function field_of_file(told, units = nothing)
    n, inputs, time = told["state_size"]::Int, told["inputs"]::Int, told["time"]::Bool
    scaling = (; center = told["center"], scale = told["scale"], rate = told["rate"])
    scaling = map(values -> Float64[values...], scaling)
    layer = layer_of_file(told["source"], told["name"], scaling)
    at = isempty(scaling.center) ? nothing : scaling.center
    return Base.invokelatest(field_of_layer, layer, at, n, inputs, time, units)
end

function field_of_layer(layer, at, n, inputs, time, units)
    ps, st = LuxCore.setup(Random.Xoshiro(0), layer)
    field = LuxField(layer, n, ps, st; inputs, time, at)  # checked in the user's own units
    isnothing(units) && return field
    shift = [units.origin; zeros(inputs); fill(units.t0, time)]
    factor = [units.state; ones(inputs); fill(units.time, time)]
    own = isnothing(at) ? nothing : (at .- shift) ./ factor
    return LuxField(InUnits(layer, shift, factor, units.time ./ units.state), n, ps, st; inputs, time, at = own)
end

# The problem of a layer of Lux with Zygote, or, where that fails on it, with ForwardDiff, which takes any.
function with_quickest(problem)
    (; spec, series, params) = problem
    spec isa LuxSpec && default_differentiator(spec.n_parameters) isa AutoZygote || return problem
    x = seen_first(first(series), spec.time)
    try
        quick = remake(problem; sensealg = AutoZygote())
        kernel = linearise!(bind!(FieldKernel(Float64, quick.spec), params), [x x], 2)
        fill!(kernel.cotangents, 1)
        pull_parameters!(similar(params), kernel, 2)
        return quick
    catch
        return remake(problem; sensealg = AutoForwardDiff())
    end
end
