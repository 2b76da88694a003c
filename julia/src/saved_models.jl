"""
    load(folder; solver = nothing)

The trained model that `kansciml` keeps in `folder`: `model.json` and `model.safetensors`. It is called as a vector
field, in the user's units:

    model = KanSciML.load("folder")
    model(u, t)                                  # du/dt, as ODEProblem takes it: ODEProblem(model, u0, (0.0, 10.0))
    model(u, t; inputs = w)                      # where the field has inputs: w (m,)
    trajectory(model; u0 = [1.0, 2.0], saveat = 0:0.1:10)

`solver` is one of [`SOLVERS`](@ref) (default: the one it was trained with, or that of the same order).

A model of known terms and a network has `KanSciML.estimates(model)`, the values of its known parameters by name.

A model that is a layer of Lux runs `field.jl` in the folder, the file that defined it: load those that you trust. The
function that loads such a model calls it by `Base.invokelatest(model, u, t)`, as its code is newer than the function's.

Throws an `ArgumentError` if there is no model, it is damaged, or its field is a module of torch.
"""
function load(folder::AbstractString; solver::Union{Nothing,Symbol} = nothing)
    path = joinpath(folder, "model.json")
    isfile(path) ||
        throw(ArgumentError("$folder holds no model: expected a folder with model.json and model.safetensors"))
    told = read_json(read(path, String))
    told["schema"] == 1 || throw(ArgumentError("$path has schema $(told["schema"]), this version reads 1"))
    field = told["field"]
    field["kind"] in ("spec", "hybrid", "lux") || throw(
        ArgumentError("the model in $folder is of kind $(field["kind"]): KanSciML reads the kinds spec, hybrid and lux")
    )
    field["kind"] == "lux" && (field["source"] = read(joinpath(folder, "field.jl"), String))
    arrays = read_safetensors(joinpath(folder, "model.safetensors"))
    plain = described_field(field)
    params = arrays["params"]
    units = StateUnits(told["units"], state_size(plain.spec))
    own = described_field(field, units)
    check_parameters(own, params)
    all(isfinite, params) || throw(ArgumentError("$path is damaged: its parameters are not finite"))
    starts = arrays["starts"]                                  # (n, K)
    series = map(enumerate(told["series"])) do (k, one)
        signal = isnothing(one["inputs"]) ? nothing :
            Inputs(arrays["inputs.$(k - 1).t"], arrays["inputs.$(k - 1).values"]; kind = Symbol(one["inputs"]))
        start, t0, t_end = starts[:, k], into(units, one["t0"]), into(units, one["t_end"])
        Series(start, [t_end], reshape(start, :, 1); t0, inputs = into(units, signal))
    end
    (; name, rtol, atol, max_steps) = (; (Symbol(key) => value for (key, value) in told["solver"])...)
    solver = something(solver, get(SOLVER_OF_SAME_KIND, name, Symbol(name)))
    problem = Base.invokelatest(FitProblem, own, series; solver, rtol, atol, maxiters = max_steps)
    return TrainedModel(plain, params, problem, units, String[told["labels"]...], String[told["input_labels"]...])
end

# Of general names, and of those that only torch knows.
const SOLVER_OF_SAME_KIND = Dict(
    "3" => :BS3, "bosh3" => :BS3, "5" => :Tsit5, "dopri5" => :Tsit5, "8" => :Vern8, "dop853" => :Vern8,
    "stiff" => :Rodas5P, "Radau" => :Rodas5P, "BDF" => :FBDF,
)

# States u = origin + state * v, times t = t0 + time * tau; the problem is solved in v, tau.
struct StateUnits
    origin::Vector{Float64}
    state::Vector{Float64}
    t0::Float64
    time::Float64
end

StateUnits(::Nothing, n) = StateUnits(zeros(n), ones(n), 0, 1)
StateUnits(told, n) = StateUnits(told["origin"], told["state"], told["t0"], told["time"])

into(units::StateUnits, t::Real) = (t - units.t0) / units.time
into(::StateUnits, ::Nothing) = nothing
function into(units::StateUnits, inputs::Inputs)
    return Inputs(into.(Ref(units), inputs.t), inputs.values; kind = inputs.held ? :held : :linear)
end

function in_units(spec::FieldSpec, units::StateUnits)
    (; model, widths, activation, grid, spline_order, grid_range, outside, squash, input_power, inputs, time) = spec
    n = state_size(spec)
    center, scale = copy(spec.center), copy(spec.scale)
    center[1:n] .= (center[1:n] .- units.origin) ./ units.state
    scale[1:n] ./= units.state
    if time
        center[end] = into(units, center[end])
        scale[end] /= units.time
    end
    rate = spec.rate .* units.time ./ units.state
    return FieldSpec(
        model, widths; activation, grid, spline_order, grid_range, outside, center, scale, rate, squash, input_power,
        inputs, time,
    )
