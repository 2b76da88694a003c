# Every solver against the default one, and its gradient against dual numbers through it.

using OrdinaryDiffEqBDF, OrdinaryDiffEqLowOrderRK, OrdinaryDiffEqRosenbrock, OrdinaryDiffEqSDIRK, OrdinaryDiffEqVerner

# How far a solver that keeps the tolerance 1e-9 may be from the solution.
const ACCURACY = (BS3 = 1e-6, Vern8 = 1e-7, Rodas5P = 1e-6, FBDF = 1e-5, KenCarp4 = 1e-6, AutoTsit5 = 1e-6)
const REPLAYED = (:BS3, :Vern8, :Rodas5P)

function forced_problem(field; tolerance = 1e-9, options...)
    n, m = field.spec.widths[end], field.spec.inputs
    rng = Xoshiro(4)
    series = map((:linear, :held)) do kind
        inputs = m == 0 ? nothing : Inputs([0, 0.6, 1.1, 2.0], randn(rng, m, 4); kind)
        Series(0.5 .* randn(rng, n), [0.0, 0.4, 1.1, 1.5], randn(rng, n, 4); inputs)
    end
    return FitProblem(field, [series...]; rtol = tolerance, atol = tolerance, options...)
end

forced_field(model) = model === :mlp ? mlp_field([4, 5, 2]; inputs = 1, time = true) :
    kan_field([4, 3, 2]; inputs = 1, time = true, scale = fill(2.0, 4))

@testset "$solver, $model" for (solver, model) in (
    (:BS3, :mlp), (:Vern8, :mlp), (:Rodas5P, :mlp), (:Rodas5P, :kan), (:FBDF, :mlp), (:KenCarp4, :mlp),
    (:AutoTsit5, :mlp),
)
    field = forced_field(model)
    params = example_parameters(field)
    truth, problem = forced_problem(field; tolerance = 1e-11), forced_problem(field; solver)
    for k in 1:2
        @test trajectory(problem, params; series = k) ≈ trajectory(truth, params; series = k) atol = ACCURACY[solver]
    end
    loss, gradient = loss_and_gradient(problem, params)
    expected_loss, expected = loss_and_gradient(truth, params)
    @test loss ≈ expected_loss rtol = 10ACCURACY[solver]
    @test gradient ≈ expected rtol = 100ACCURACY[solver]
    if solver in REPLAYED
        @test loss_and_gradient(problem, params; sensealg = :ForwardDiff)[2] ≈ gradient rtol = 1e-6
        # Save points inside coarse steps: another formula between steps would show.
        coarse = forced_problem(field; solver, tolerance = 1e-2)
        for k in 1:2
            residuals = trajectory(coarse, params; series = k) .- coarse.series[k].data
            @test loss_and_gradient(coarse, params; series = [k])[1] ≈ sum(abs2, residuals) / 8 rtol = 1e-9
        end
    else
        @test_throws "does not know the solver" loss_and_gradient(problem, params; sensealg = :Replay)
    end
end

@testset "internals of solvers that are not there are named" begin
    internal, table = KanSciML.internal, KanSciML.TSIT5
    told(f) = sprint(showerror, try; f(); catch failure; failure; end)
    @test occursin("Tableau has no field H: this version", told(() -> internal(table, :H)))
    @test occursin("OrdinaryDiffEqVerner has no Vern99", told(() -> internal(OrdinaryDiffEqVerner, :Vern99)))
    @test_throws KanSciML.UnknownInternals KanSciML.consistent(
        KanSciML.Tableau(table.c, 2 .* table.A, table.b, table.dense, 7, true, true), "Tsit5"
    )
    @test_throws "is not supported" KanSciML.check_slopes((; t = [0.0, 1.0], k = [[], [1.0]]), table)
    step = (; t = [0.0, 1.0], u = [[0.0], [2.0]])
    @test_throws "off what its coefficients" KanSciML.check_first_step(table, step, [[1.0] for _ in 1:7])
end

@testset "a stiff linear equation has its closed form: $solver" for solver in (:Rodas5P, :FBDF, :KenCarp4, :AutoTsit5)
    # Two equations u' = -1e4 (u - t) and u' = -u, which forget their start at once and slowly.
    params = [-1e4, 0, 0, -1, 1e4, 0, 0.0, 0.0]                # weight (2, 3), bias (2)
    tolerance, accuracy = solver === :AutoTsit5 ? (1e-6, 1e-4) : (1e-8, 1e-6)
    options = (; solver, rtol = tolerance, atol = tolerance, maxiters = solver === :AutoTsit5 ? 20_000 : 2000)
    problem = FitProblem(mlp_field([3, 2]; time = true), ones(2), [0.5, 2.0], ones(2, 2); options...)
    solution(p) = [ramp_solution(1.0, (p[1], p[5], p[7]), 0.0, 1.0, t) for t in (0.5, 2.0)]
    @test trajectory(problem, params)[1, :] ≈ solution(params) atol = accuracy
    @test trajectory(problem, params)[2, :] ≈ exp.([-0.5, -2]) atol = accuracy
    loss(p) = (sum(abs2, solution(p) .- 1) + sum(abs2, exp.(p[4] .* [0.5, 2]) .- 1)) / 4
    own = [1, 4, 5, 7]                                         # the others couple the two
    @test loss_and_gradient(problem, params)[2][own] ≈ ForwardDiff.gradient(loss, params)[own] rtol = 100accuracy
end

@testset "the replay of Rodas5P does not depend on stiffness: ForwardDiff agrees" begin
    field = mlp_field([3, 5, 3]; rate = [1e3, 1.0, 1e-2], scale = [0.1, 1.0, 10.0])
    params = example_parameters(field)
    options = (; solver = :Rodas5P, loss_scale = [0.1, 1, 1], rtol = 1e-8, atol = 1e-8)
    problem = FitProblem(field, [0.1, 0.5, -0.3], [0.1, 1.0, 3.0], zeros(3, 3); options...)
    loss, gradient = loss_and_gradient(problem, params)
    forward_loss, forward = loss_and_gradient(problem, params; sensealg = :ForwardDiff)
    @test loss ≈ forward_loss rtol = 1e-8
    @test gradient ≈ forward rtol = 1e-6
end
