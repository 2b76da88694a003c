# A KAN and an MLP learn the Lotka-Volterra equations from 35 states, in a few seconds:
#
#     julia --project=julia/examples -e 'import Pkg; Pkg.develop(path = "julia"); Pkg.instantiate()'
#     julia --project=julia/examples julia/examples/lotka.jl

using KanSciML, Optimization, OptimizationOptimJL, Random
using Optimisers: Optimisers

# The truth, by fixed steps of the classical Runge-Kutta method.
function lotka_volterra(times; u = [1.0, 1.0], substeps = 200)
    f(u) = [1.5u[1] - u[1] * u[2], -3u[2] + u[1] * u[2]]
    states = [u]
    for h in diff(times) ./ substeps
        for _ in 1:substeps
            k1 = f(u)
            k2 = f(u + h / 2 * k1)
            k3 = f(u + h / 2 * k2)
            k4 = f(u + h * k3)
            u = u + h / 6 * (k1 + 2k2 + 2k3 + k4)
        end
        push!(states, u)
    end
    return reduce(hcat, states)
end

# A line search may try parameters with which the solution blows up.
function loss_or_infinity(params, problem)
    try
        return first(loss_and_gradient(problem, params))
    catch failure
        failure isa SolveFailure || rethrow()
        return Inf
    end
end

# Adam, its rate falling to zero along a cosine, then BFGS.
function fitted(problem, params; steps = 1500, rate = 0.01)
    state = Optimisers.setup(Optimisers.Adam(rate), params)
    for step in 1:steps
        Optimisers.adjust!(state, rate * cospi(step / 2steps))
        state, params = Optimisers.update!(state, params, last(loss_and_gradient(problem, params)))
    end
    loss = OptimizationFunction(
        loss_or_infinity;
        grad = (gradient, params, problem) -> copyto!(gradient, last(loss_and_gradient(problem, params))),
    )
    solution = solve(OptimizationProblem(loss, params, problem), BFGS(); maxiters = 200)
    return solution.objective, solution.u
end

times = collect(0:0.1:3.4)
data = lotka_volterra(times)
low, high = vec(minimum(data; dims = 2)), vec(maximum(data; dims = 2))
scaling = (center = (low .+ high) ./ 2, scale = (high .- low) ./ 2, rate = [6.0, 6.0])  # states into [-1, 1]

for field in (kan_field([2, 6, 2]; scaling...), mlp_field([2, 50, 2]; scaling...))
    problem = FitProblem(field, data[:, 1], times, data)
    seconds = @elapsed (loss, params) = fitted(problem, initial_parameters(Xoshiro(0), field))
    println(field, ": mean squared error ", round(loss; sigdigits = 3), " after ", round(seconds; digits = 1), " s")
    later, truth = trajectory(problem, params; saveat = [7.0]), lotka_volterra([0.0, 7.0])[:, 2]
    println("  at t = 7: ", round.(vec(later); digits = 3), ", truth ", round.(truth; digits = 3))
end
