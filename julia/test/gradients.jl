has_kinks((; model, activation, spline_order, outside)) =
    model === :mlp ? activation === :relu : spline_order == 1 || outside === :clamp

@testset "trajectory and gradient: $(label(field))" for field in example_fields()
    params, problem = example_parameters(field), example_problem(field)
    (; u0, saveat, data) = problem.series[1]
    (; loss_scale) = problem
    states = trajectory(problem, params)
    u, truth = u0, [u0]
    for (left, right) in zip(saveat[1:(end - 1)], saveat[2:end])
        u = runge_kutta(u -> field(u, params), u, left, right, 500)
        push!(truth, u)
    end
    @test states ≈ reduce(hcat, truth) atol = (has_kinks(field.spec) ? 1e-5 : 1e-7)

    for n_save in (length(saveat), 3)
        loss, gradient = loss_and_gradient(problem, params; n_save)
        residuals = ((states .- data) ./ loss_scale)[:, 1:n_save]
        @test loss ≈ sum(abs2, residuals) / length(residuals) rtol = (n_save == 3 ? 1e-7 : 1e-12)
        # Dual numbers take the steps that the replay goes back over, up to rounding. That moves the steps a little,
        # which tells where they cross a knot: splines are smooth to a finite order only, and the less the lower it is.
        forward_loss, forward_gradient = loss_and_gradient(problem, params; sensealg = :ForwardDiff, n_save)
        is_mlp, is_cubic = field.spec.model === :mlp, field.spec.spline_order >= 3 && field.spec.outside === :zero
        @test loss ≈ forward_loss rtol = (is_mlp || is_cubic ? 1e-10 : 1e-9)
        @test gradient ≈ forward_gradient rtol = (is_mlp ? 1e-9 : is_cubic ? 1e-6 : 1e-5)
    end
end

@testset "the gradient is that of the true loss" begin
    field = kan_field([2, 3, 2])
    params, problem = example_parameters(field), example_problem(field; tolerance = 1e-11)
    (; data) = problem.series[1]
    loss(p) = sum(abs2, (trajectory(problem, p) .- data) ./ problem.loss_scale) / length(data)
    @test loss_and_gradient(problem, params)[2] ≈ central(loss, params, 1e-4) rtol = 1e-6
end

@testset "tableau and dense output are the solver's" begin
    # Save points inside coarse steps: any difference would show.
    field = mlp_field([2, 5, 2])
    params, problem = example_parameters(field), example_problem(field; tolerance = 1e-3)
    residuals = (trajectory(problem, params) .- problem.series[1].data) ./ problem.loss_scale
    @test loss_and_gradient(problem, params)[1] ≈ sum(abs2, residuals) / length(residuals) rtol = 1e-14
    @test sum(KanSciML.TSIT5.A; dims = 2) ≈ [0, 0.161, 0.327, 0.9, 0.9800255409045097, 1, 1] atol = 1e-12
    @test vec(sum(KanSciML.TSIT5.dense; dims = 2)) ≈ KanSciML.TSIT5.A[7, :] atol = 1e-12
end

@testset "errors fall with the tolerance" begin
    field = mlp_field([2, 6, 2])
    params = example_parameters(field)
    errors = map((1e-4, 1e-6, 1e-8, 1e-10)) do tolerance
        problem = example_problem(field; tolerance)
        truth = runge_kutta(u -> field(u, params), problem.series[1].u0, 0.0, 1.5, 1000)
        maximum(abs, trajectory(problem, params)[:, end] .- truth)
    end
    @test issorted(errors; rev = true)
    @test errors[4] < 1e-9
end

@testset "only the initial state: no gradient" begin
    field = mlp_field([2, 3, 2])
    params, problem = example_parameters(field), example_problem(field)
    expected = sum(abs2, (problem.series[1].u0 .- problem.series[1].data[:, 1]) ./ problem.loss_scale) / 2
    @test loss_and_gradient(problem, params; n_save = 1) == (expected, zeros(length(params)))
    @test trajectory(problem, params; saveat = [0.0]) == reshape(problem.series[1].u0, 2, 1)
end

