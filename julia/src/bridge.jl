"""
Requests of the Python worker, which owns the memory: each is one message of named values.

A message is a JSON object: `do` names the request, `arrays` gives the address and the sizes of each float64 array, of
what is read as well as of what is to be written; all else is values. Sizes are those of NumPy, the last one running
fastest, so that they are turned round here. Nothing is copied, and all of it is compiled ahead, as a message is a
string. Problems are known by a number, series by theirs counted from 0. Arrays of several series lie one after the
other; numbers of them (of save times, of knots, indices) are float64 as well.
"""
module Bridge

using ..KanSciML:
    AutoForwardDiff, EVALUATIONS, FitProblem, Inputs, Piece, Random, Series, StateUnits, checked, described_field,
    each_piece, field_of_file, gradient_method, initial_parameters, is_start, loss_and_gradient!, parameter_count,
    pull_piece!, read_json, recall!, record!, save!, state_size, with_quickest

# What the pieces of the last request for states left, for the gradient that may be asked for next.
struct Tape
    method::Any
    pieces::Vector{Piece{Vector{Float64}}}
    tapes::Vector{Any}
end

const PROBLEMS = Dict{Int,FitProblem}()
const TAPES = Dict{Int,Tape}()
const LAST = Ref(0)

const Message = Dict{String,Any}

function wrapped(message::Message, name::String, ::Val{N}) where {N}
    address, sizes... = message["arrays"][name]
    length(sizes) == N || throw(DimensionMismatch("got $name of $(length(sizes)) dimensions: expected $N"))
    dims = ntuple(i -> sizes[N + 1 - i]::Int, Val(N))
    # an empty array has no memory that could be wrapped
    return 0 in dims ? Array{Float64,N}(undef, dims) : unsafe_wrap(Array, Ptr{Float64}(address::Int), dims)
end

vector(message::Message, name) = wrapped(message, name, Val(1))
matrix(message::Message, name) = wrapped(message, name, Val(2))
integers(message::Message, name) = Int.(vector(message, name))
number(message::Message, name) = Float64(message[name])::Float64
problem_of(message::Message) = PROBLEMS[message["problem"]::Int]

# Ranges of arrays of the given lengths that lie one after the other.
function ranges(lengths)
    ends = cumsum(lengths)
    return [(last - length + 1):last for (last, length) in zip(ends, lengths)]
end

# Inputs of each of several pieces: numbers of knots (0: none), whether they are held, knots, values (m, knots).
function read_inputs(message, count, m)
    m == 0 && return fill(nothing, count)
    lengths, are_held = integers(message, "knot_counts"), vector(message, "held")
    t, w = vector(message, "knots"), matrix(message, "values")
    return map(ranges(lengths), are_held) do range, is_held
        Inputs(t[range], w[:, range]; kind = is_held == 1 ? :held : :linear)
    end
end

method_of(problem, message) =
    gradient_method(Symbol(message["sensealg"]), problem.spec, problem.solver, problem.tableau)

"""
    define(message)

The number of `parameters` of the layer of Lux in `field`.
"""
define(message) = "{\"parameters\": $(parameter_count(field_of_file(message["field"])))}"

"""
    draw(message)

The initial parameters by a `seed` of the layer of Lux in `field`, as `Lux.setup` draws them, into `params (P,)`.
"""
function draw(message)
    field = field_of_file(message["field"])
    vector(message, "params") .= initial_parameters(Random.Xoshiro(message["seed"]::Int), field)
    return "{}"
end

"""
    setup(message)

The number of a new problem, `problem`. Values: `field` as in a saved model (of a layer of Lux with its `source`, and
`units`), `solver`, `continuity`, `rtol`, `atol`, `max_steps`, and `lux`, whether a built-in field is to be evaluated
and differentiated by its Lux model instead of by kernels. Arrays: `starts (n, K)`, `t0s (K,)`, `counts (K,)` of save
times, `saveat (T,)`, `knot_counts (K,)`, `held (K,)`, `knots`, `values (m, knots)`, `data (n, T)`, `weights (n, T)`,
`follows (K,)` (-1: none), `loss_scale (n,)`.
"""
function setup(message)
    told = message["field"]
    units = get(told, "units", nothing)
    field = described_field(told, isnothing(units) ? nothing : StateUnits(units, told["state_size"]))
    u0, t0, t = matrix(message, "starts"), vector(message, "t0s"), vector(message, "saveat")
    u, w, before = matrix(message, "data"), matrix(message, "weights"), integers(message, "follows")
    signals = read_inputs(message, length(t0), field.spec.inputs)
    series = map(eachindex(t0), ranges(integers(message, "counts")), signals) do k, range, signal
        Series(
            u0[:, k], t[range], u[:, range]; t0 = t0[k], weights = w[:, range], inputs = signal, learned = true,
            follows = before[k] + 1,
        )
    end
    problem = FitProblem(
        field, series; solver = Symbol(message["solver"]), continuity = number(message, "continuity"),
        loss_scale = copy(vector(message, "loss_scale")), rtol = number(message, "rtol"),
        atol = number(message, "atol"), maxiters = message["max_steps"]::Int,
        sensealg = get(message, "lux", false) ? AutoForwardDiff() : nothing,
    )
    LAST[] += 1
    PROBLEMS[LAST[]] = problem
    return "{\"problem\": $(LAST[])}"
