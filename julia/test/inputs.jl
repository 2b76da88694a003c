# Inputs and time against a closed form: with one layer and no activation, u' = a u + c w(t) + b.

linear_field(; options...) = mlp_field([2, 1]; options...)
const LINEAR_PARAMS = [-0.7, 1.3, 0.4]                       # a, c, b

function exact(inputs::Inputs, u0, (a, c, b), t0, t)
    for (left, right, i) in zip(inputs.t[1:(end - 1)], inputs.t[2:end], 1:length(inputs.t))
        begin_, end_ = max(left, t0), min(right, t)
        begin_ < end_ || continue
        s = inputs.held ? 0.0 : (inputs.values[i + 1] - inputs.values[i]) / (right - left)
        u0 = ramp_solution(u0, (a, c, b), inputs.values[i] + s * (begin_ - left), s, end_ - begin_)
    end
    return u0
end

const KNOTS = [-0.5, 0.3, 0.55, 1.1, 2.0, 2.5]
const SIGNAL = [1.0, -2.0, 3.0, 0.5, -1.0, 4.0]

@testset "inputs at knots, between and beyond them" begin
    linear, held = Inputs([0, 1, 3], [1.0, 2, 0]), Inputs([0, 1, 3], [1.0, 2, 0]; kind = :held)
    @test only.(linear.([-1, 0, 0.5, 1, 2, 3, 4])) == [1, 1, 1.5, 2, 1, 0, 0]
    @test only.(held.([-1, 0, 0.5, 1, 2, 3, 4])) == [1, 1, 1, 2, 2, 0, 0]
    @test Inputs([0, 1], [1.0 2; 3 5])(0.5) == [1.5, 4]
    @test_throws ArgumentError Inputs([0, 0], [1.0, 2])
    @test_throws ArgumentError Inputs([0, 1], [1.0, NaN])
    @test_throws ArgumentError Inputs([0, 1], [1.0, 2]; kind = :cubic)
    @test_throws DimensionMismatch Inputs([0, 1], [1.0, 2, 3])
end

@testset "$kind inputs: states and gradients have the closed form" for kind in (:linear, :held)
    inputs = Inputs(KNOTS, SIGNAL; kind)
    saveat = [0.0, 0.2, 0.55, 1.0, 1.1, 1.7, 2.3]              # two of them on knots
    data = reshape([0.5, NaN, 1, 2, -1, 0, 1.0], 1, :)
    series = Series([0.5], saveat, data; inputs, learned = true)
    problem = FitProblem(linear_field(inputs = 1), [series]; rtol = 1e-10, atol = 1e-10)
    params = [LINEAR_PARAMS; 0.5]
    solution(p) = [exact(inputs, p[4], p[1:3], 0.0, t) for t in saveat]
    @test vec(trajectory(problem, params)) ≈ solution(params) atol = 1e-8
    loss(p) = sum(abs2, (solution(p) .- vec(data))[[1, 3, 4, 5, 6, 7]]) / 6
    value, gradient = loss_and_gradient(problem, params)
    @test value ≈ loss(params) rtol = 1e-8
    @test gradient ≈ ForwardDiff.gradient(loss, params) rtol = 1e-7
    @test loss_and_gradient(problem, params; sensealg = :ForwardDiff)[2] ≈ gradient rtol = 1e-9
    # A solve that begins on a knot, and other inputs.
    from_knot = trajectory(problem, params; t0 = 0.55, u0 = [0.1], saveat = [2.2])[1]
    @test from_knot ≈ exact(inputs, 0.1, params[1:3], 0.55, 2.2) atol = 1e-8
    other = Inputs([0, 3], [0.0, 3]; kind)
    shifted = trajectory(problem, params; inputs = other, saveat = [2.2])[1]
    @test shifted ≈ exact(other, 0.5, params, 0.0, 2.2) atol = 1e-8
end

@testset "steps end on the knots: coarse tolerances see no jump" begin
    # Between knots the solution of u' = c w + b is linear or quadratic: exact for any step.
    for kind in (:linear, :held)
        inputs = Inputs(KNOTS, SIGNAL; kind)
        series = Series([0.5], [0.0, 2.3], zeros(1, 2); inputs)
        problem = FitProblem(linear_field(inputs = 1), [series]; rtol = 1e-1, atol = 1e-1)
        residual = trajectory(problem, [0.0, 1.3, 0.4])
        pieces = [0.0, 0.3, 0.55, 1.1, 2.0, 2.3]
        area = sum((right - left) * inputs((left + right) / 2)[1] for (left, right) in zip(pieces[1:5], pieces[2:6]))
        @test residual[2] ≈ 0.5 + 1.3area + 0.4 * 2.3 rtol = 1e-12
        @test loss_and_gradient(problem, [0.0, 1.3, 0.4])[1] ≈ sum(abs2, residual) / 2 rtol = 1e-12
    end
end

@testset "time is the last number that the network sees" begin
    problem = FitProblem(linear_field(time = true), [0.5], [0.5, 1.5], [1.0 2.0]; t0 = 0.25, rtol = 1e-10, atol = 1e-10)
    solution(p) = [ramp_solution(0.5, p, 0.25, 1.0, t - 0.25) for t in (0.5, 1.5)]
    @test vec(trajectory(problem, LINEAR_PARAMS)) ≈ solution(LINEAR_PARAMS) atol = 1e-8
    loss(p) = sum(abs2, solution(p) .- [1.0, 2.0]) / 2
    @test loss_and_gradient(problem, LINEAR_PARAMS)[2] ≈ ForwardDiff.gradient(loss, LINEAR_PARAMS) rtol = 1e-7
end

@testset "several inputs and time, $kind: $(label(field))" for kind in (:linear, :held),
    field in (
        mlp_field([5, 6, 2]; inputs = 2, time = true),
        kan_field([5, 3, 2]; inputs = 2, time = true, scale = fill(3.0, 5)),
    )

    rng = Xoshiro(2)
    series = map(1:3) do k
        inputs = Inputs(KNOTS, randn(rng, 2, 6); kind)
        Series(randn(rng, 2), [0.3, 1.0, 1.9], randn(rng, 2, 3); inputs, learned = k == 2)
    end
    problem = FitProblem(field, series; rtol = 1e-10, atol = 1e-10)
    params = vcat(example_parameters(field), series[2].u0)
    loss, gradient = loss_and_gradient(problem, params)
    forward_loss, forward = loss_and_gradient(problem, params; sensealg = :ForwardDiff)
    @test loss ≈ forward_loss rtol = 1e-9
    @test gradient ≈ forward rtol = 1e-6
end

@testset "bad inputs are told" begin
    field, inputs = linear_field(inputs = 1), Inputs([0, 1], [1.0, 2])
    @test_throws "expected all of 0.0 to 1.5" Series([0.5], [1.5], ones(1, 1); inputs)
    @test_throws "got 0 inputs for a field of 1" FitProblem(field, [0.5], [1.0], ones(1, 1))
    problem = FitProblem(field, [Series([0.5], [1.0], ones(1, 1); inputs)])
    @test_throws "expected all of 0.0 to 2.0" trajectory(problem, LINEAR_PARAMS; saveat = [2.0])
    @test_throws "but for 1 inputs" mlp_field([2, 5, 2]; inputs = 1)
end