@testset "failures are told" begin
    field = mlp_field([2, 4, 2]; activation = :relu)
    params, problem = abs.(example_parameters(field)), example_problem(field)
    @test_throws SolveFailure trajectory(problem, 1e4 .* params)
    @test_throws SolveFailure loss_and_gradient(problem, 1e4 .* params)
    @test_throws SolveFailure loss_and_gradient(problem, 1e4 .* params; sensealg = :ForwardDiff)
    (; u0, saveat, data) = problem.series[1]
    short = FitProblem(field, u0, saveat, data; maxiters = 3)
    @test_throws "needs more than 3 steps" loss_and_gradient(short, params)
    @test_throws ArgumentError loss_and_gradient(problem, params; sensealg = :Adjoint)
    @test_throws DimensionMismatch loss_and_gradient(problem, params[1:3])
    @test_throws ArgumentError loss_and_gradient(problem, params; n_save = 7)
    @test_throws ArgumentError FitProblem(field, u0, reverse(saveat), data)
    @test_throws DimensionMismatch FitProblem(field, u0, saveat, data')
    @test_throws ArgumentError FitProblem(field, u0, saveat, data; rtol = -1)
    @test_throws ArgumentError FitProblem(field, u0, saveat, data; atol = Inf)
    @test_throws ArgumentError FitProblem(field, u0, saveat, data; maxiters = 0)
    @test_throws ArgumentError FitProblem(field, u0, saveat, data; loss_scale = [1, 0])
    @test_throws ArgumentError FitProblem(field, u0, saveat, data .* NaN)
    @test_throws ArgumentError FitProblem(field, u0, [saveat[1:(end - 1)]; Inf], data)
end

@testset "a trajectory checks its times, parameters and tolerances" begin
    field = mlp_field([2, 3, 2])
    params, problem = example_parameters(field), example_problem(field)
    for times in ([1.0, 0.5], [0.5, 0.5], [-0.1, 1.0], [0.5, NaN], [0.5, Inf], Float64[])
        @test_throws ArgumentError trajectory(problem, params; saveat = times)
    end
    @test_throws DimensionMismatch trajectory(problem, params[1:3])
    @test_throws DimensionMismatch trajectory(problem, [params; 0.0])
    @test_throws ArgumentError trajectory(problem, params; rtol = 0)
    @test trajectory(problem, params; saveat = 0:0.5:1)[:, 2] ≈ trajectory(problem, params; saveat = [0.5]) rtol = 1e-6
    @test_throws DimensionMismatch field([0.1 0.2], params)
    @test_throws DimensionMismatch field([0.1, 0.2], [params; 0.0])
end

if isnothing(Base.find_package("SciMLSensitivity"))
    @info "SciMLSensitivity is not in this environment: its algorithms are not tested"
    @testset "its algorithms ask for SciMLSensitivity" begin
        field = mlp_field([2, 3, 2])
        problem, params = example_problem(field), example_parameters(field)
        @test_throws "using SciMLSensitivity" loss_and_gradient(problem, params; sensealg = :GaussAdjoint)
    end
else
    @eval using OrdinaryDiffEqRosenbrock, SciMLSensitivity
    # Each is compiled anew for each kind of field, half a minute long: a KAN under other ones is in hybrid.jl.
    @testset "$sensealg agrees with the replay: $(label(field))" for (sensealg, field) in (
        (name => mlp_field([2, 5, 2]) for name in SENSEALGS)..., :GaussAdjoint => kan_field([2, 3, 2]),
    )
        params, problem = example_parameters(field), example_problem(field; tolerance = 1e-10)
        loss, gradient = loss_and_gradient(problem, params; n_save = 4)
        other_loss, other_gradient = loss_and_gradient(problem, params; sensealg, n_save = 4)
        @test other_loss ≈ loss rtol = 1e-9
        @test other_gradient ≈ gradient rtol = 1e-6
    end

    @testset "$(nameof(typeof(sensealg))) is taken as an object, with $solver" for (sensealg, solver) in (
        (SciMLSensitivity.InterpolatingAdjoint(; autojacvec = SciMLSensitivity.ReverseDiffVJP(true)), :Tsit5),
        (SciMLSensitivity.GaussAdjoint(; autojacvec = SciMLSensitivity.ZygoteVJP()), :Rodas5P),
    )
        field = mlp_field([2, 5, 2])
        params, problem = example_parameters(field), example_problem(field; tolerance = 1e-9)
        other = remake(problem; sensealg, solver)
        @test loss_and_gradient(other, params)[2] ≈ loss_and_gradient(problem, params)[2] rtol = 1e-6
        @test loss_and_gradient(other, params)[2] == loss_and_gradient(remake(other), params)[2]
    end
end
