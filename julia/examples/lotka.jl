# A KAN and an MLP learn the Lotka-Volterra equations from 35 states, in a few seconds:
#
#     julia --project=julia -e 'import Pkg; Pkg.instantiate(); include("julia/examples/lotka.jl")'

using KanSciML, Random

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

function adam!(params, problem; steps = 2000, rate = 0.01)
    mean, square = zero(params), zero(params)
    best, best_params = Inf, copy(params)
    for step in 1:steps
        loss, gradient = loss_and_gradient(problem, params)
        loss < best && (best = loss; best_params .= params)
        mean .= 0.9 .* mean .+ 0.1 .* gradient
        square .= 0.999 .* square .+ 0.001 .* gradient .^ 2
        deviation = sqrt.(square ./ (1 - 0.999^step)) .+ 1e-8
        params .-= rate * cospi(step / 2steps) / (1 - 0.9^step) .* mean ./ deviation
    end
    return best, best_params
end

times = collect(0:0.1:3.4)
data = lotka_volterra(times)
low, high = vec(minimum(data; dims = 2)), vec(maximum(data; dims = 2))
scaling = (center = (low .+ high) ./ 2, scale = (high .- low) ./ 2, rate = [6.0, 6.0])  # states into [-1, 1]

for field in (kan_field([2, 6, 2]; scaling...), mlp_field([2, 50, 2]; scaling...))
    problem = FitProblem(field, data[:, 1], times, data)
    seconds = @elapsed (loss, params) = adam!(initial_parameters(Xoshiro(0), field), problem)
    println(field, ": mean squared error ", round(loss; sigdigits = 3), " after ", round(seconds; digits = 1), " s")
    later, truth = trajectory(problem, params; saveat = [7.0]), lotka_volterra([0.0, 7.0])[:, 2]
    println("  at t = 7: ", round.(vec(later); digits = 3), ", truth ", round.(truth; digits = 3))
end