end

"""
    choose(message)

Have a `problem` differentiate its model, a layer of Lux, by the quickest package that can.
"""
function choose(message)
    PROBLEMS[message["problem"]::Int] = with_quickest(problem_of(message))
    return "{}"
end

"""
    release(message)

Forget a `problem`.
"""
function release(message)
    delete!(PROBLEMS, message["problem"]::Int)
    delete!(TAPES, message["problem"]::Int)
    return "{}"
end

"""
    rhs(message)

du/dt by the Lux model at `x (widths[1], batch)`, states followed by inputs and time where the field has them, and
`params`, into `slopes (n, batch)`.
"""
function rhs(message)
    field = problem_of(message).field
    matrix(message, "slopes") .= field(matrix(message, "x"), vector(message, "params"))
    return "{}"
end

"""
    states(message)

States of several pieces, given as to [`setup`](@ref), into `states (n, T)`, by `params`, at `rtol` and `atol`. With a
`sensealg` other than "", [`pull`](@ref) may be asked for after it, and the `evaluations` of the field are told; else
the states are those that the solver saves.
"""
function states(message)
    problem, p = problem_of(message), vector(message, "params")
    u0, t0, t = matrix(message, "starts"), vector(message, "t0s"), vector(message, "saveat")
    columns, target = ranges(integers(message, "counts")), matrix(message, "states")
    signals = read_inputs(message, length(t0), problem.spec.inputs)
    tolerances = number(message, "rtol"), number(message, "atol")
    asked = map(eachindex(t0), columns, signals) do k, range, signal
        checked(Piece(u0[:, k], t0[k], t[range], signal, tolerances...), problem)
    end
    count = length(asked)
    if isempty(message["sensealg"])
        each_piece((w, i) -> save!(view(target, :, columns[i]), w, problem, asked[i]), problem, p, count)
        return "{}"
    end
    tape, before = Tape(method_of(problem, message), asked, Vector{Any}(nothing, count)), EVALUATIONS[]
    each_piece(problem, p, count) do workspace, i
        if is_start(asked[i])
            target[:, columns[i]] .= asked[i].start
        else
            tape.tapes[i], values = record!(tape.method, workspace, problem, p, asked[i])
            copyto!(view(target, :, columns[i]), values)
        end
    end
    TAPES[message["problem"]] = tape
    return "{\"evaluations\": $(EVALUATIONS[] - before)}"
end

"""
    pull(message)

Of the states that [`states`](@ref) gave last for the same `params`: the gradients of `sum(cotangents .* states)` by
the parameters, into `by_params (P,)`, and by the starts, into `by_starts (n, pieces)`.
"""
function pull(message)
    problem, p = problem_of(message), vector(message, "params")
    (; pieces, tapes, method) = TAPES[message["problem"]]
    weights, starts = matrix(message, "cotangents"), matrix(message, "by_starts")
    columns = ranges([length(piece.saveat) for piece in pieces])
    gradients = Matrix{Float64}(undef, length(p), length(pieces))
    each_piece(problem, p, length(pieces)) do workspace, i
        piece = pieces[i]
        tape = isnothing(tapes[i]) ? nothing : recall!(method, workspace, problem, p, piece, tapes[i])
        by_field, by_start = view(gradients, :, i), view(starts, :, i)
        pull_piece!(by_field, by_start, method, workspace, problem, p, piece, tape, weights[:, columns[i]])
    end
    sum!(vector(message, "by_params"), gradients)
    return "{}"
end

"""
    value_and_grad(message)

The `loss` over the first save points, `rows (J,)`, of some `series (J,)`, by `params` and `starts (n, K)`; its
gradients go into `by_params (P,)` and `by_starts (n, K)`. `evaluations`: of the field, at one state each, while it was
solved; `seconds`: what all that took.
"""
function value_and_grad(message)
    problem, before, began = problem_of(message), EVALUATIONS[], time_ns()
    loss::Float64 = loss_and_gradient!(
        vector(message, "by_params"), matrix(message, "by_starts"), problem, vector(message, "params"),
        matrix(message, "starts"), integers(message, "series") .+ 1, integers(message, "rows"),
        method_of(problem, message),
    )
    told = isnan(loss) ? "NaN" : isinf(loss) ? "Infinity" : repr(loss)
    seconds = (time_ns() - began) / 1e9
    return "{\"loss\": $told, \"evaluations\": $(EVALUATIONS[] - before), \"seconds\": $seconds}"
end

const REQUESTS = Dict{String,Function}(
    string(nameof(request)) => request for
    request in (choose, define, draw, setup, release, rhs, states, pull, value_and_grad)
)

# Messages as they were read: in a training one comes again and again.
const READ = Dict{String,Message}()
const MOST_READ = 64

"""
    answer(text)

The answer to a message, in JSON; it has written into the arrays that are to be written.
"""
function answer(text::String)
    message = get(READ, text, nothing)
    if isnothing(message)
        message = read_json(text)::Message
        length(READ) < MOST_READ || empty!(READ)
        message["do"] == "value_and_grad" && (READ[text] = message)
    end
    haskey(REQUESTS, message["do"]) || throw(ArgumentError("unknown request $(message["do"])"))
    return Base.invokelatest(REQUESTS[message["do"]], message)::String     # a layer of a file is of a newer world
end

end
