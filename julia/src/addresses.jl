"""
Entry points for a caller that owns the memory: the Python worker hands over addresses of float64 arrays.

Only integers, floats and strings cross, so nothing is copied and no method depends on types of the bridge: all of it is
compiled ahead. Problems are known by a number, series by theirs counted from 0. Arrays of several series lie one after
the other; numbers of them (of save times, of knots, indices) are float64 as well.
"""
module Addresses

using ..KanSciML:
    Field, FitProblem, Inputs, Piece, Series, checked, described_spec, each_piece, gradient_method, is_start,
    loss_and_gradient!, parameter_count, pull_piece!, read_json, recall!, record!, save!, state_size

# What the pieces of the last request for states left, for the gradient that may be asked for next.
struct Tape
    method::Any
    pieces::Vector{Piece{Vector{Float64}}}
    tapes::Vector{Any}
end

const PROBLEMS = Dict{Int,FitProblem}()
const TAPES = Dict{Int,Tape}()
const LAST = Ref(0)

wrapped(address::Int, dims...) = unsafe_wrap(Array, Ptr{Float64}(address), dims)
copied(address::Int, dims...) = copy(wrapped(address, dims...))
integers(address::Int, count) = Int.(wrapped(address, count))

# Ranges of arrays of the given lengths that lie one after the other.
function ranges(lengths)
    ends = cumsum(lengths)
    return [(last - length + 1):last for (last, length) in zip(ends, lengths)]
end

# Inputs of each of several pieces: numbers of knots (0: none), whether they are held, knots, values (m, knots).
function read_inputs(count, m, knot_counts::Int, held::Int, knots::Int, values::Int)
    m == 0 && return fill(nothing, count)
    lengths, are_held = integers(knot_counts, count), wrapped(held, count)
    t, w = wrapped(knots, sum(lengths)), wrapped(values, m, sum(lengths))
    return map(ranges(lengths), are_held) do range, is_held
        Inputs(t[range], w[:, range]; kind = is_held == 1 ? :held : :linear)
    end
end

method_of(problem, sensealg) = gradient_method(Symbol(sensealg), problem.spec, problem.solver, problem.tableau)

"""
    setup(field, solver, K, starts, t0s, save_counts, saveat, knot_counts, held, knots, values, data, weights, follows,
          loss_scale, continuity, rtol, atol, maxiters)

Number of a new problem of `K` series. `field` is described in JSON as in a saved model; `starts (n, K)`, `t0s (K,)`,
`save_counts (K,)`, `saveat (T,)`, `data (n, T)`, `weights (n, T)` with the T of all series, `follows (K,)` (-1: none).
"""
function setup(
    field::String, solver::String, K::Int, starts::Int, t0s::Int, save_counts::Int, saveat::Int, knot_counts::Int,
    held::Int, knots::Int, values::Int, data::Int, weights::Int, follows::Int, loss_scale::Int, continuity::Float64,
    rtol::Float64, atol::Float64, maxiters::Int,
)
    spec = described_spec(read_json(field))
    n, lengths = state_size(spec), integers(save_counts, K)
    total = sum(lengths)
    u0, t0, t = wrapped(starts, n, K), wrapped(t0s, K), wrapped(saveat, total)
    u, w, before = wrapped(data, n, total), wrapped(weights, n, total), integers(follows, K)
    signals = read_inputs(K, spec.inputs, knot_counts, held, knots, values)
    series = map(1:K, ranges(lengths), signals) do k, range, signal
        Series(
            u0[:, k], t[range], u[:, range]; t0 = t0[k], weights = w[:, range], inputs = signal, learned = true,
            follows = before[k] + 1,
        )
    end
    problem = FitProblem(
        Field(spec), series; solver = Symbol(solver), continuity, loss_scale = copied(loss_scale, n), rtol, atol,
        maxiters,
    )
    LAST[] += 1
    PROBLEMS[LAST[]] = problem
    return LAST[]
end

"""
    release(id)

Forget a problem.
"""
function release(id::Int)
    delete!(PROBLEMS, id)
    delete!(TAPES, id)
    return nothing
end

