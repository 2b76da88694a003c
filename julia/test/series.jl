# Problems of several series: gaps, weights, learned starts, links, parts of the data.

series_field(model) = model === :mlp ? mlp_field([2, 5, 2]) : kan_field([2, 3, 2]; scale = [2.0, 2.0])

# Three of different times and lengths; the second starts before its first save time.
function example_series(k; options...)
    t = ([0.0, 0.4, 1.0, 1.5], [0.7, 1.9, 2.5], [1.5, 2.0])[k]
    rng = Xoshiro(k)
    return Series(randn(rng, 2), t, randn(rng, 2, length(t)); t0 = k == 2 ? 0.5 : t[1], options...)
end

function series_problem(field, series; options...)
    return FitProblem(field, series; loss_scale = [0.5, 2.0], rtol = 1e-10, atol = 1e-10, options...)
end

# The loss, whose gradient was held against central differences and dual numbers.
function checked_loss(problem, params; rtol = 1e-6, options...)
    loss, gradient = loss_and_gradient(problem, params; options...)
    @test central(p -> loss_and_gradient(problem, p; options...)[1], params, 1e-4) ≈ gradient rtol = rtol
    forward_loss, forward = loss_and_gradient(problem, params; sensealg = :ForwardDiff, options...)
    @test loss ≈ forward_loss rtol = 1e-9
    @test gradient ≈ forward rtol = rtol
    return loss
end

@testset "the loss is the mean over all measurements: $model" for model in (:mlp, :kan)
    field = series_field(model)
    one = example_series(1)
    data = copy(one.data)
    data[1, 2] = NaN
    data[:, 4] .= NaN
    weights = [1.0 3.0 0.0; 2.0 0.5 1.0]
    problem = series_problem(field, [Series(one.u0, one.saveat, data), example_series(2; weights), example_series(3)])
    params = example_parameters(field)
    total, size = 0.0, 0.0
    for (k, w) in enumerate((.!isnan.(data), weights, ones(2, 2)))
        squares = abs2.((trajectory(problem, params; series = k) .- problem.series[k].data) ./ [0.5, 2.0])
        total, size = total + sum(w .* squares), size + sum(w)
    end
    @test checked_loss(problem, params) ≈ total / size rtol = 1e-9
end

@testset "several series cost the mean of each alone" begin
    field = series_field(:mlp)
    params = example_parameters(field)
    problem = series_problem(field, example_series.(1:3))
    losses = [loss_and_gradient(problem, params; series = [k]) for k in 1:3]
    loss, gradient = loss_and_gradient(problem, params)
    @test loss ≈ (4losses[1][1] + 3losses[2][1] + 2losses[3][1]) / 9
    @test gradient ≈ (4losses[1][2] + 3losses[2][2] + 2losses[3][2]) / 9
    first_rows = Series(example_series(1).u0, [0, 0.4], example_series(1).data[:, 1:2])
    same = series_problem(field, [example_series(3), first_rows])
    expected = loss_and_gradient(same, params)
    @test loss_and_gradient(problem, params; series = [3, 1], n_save = [2, 2])[1] == expected[1]
    @test_throws ArgumentError loss_and_gradient(problem, params; series = [4])
    @test_throws ArgumentError loss_and_gradient(problem, params; series = [1, 1])
    @test_throws ArgumentError loss_and_gradient(problem, params; n_save = 3)
end

@testset "learned starts are parameters" begin
    field = series_field(:kan)
    parts = [example_series(1; learned = true), example_series(2), example_series(3; learned = true)]
    problem = series_problem(field, parts)
    params = initial_parameters(Xoshiro(1), problem)
    @test length(params) == parameter_count(problem) == parameter_count(field) + 4
    @test params[(end - 1):end] == problem.series[3].u0
    fixed = series_problem(field, example_series.(1:3))
    @test checked_loss(problem, params) == loss_and_gradient(fixed, params[1:(end - 4)])[1]
    params[end] += 0.1
    @test trajectory(problem, params; series = 3)[:, 1] ≈ problem.series[3].u0 + [0, 0.1]
    @test_throws DimensionMismatch loss_and_gradient(problem, params[1:(end - 4)])
end

@testset "links pull ends to the starts that follow" begin
    field = series_field(:mlp)
    parts = [example_series(1), example_series(3; learned = true, follows = 1)]
    linked = series_problem(field, parts; continuity = 30)
    free = series_problem(field, [parts[1], example_series(3; learned = true)])
    params = initial_parameters(Xoshiro(3), linked)
    gap = (trajectory(linked, params)[:, end] .- parts[2].u0) ./ [0.5, 2.0]
    @test checked_loss(linked, params) ≈ loss_and_gradient(free, params)[1] + 30 * sum(abs2, gap) / 2 rtol = 1e-9
    for part in ((series = [2],), (n_save = [3, 2],))
        @test loss_and_gradient(linked, params; part...)[1] == loss_and_gradient(free, params; part...)[1]
    end
    alone = loss_and_gradient(free, params; series = [1])[1]
    @test loss_and_gradient(linked, params; series = [1])[1] ≈ alone + 30 * sum(abs2, gap) / 2 rtol = 1e-9
end

@testset "the start alone is compared" begin
    field = series_field(:mlp)
    problem = series_problem(field, [example_series(1; learned = true), example_series(3; learned = true)])
    params = initial_parameters(Xoshiro(3), problem)
    checked_loss(problem, params; n_save = [1, 1])
    checked_loss(problem, params; n_save = [1, 2])
end

@testset "bad series are told" begin
    field = series_field(:mlp)
    @test_throws "at least one" FitProblem(field, Series[])
    @test_throws "nothing is measured" FitProblem(field, [Series(ones(2), [1.0], fill(NaN, 2, 1))])
    @test_throws "weight" example_series(3; weights = -ones(2, 2))
    @test_throws DimensionMismatch example_series(3; weights = ones(2, 3))
    @test_throws "last save time" FitProblem(field, [example_series(1), example_series(2; learned = true, follows = 1)])
    @test_throws "learned initial state" FitProblem(field, [example_series(1), example_series(3; follows = 1)])
    @test_throws "continuity" FitProblem(field, [example_series(1)]; continuity = -1)
    @test_throws DimensionMismatch FitProblem(field, [Series(ones(3), [1.0], ones(3, 1))])
    @test_throws "unknown solver" FitProblem(field, [example_series(1)]; solver = :Euler)
end