end

# The field that a saved model describes, of v and tau where there are units.
function described_field(told, units = nothing)
    return told["kind"] == "lux" ? field_of_file(told, units) : Field(described_spec(told, units))
end

function described_spec(told, units = nothing)
    if told["kind"] == "spec"
        spec = described_network(told; inputs = told["inputs"], time = told["time"])
        return isnothing(units) ? spec : in_units(spec, units)
    end
    network, inputs = described_network(told["network"]; free_ends = true), told["inputs"]
    names = String[one["name"] for one in told["parameters"]]
    n = length(told["equations"]["slopes"])
    equations = described_equations(told["equations"], inputs, something(units, StateUnits(nothing, n)))
    return HybridSpec(network, equations, names, inputs)
end

function described_network(told; options...)
    filled(name, default) = isempty(told[name]) ? default : Float64.(told[name])
    widths = Int.(told["widths"])
    return FieldSpec(
        Symbol(told["model"]), widths; activation = Symbol(told["activation"]), grid = told["grid"],
        spline_order = told["spline_order"], grid_range = Tuple(told["grid_range"]),
        outside = Symbol(get(told, "outside", "zero")),
        center = filled("center", zeros(widths[1])), scale = filled("scale", ones(widths[1])),
        rate = filled("rate", ones(widths[end])), squash = told["squash"], input_power = told["input_power"],
        options...,
    )
end

"""
    TrainedModel

A trained neural ODE; see [`load`](@ref). Its properties: `field`, `params`, `labels`, `input_labels`, and `problem`,
which is solved in units of its own.
"""
struct TrainedModel{F<:AbstractField,P<:FitProblem}
    field::F
    params::Vector{Float64}
    problem::P
    units::StateUnits
    labels::Vector{String}
    input_labels::Vector{String}
end

function (model::TrainedModel)(u::AbstractVector, t::Real = 0.0; inputs = Float64[])
    (; spec) = model.field
    length(inputs) == spec.inputs ||
        throw(DimensionMismatch("got $(length(inputs)) inputs for a field of $(spec.inputs): expected as many"))
    return model.field(spec.time ? vcat(u, inputs, t) : vcat(u, inputs), model.params)
end

# Values of the known parameters, by name.
estimates(model::TrainedModel) = estimates(model.field, model.params)

# As ODEProblem calls it.
(model::TrainedModel)(u::AbstractVector, p, t::Real) = model(u, t)

"""
    trajectory(model; saveat, series = 1, u0, t0, inputs, rtol, atol)

States `(n, T)` at the times `saveat`, in the user's units. What is not given (initial state and its time, inputs) is
that of the series of this number that the model was trained on.
"""
function trajectory(
    model::TrainedModel; saveat, series::Integer = 1, u0 = nothing, t0 = nothing, inputs = nothing, tolerances...
)
    (; units, problem) = model
    own = problem.series[series]
    start = isnothing(u0) ? own.u0 : (u0 .- units.origin) ./ units.state
    states = trajectory(
        problem, model.params; saveat = into.(Ref(units), saveat), u0 = start,
        t0 = isnothing(t0) ? own.t0 : into(units, t0),
        inputs = isnothing(inputs) ? own.inputs : into(units, inputs), tolerances...,
    )
    return units.origin .+ units.state .* states
end

# Arrays of a file of safetensors by name: 8 bytes, the length of a header in JSON, the header, the numbers. Arrays in C
# order (K, n) become Julia's (n, K).
function read_safetensors(path)
    isfile(path) || throw(ArgumentError("there is no $path"))
    bytes = read(path)
    damaged(why) = throw(ArgumentError("$path is damaged: $why"))
    length(bytes) >= 8 || damaged("it has $(length(bytes)) bytes")
    size = ltoh(only(reinterpret(UInt64, bytes[1:8])))
    size <= length(bytes) - 8 || damaged("its header ends behind the file")
    header = read_json(String(bytes[9:(8 + size)]))
    arrays = Dict{String,Array{Float64}}()
    for (name, told) in header
        name == "__metadata__" && continue
        type = get(Dict("F64" => Float64, "I64" => Int64), told["dtype"], nothing)
        isnothing(type) && damaged("$name is of type $(told["dtype"])")
        first, last = told["data_offsets"]
        shape = Tuple(reverse(Int.(told["shape"])))
        0 <= first <= last <= length(bytes) - 8 - size && last - first == 8 * prod(shape) ||
            damaged("$name does not fit into it")
        numbers = ltoh.(reinterpret(type, bytes[(9 + size + first):(8 + size + last)]))
        arrays[name] = reshape(collect(Float64, numbers), shape)
    end
    return arrays
end

function Base.show(io::IO, model::TrainedModel)
    return print(io, "TrainedModel(", model.field, ", solver ", name_of(model.problem.solver), ")")
end
