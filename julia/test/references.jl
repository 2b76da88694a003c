# Slow, independent evaluations.

# B-splines at x by the recursion of Cox and de Boor on half-open intervals.
function de_boor(x, knots, order)
    order == 0 && return [Float64(knots[i] <= x < knots[i + 1]) for i in 1:(length(knots) - 1)]
    lower = de_boor(x, knots, order - 1)
    return map(1:(length(knots) - 1 - order)) do i
        left = (x - knots[i]) / (knots[i + order] - knots[i])
        right = (knots[i + order + 1] - x) / (knots[i + order + 1] - knots[i + 1])
        left * lower[i] + right * lower[i + 1]
    end
end

# A KAN layer, edge by edge.
function kan_layer(x, ps, knots, order)
    n_out, n_in = size(ps.base_weight)
    return map(1:n_out) do o
        sum(1:n_in) do i
            spline = sum(ps.spline_weight[o, :, i] .* de_boor(x[i], knots, order))
            ps.base_weight[o, i] * x[i] / (1 + exp(-x[i])) + ps.spline_scale[o, i] * spline
        end
    end
end

# Fixed steps of the classical Runge-Kutta method, for any number type.
function runge_kutta(f, u, t0, t1, steps)
    h = (t1 - t0) / steps
    for _ in 1:steps
        k1 = f(u)
        k2 = f(u .+ h / 2 .* k1)
        k3 = f(u .+ h / 2 .* k2)
        k4 = f(u .+ h .* k3)
        u = u .+ h / 6 .* (k1 .+ 2 .* k2 .+ 2 .* k3 .+ k4)
    end
    return u
end

# u(tau) of u' = a u + c (w0 + s tau) + b, u(0) = u0
function ramp_solution(u0, (a, c, b), w0, s, tau)
    beta = -c * s / a
    alpha = (beta - c * w0 - b) / a
    return (u0 - alpha) * exp(a * tau) + alpha + beta * tau
end

central(f, x, step) = map(eachindex(x)) do i
    e = [j == i ? step : 0.0 for j in eachindex(x)]
    (f(x .+ e) - f(x .- e)) / 2step
end

example_fields() = [
    (mlp_field([2, 7, 2]; activation) for activation in (:tanh, :silu, :gelu, :relu, :sigmoid))...,
    mlp_field([3, 5, 4, 3]; center = [0.1, 0.2, -0.1], scale = [1, 2, 0.7], rate = [1, 2, 0.5]),
    mlp_field([2, 2]; squash = true, input_power = 3),
    kan_field([2, 6, 2]; scale = [1.5, 2.0], rate = [2.0, 1.0]),
    kan_field([2, 3, 2]; grid = 3, spline_order = 2, grid_range = (-0.5, 1.0)),
    kan_field([2, 4, 3, 2]; grid = 8, spline_order = 5, squash = true),
    kan_field([2, 2]; grid = 4, spline_order = 1, input_power = 3),
    kan_field([2, 3, 2]; grid_range = (-0.3, 0.4), outside = :clamp),
    kan_field([2, 3, 2]; grid = 3, grid_range = (-0.3, 0.4), outside = :linear),
]

function example_parameters(field)
    rng = Xoshiro(3)
    return initial_parameters(rng, field) .+ 0.1 .* randn(rng, parameter_count(field))
end

function example_problem(field; tolerance = 1e-9)
    n, rng = field.spec.widths[1], Xoshiro(1)
    saveat = [0.0, 0.13, 0.2, 0.8, 1.4, 1.5]
    data = randn(rng, n, length(saveat))
    u0, loss_scale = 0.4 .* randn(rng, n), 0.5 .+ rand(rng, n)
    return FitProblem(field, u0, saveat, data; loss_scale, rtol = tolerance, atol = tolerance)
end

function label(field)
    (; model, widths, activation, grid, spline_order, outside) = field.spec
    return "$model $(join(widths, "-")) " * (model === :mlp ? "$activation" : "G=$grid S=$spline_order $outside")
end