"""
    rhs(id, batch, x, params, out)

du/dt by the Lux model at `x (widths[1], batch)`, states followed by inputs and time where the field has them, into
`out (n, batch)`.
"""
function rhs(id::Int, batch::Int, x::Int, params::Int, out::Int)
    field = PROBLEMS[id].field
    wrapped(out, state_size(field.spec), batch) .=
        field(wrapped(x, field.spec.widths[1], batch), wrapped(params, parameter_count(field)))
    return nothing
end

"""
    states(id, params, pieces, starts, t0s, save_counts, saveat, knot_counts, held, knots, values, rtol, atol, sensealg,
           out)

States of several pieces at their save times `saveat (T,)`, into `out (n, T)`. With a `sensealg` other than "",
[`pull`](@ref) may be called after it; else the states are those that the solver saves.
"""
function states(
    id::Int, params::Int, pieces::Int, starts::Int, t0s::Int, save_counts::Int, saveat::Int, knot_counts::Int,
    held::Int, knots::Int, values::Int, rtol::Float64, atol::Float64, sensealg::String, out::Int,
)
    problem = PROBLEMS[id]
    (; spec) = problem
    n, lengths = state_size(spec), integers(save_counts, pieces)
    u0, t0, t = wrapped(starts, n, pieces), wrapped(t0s, pieces), wrapped(saveat, sum(lengths))
    signals = read_inputs(pieces, spec.inputs, knot_counts, held, knots, values)
    asked = map(1:pieces, ranges(lengths), signals) do k, range, signal
        checked(Piece(u0[:, k], t0[k], t[range], signal, rtol, atol), problem)
    end
    target = wrapped(out, n, sum(lengths))
    p = wrapped(params, length(problem.params))
    columns = map(range -> view(target, :, range), ranges(lengths))
    isempty(sensealg) && return each_piece((w, i) -> save!(columns[i], w, problem, asked[i]), problem, p, pieces)
    tape = Tape(method_of(problem, sensealg), asked, Vector{Any}(nothing, pieces))
    each_piece(problem, p, pieces) do workspace, i
        if is_start(asked[i])
            copyto!(columns[i], asked[i].start)
        else
            tape.tapes[i], values = record!(tape.method, workspace, problem, p, asked[i])
            copyto!(columns[i], values)
        end
    end
    TAPES[id] = tape
    return nothing
end

"""
    pull(id, params, cotangents, out, by_starts)

Of the states that [`states`](@ref) gave last for the same parameters: the gradients of `sum(cotangents .* states)` by
the parameters and by the starts `(n, pieces)`.
"""
function pull(id::Int, params::Int, cotangents::Int, out::Int, by_starts::Int)
    problem = PROBLEMS[id]
    (; pieces, tapes, method) = TAPES[id]
    n, count, lengths = state_size(problem.spec), length(pieces), [length(piece.saveat) for piece in pieces]
    p = wrapped(params, length(problem.params))
    weights, starts = wrapped(cotangents, n, sum(lengths)), wrapped(by_starts, n, count)
    columns = ranges(lengths)
    gradients = Matrix{Float64}(undef, length(p), count)
    each_piece(problem, p, count) do workspace, i
        piece = pieces[i]
        tape = isnothing(tapes[i]) ? nothing : recall!(method, workspace, problem, p, piece, tapes[i])
        by_field, by_start = view(gradients, :, i), view(starts, :, i)
        pull_piece!(by_field, by_start, method, workspace, problem, p, piece, tape, weights[:, columns[i]])
    end
    sum!(wrapped(out, length(p)), gradients)
    return nothing
end

"""
    value_and_gradient(id, params, starts, n_picked, picked, counts, sensealg, out, by_starts)

The loss over the first save points of some series; its gradients by the field's parameters and by all starts `(n, K)`
go into `out (P,)` and `by_starts (n, K)`.
"""
function value_and_gradient(
    id::Int, params::Int, starts::Int, n_picked::Int, picked::Int, counts::Int, sensealg::String, out::Int,
    by_starts::Int,
)
    problem = PROBLEMS[id]
    count, n, K = length(problem.params), state_size(problem.spec), length(problem.series)
    return loss_and_gradient!(
        wrapped(out, count), wrapped(by_starts, n, K), problem, wrapped(params, count), wrapped(starts, n, K),
        integers(picked, n_picked) .+ 1, integers(counts, n_picked), method_of(problem, sensealg),
    )::Float64
end

end
