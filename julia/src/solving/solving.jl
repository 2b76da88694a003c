# One initial value problem: its initial state, times to save at, inputs, and tolerances.
struct Piece{S<:AbstractVector{Float64}}
    start::Vector{Float64}
    t0::Float64
    saveat::S
    inputs::Union{Nothing,Inputs}
    rtol::Float64
    atol::Float64
end

# Only the initial state is asked for: there is nothing to solve.
is_start(piece::Piece) = piece.saveat[end] == piece.t0

struct BoundField{K<:FieldKernel,T}
    kernel::K
    forcing::Forcing{T}
end

function (field::BoundField)(du, u, p, t)
    (; kernel, forcing) = field
    kernel.spec.widths[1] == length(u) && return rhs!(du, u, kernel)
    copyto!(forcing.x, u)
    return rhs!(du, extend!(forcing.x, forcing, length(u), t), kernel)
end

# Derivatives of the field by the state and by time, for implicit solvers.
struct StateJacobian{F<:BoundField,T}
    field::F
    all::Matrix{T}                    # (n, widths[1])
    rates::Vector{T}
end

function StateJacobian(field::BoundField{K,T}) where {K,T}
    (; spec) = field.kernel
    return StateJacobian(field, zeros(T, state_size(spec), spec.widths[1]), zeros(T, spec.widths[1]))
end

function (derivative::StateJacobian)(J, u, p, t)
    (; field, all) = derivative
    n = length(u)
    field_jacobian!(all, field.kernel, extend!(copyto!(field.forcing.x, u), field.forcing, n, t))
    J isa AbstractVector || return copyto!(J, view(all, :, 1:n))
    rates = view(input_rates!(derivative.rates, field.forcing, n, t), (n + 1):length(derivative.rates))
    return mul!(J, view(all, :, (n + 1):size(all, 2)), rates)
end

ode_function(field::BoundField) = ODEFunction{true,FullSpecialize}(field)

function implicit_function(field::BoundField)
    derivative = StateJacobian(field)
    return ODEFunction{true,FullSpecialize}(field; jac = derivative, tgrad = derivative)
end

# The solution of the kernel's field; warnings of the solver become the message of a SolveFailure.
function integrate(kernel::FieldKernel, forcing::Forcing, problem::FitProblem, piece::Piece, start; options...)
    field = BoundField(kernel, use_inputs!(forcing, piece.inputs, piece.t0))
    f = needs_jacobian(problem.solver) ? implicit_function(field) : ode_function(field)
    return integrate(f, problem, piece, start; options...)
end

# Of fields, at one state each, in all solves so far, as the solvers count them.
const EVALUATIONS = Threads.Atomic{Int}(0)

function integrate(f, problem::FitProblem, piece::Piece, start; options...)
    (; t0, inputs, rtol, atol) = piece
    t_end = piece.saveat[end]
    (; maxiters) = problem
    ode = ODEProblem(f, start, (t0, t_end))
    knots, held = inner_knots(inputs, t0, t_end), is_held(inputs)
    tstops = steps_onto_saves(problem.solver) ? sort!(union(knots, piece.saveat[t0 .< piece.saveat .< t_end])) : knots
    integrator = init(
        ode, problem.solver; reltol = rtol, abstol = atol, maxiters, tstops, advance_to_tstop = held, options...
    )
    if held
        for stop in tstops
            step!(integrator)                      # up to the stop; at a knot the next interval of the inputs begins
            integrator.t == stop || break
            insorted(stop, knots) || continue
            forcing_of(f).interval = interval_at(inputs, stop)
            derivative_discontinuity!(integrator, true)
        end
    end
    solution = solve!(integrator)
    Threads.atomic_add!(EVALUATIONS, Int(solution.stats.nf))
    check(solution, maxiters)
    return solution
end

forcing_of(f) = f.f.forcing

function check(solution, maxiters)
    successful_retcode(solution) && return nothing
    t = round(solution.t[end]; sigdigits = 6)
    if solution.retcode == ReturnCode.MaxIters
        advice = "raise max_steps, or loosen rtol and atol"
        throw(SolveFailure("the solution needs more than $maxiters steps (reached t = $t): $advice"))
    end
    largest = round(maximum(abs, solution.u[end]); sigdigits = 3)
    throw(SolveFailure("the solution blows up near t = $t (largest state $largest, $(solution.retcode))"))
end

"""
    trajectory(problem, params; series = 1, saveat, u0, t0, inputs, rtol = problem.rtol, atol = problem.atol)

States `(n, T)` at the times `saveat`, saved by the solver. What is not given (initial state and its time, save times,
inputs) is that of the problem's series of that number; a learned initial state is that in `params`.

Throws a [`SolveFailure`](@ref), an `ArgumentError` if the times are not finite and strictly increasing from `t0`, not
covered by the inputs, or a tolerance is not positive, a `DimensionMismatch` for another number of parameters.
"""
function trajectory(
    problem::FitProblem, params; series::Integer = 1, saveat = problem.series[series].saveat, u0 = nothing,
    t0 = problem.series[series].t0, inputs = problem.series[series].inputs, rtol = problem.rtol, atol = problem.atol,
    reltol = rtol, abstol = atol,
)
    by_field, starts = split_parameters(problem, flat_or_tree(problem, params))
    start = isnothing(u0) ? starts[:, series] : collect(Float64, u0)
    times, tolerances = collect(Float64, saveat), Float64.((reltol, abstol))
    piece = checked(Piece(start, Float64(t0), times, inputs, tolerances...), problem)
    states = Matrix{Float64}(undef, length(start), length(saveat))
    each_piece((workspace, _) -> save!(states, workspace, problem, piece), problem, by_field, 1)
    return states
end

function checked(piece::Piece, problem::FitProblem)
    (; spec) = problem
    check_times(piece.saveat, piece.t0)
    check_tolerances(piece.rtol, piece.atol)
    check_cover(piece.inputs, piece.t0, piece.saveat[end])
    length(piece.start) == state_size(spec) && all(isfinite, piece.start) ||
        throw(DimensionMismatch("got initial state $(piece.start): expected $(state_size(spec)) finite numbers"))
    check_input_count(piece.inputs, spec)
    return piece
end

# States at the save times, as the solver saves them.
function save!(states, workspace::Workspace, problem::FitProblem, piece::Piece)
    is_start(piece) && return copyto!(states, piece.start)
    (; kernel, forcing) = workspace
    solution = integrate(kernel, forcing, problem, piece, piece.start; saveat = piece.saveat)
    length(solution.u) == size(states, 2) || throw(SolveFailure("the solver saved $(length(solution.u)) states"))
    for (column, state) in zip(eachcol(states), solution.u)
        copyto!(column, state)
    end
    all(isfinite, states) || throw(SolveFailure("the solution is not finite"))
    return states
end
