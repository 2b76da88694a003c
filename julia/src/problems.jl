# Arrays that the replay reuses from one gradient to the next.
mutable struct ReplayMemory
    states::Matrix{Float64}            # (n, 6N + 1): the Y_j; the last stage of a step is the first of the next
    const slope_cotangents::Matrix{Float64}   # (n, 7): of the k_j of one step
    const running::Vector{Float64}     # cotangent of the state between two steps
    const pulled::Vector{Float64}
    saved::Matrix{Float64}             # (n, T): states at the save points, then their cotangents
    step::Vector{Int}                  # step that a save point lies in
    theta::Vector{Float64}             # and where in it
end

function ReplayMemory(n)
    return ReplayMemory(zeros(n, 0), zeros(n, STAGES), zeros(n), zeros(n), zeros(n, 0), Int[], Float64[])
end

"""
    FitProblem(field, u0, saveat, data; t0 = 0, loss_scale = ones(n), rtol = 1e-7, atol = 1e-7,
               maxiters = 20_000)

The problem of fitting a neural ODE to data: `du/dt = field(u, params)`, `u(t0) = u0`, solved by `Tsit5()`, compared
with `data (n, T)` at the times `saveat`. The loss is the mean over times and components of
`((u - data) / loss_scale)^2`.

Throws an `ArgumentError` or a `DimensionMismatch` if sizes do not fit or times are not increasing from `t0`.
"""
struct FitProblem{K<:FieldKernel}
    field::Field
    kernel::K
    u0::Vector{Float64}
    t0::Float64
    saveat::Vector{Float64}
    data::Matrix{Float64}
    loss_scale::Vector{Float64}
    rtol::Float64
    atol::Float64
    maxiters::Int
    memory::ReplayMemory
end

function FitProblem(
    field::Field, u0, saveat, data; t0 = 0.0, loss_scale = ones(length(u0)), rtol = 1e-7, atol = 1e-7, maxiters = 20_000
)
    n = field.spec.widths[1]
    length(u0) == n == length(loss_scale) ||
        throw(DimensionMismatch("got $(length(u0)) initial values, $(length(loss_scale)) loss scales: expected $n"))
    size(data) == (n, length(saveat)) ||
        throw(DimensionMismatch("got data of size $(size(data)): expected $((n, length(saveat)))"))
    isempty(saveat) && throw(ArgumentError("got no save times: expected at least one"))
    issorted(saveat; lt = <=) && saveat[1] >= t0 ||
        throw(ArgumentError("saveat must be strictly increasing and start at t0 or later"))
    min(rtol, atol) > 0 || throw(ArgumentError("got rtol $rtol, atol $atol: expected positive tolerances"))
    kernel = FieldKernel(Float64, field.spec)
    return FitProblem(field, kernel, u0, t0, saveat, data, loss_scale, rtol, atol, maxiters)
end

function FitProblem(field::Field, kernel::FieldKernel, u0, t0, saveat, data, loss_scale, rtol, atol, maxiters)
    memory = ReplayMemory(length(u0))
    return FitProblem{typeof(kernel)}(
        field, kernel, u0, t0, saveat, data, loss_scale, rtol, atol, maxiters, memory
    )
end

struct BoundField{K<:FieldKernel}
    kernel::K
end

(field::BoundField)(du, u, p, t) = rhs!(du, u, field.kernel)

# The solution of the kernel's field over `tspan`; warnings of the solver become the message of a SolveFailure.
function integrate(kernel::FieldKernel, problem::FitProblem, u0, tspan; rtol, atol, options...)
    ode = ODEProblem{true,FullSpecialize}(BoundField(kernel), u0, tspan)
    (; maxiters) = problem
    solution = solve(ode, Tsit5(); reltol = rtol, abstol = atol, maxiters, options...)
    check(solution, maxiters)
    return solution
end

function check(solution, maxiters)
    successful_retcode(solution) && return nothing
    t = round(solution.t[end]; sigdigits = 6)
    if solution.retcode == ReturnCode.MaxIters
        throw(SolveFailure("the solution needs more than $maxiters steps (reached t = $t): raise max_steps, or loosen rtol and atol"))
    end
    largest = round(maximum(abs, solution.u[end]); sigdigits = 3)
    throw(SolveFailure("the solution blows up near t = $t (largest state $largest, $(solution.retcode))"))
end

# Solvers warn before they give up; the exception says it all. The logger hides the type of what `f` returns.
quietly(f::F) where {F} = with_logger(f, NullLogger())

"""
    trajectory(problem, params; saveat = problem.saveat, rtol = problem.rtol, atol = problem.atol)

States `(n, T)` at the times `saveat`, saved by the solver. Throws a [`SolveFailure`](@ref).
"""
function trajectory(
    problem::FitProblem, params; saveat = problem.saveat, rtol = problem.rtol, atol = problem.atol
)
    states = Matrix{Float64}(undef, length(problem.u0), length(saveat))
    return trajectory!(states, problem, params, saveat, rtol, atol)
end

function trajectory!(states::Matrix{Float64}, problem::FitProblem, params, saveat, rtol, atol)
    kernel = bind!(problem.kernel, params)
    if saveat[end] == problem.t0
        states .= problem.u0
        return states
    end
    quietly() do
        solution = integrate(kernel, problem, problem.u0, (problem.t0, saveat[end]); rtol, atol, saveat)
        length(solution.u) == length(saveat) || throw(SolveFailure("the solver saved $(length(solution.u)) states"))
        for (column, state) in zip(eachcol(states), solution.u)
            copyto!(column, state)
        end
    end
    all(isfinite, states) || throw(SolveFailure("the solution is not finite"))
    return states
end
