"""
Entry points for a caller that owns the memory: the Python worker hands over addresses of float64 arrays.

Only integers, floats and strings cross, so nothing is copied and no method depends on types of the bridge: all of it is
compiled ahead. Problems are known by a number.
"""
module Addresses

using ..KanSciML:
    Field, FieldSpec, FitProblem, SENSEALGS, loss_and_gradient!, parameter_count, trajectory!

const PROBLEMS = Dict{Int,FitProblem}()
const LAST = Ref(0)

wrapped(address::Int, dims...) = unsafe_wrap(Array, Ptr{Float64}(address), dims)
copied(address::Int, dims...) = copy(wrapped(address, dims...))

"""
    setup(model, activation, widths, grid, spline_order, low, high, squash, input_power, normalisation,
          u0, n_save, saveat, data, loss_scale, t0, rtol, atol, maxiters)

Number of a new problem. `widths` are separated by spaces; `normalisation`, `u0`, `saveat`, `data`, `loss_scale` are
addresses of (center, scale, rate) `(n, 3)`, `(n,)`, `(T,)`, `(n, T)`, `(n,)`.
"""
function setup(
    model::String, activation::String, widths::String, grid::Int, spline_order::Int, low::Float64, high::Float64,
    squash::Bool, input_power::Int, normalisation::Int, u0::Int, n_save::Int, saveat::Int, data::Int, loss_scale::Int,
    t0::Float64, rtol::Float64, atol::Float64, maxiters::Int,
)
    sizes = parse.(Int, split(widths))
    n = sizes[1]
    center, scale, rate = (copied(normalisation + 8n * k, n) for k in 0:2)
    spec = FieldSpec(
        Symbol(model), sizes; activation = Symbol(activation), grid, spline_order, grid_range = (low, high), center,
        scale, rate, squash, input_power,
    )
    problem = FitProblem(
        Field(spec), copied(u0, n), copied(saveat, n_save), copied(data, n, n_save); t0,
        loss_scale = copied(loss_scale, n), rtol, atol, maxiters,
    )
    LAST[] += 1
    PROBLEMS[LAST[]] = problem
    return LAST[]
end

"""
    release(id)

Forget a problem.
"""
release(id::Int) = (delete!(PROBLEMS, id); nothing)

"""
    rhs(id, batch, u, params, out)

du/dt by the Lux model at states `u (n, batch)`, into `out (n, batch)`.
"""
function rhs(id::Int, batch::Int, u::Int, params::Int, out::Int)
    field = PROBLEMS[id].field
    dims = (field.spec.widths[1], batch)
    wrapped(out, dims...) .= field(wrapped(u, dims...), wrapped(params, parameter_count(field)))
    return nothing
end

"""
    trajectory(id, params, n_save, saveat, rtol, atol, out)

States at `saveat (n_save,)`, into `out (n, n_save)`.
"""
function trajectory(id::Int, params::Int, n_save::Int, saveat::Int, rtol::Float64, atol::Float64, out::Int)
    problem = PROBLEMS[id]
    states = wrapped(out, length(problem.u0), n_save)
    p = wrapped(params, parameter_count(problem.field))
    trajectory!(states, problem, p, copied(saveat, n_save), rtol, atol)
    return nothing
end

"""
    value_and_gradient(id, params, sensealg, n_save, out)

The loss over the first `n_save` save points; its gradient goes into `out (P,)`.
"""
function value_and_gradient(id::Int, params::Int, sensealg::String, n_save::Int, out::Int)
    problem = PROBLEMS[id]
    count = parameter_count(problem.field)
    return loss_and_gradient!(wrapped(out, count), problem, wrapped(params, count), Symbol(sensealg), n_save)::Float64
end

end
