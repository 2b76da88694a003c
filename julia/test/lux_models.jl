# Fields as layers of Lux, and any other layer of Lux as a field.

using ADTypes, ComponentArrays, ReverseDiff, Zygote
using OrdinaryDiffEqRosenbrock: Rodas5P
using OrdinaryDiffEqTsit5: Tsit5

small_fields() = (mlp_field([2, 5, 2]), kan_field([2, 3, 2]; rate = [2.0, 0.3]))

@testset "a field is a layer of Lux: $(label(field))" for field in small_fields()
    ps, st = Lux.setup(Xoshiro(4), field)
    @test Lux.parameterlength(field) == Lux.parameterlength(ps) == parameter_count(field)
    @test all(array isa Array{Float32} for layer in ps for array in layer)
    x = randn(Xoshiro(5), Float32, 2, 3, 4)
    y, after = field(x, ps, st)
    @test y isa Array{Float32,3} && size(y) == size(x) && after == st
    ps, x = Lux.f64(ps), Float64.(x)
    @test Lux.f64(st) == st
    flat = collect(ComponentArray(ps))
    @test flat ≈ initial_parameters(Xoshiro(4), field) rtol = 1e-6
    @test field(x, ps, st)[1] ≈ y rtol = 1e-5
    one = field(x, ps, st)[1][:, 1, 1]
    @test field(x[:, 1, 1], ps, st)[1] ≈ one rtol = 1e-13
    @test field(x[:, 1, 1], flat) ≈ one rtol = 1e-13
    @test field(x, ps, merge(st, (; rate = 2st.rate)))[1] ≈ 2field(x, ps, st)[1]
    chain = Chain(field, Dense(2 => 2))
    chain_ps, chain_st = Lux.setup(Xoshiro(4), chain)
    @test size(chain(x, Lux.f64(chain_ps), chain_st)[1]) == size(x)
    @test Lux.outputsize(field, x, Xoshiro(0)) == (2, 3)
end

# A problem of two series whose steps are coarse: where the tolerance is far above rounding, both ways take the same.
function two_ways(field)
    (; inputs, widths) = field.spec
    rng, n, saveat = Xoshiro(7), widths[end], [0.0, 0.3, 0.9, 1.5]
    series = map((:linear, :held)) do kind
        signal = inputs == 0 ? nothing : Inputs([0, 0.6, 1.1, 2.0], randn(rng, inputs, 4); kind)
        Series(0.4 .* randn(rng, n), saveat, randn(rng, n, 4); inputs = signal, learned = kind === :held)
    end
    return FitProblem(field, [series...]; rtol = 1e-3, atol = 1e-3)
end

lux_path_fields() = [
    example_fields()
    mlp_field([5, 6, 2]; inputs = 2, time = true, center = fill(0.1, 5), scale = fill(2.0, 5))
    kan_field([4, 3, 2]; inputs = 1, time = true, scale = fill(3.0, 4), squash = true, input_power = 3)
]

# The Lux model of any field as a layer of one type, so that solver and replay are compiled once for all of them.
struct AnyField <: Lux.AbstractLuxLayer
    field::Any
end
Lux.initialparameters(rng::AbstractRNG, layer::AnyField) = (; flat = initial_parameters(rng, layer.field))
(layer::AnyField)(x, ps, st) = (layer.field(x, ps.flat), st)

@testset "kernels and the Lux model give one loss and gradient: $(label(field))" for field in lux_path_fields()
    problem = two_ways(field)
    params = vcat(example_parameters(field), problem.series[2].u0)
    loss, gradient = loss_and_gradient(problem, params)
    for sensealg in (AutoForwardDiff(), AutoZygote())
        # Of every kind of field one as users ask for it, and by Zygote as well, which takes long to compile.
        asked = field.spec.inputs > 0
        asked || sensealg isa AutoForwardDiff || continue
        other = asked ? problem : remake(problem; model = AnyField(field), field.spec.time, sensealg)
        lux_loss, lux_gradient = loss_and_gradient(other, params; sensealg)
        @test lux_loss ≈ loss rtol = 1e-12
        @test lux_gradient ≈ gradient rtol = 1e-12
    end
end

custom_model() = Chain(x -> x .^ 3, Dense(2 => 16, tanh), SplineKANLayer(16 => 2))

function custom_problem(; ps = nothing, st = nothing, options...)
    model = custom_model()
    drawn, state = Lux.setup(Xoshiro(1), model)
    data = randn(Xoshiro(2), 2, 3, 2)
    return FitProblem(
        model, [0.5 0.1; -0.3 0.7], [0.0, 0.4, 1.1], data; ps = something(ps, drawn), st = something(st, state),
        rtol = 1e-9, atol = 1e-9, options...,
    )
end

@testset "any layer of Lux is fitted" begin
    problem = custom_problem()
    params = initial_parameters(problem)
    ps, st = Lux.setup(Xoshiro(1), custom_model())
    @test params == collect(ComponentArray(Lux.f64(ps))) && parameter_count(problem) == length(params)
    rhs(u) = vec(first(custom_model()(reshape(u, :, 1), Lux.f64(ps), st)))
    @test trajectory(problem, params; series = 2)[:, 3] ≈ runge_kutta(rhs, [0.1, 0.7], 0.0, 1.1, 2000) atol = 1e-7
    loss, gradient = loss_and_gradient(problem, params)
    few = 1:25:length(params)
    loss_at(p) = loss_and_gradient(problem, p; sensealg = AutoForwardDiff())[1]
    basis(i) = [k == i ? 1e-4 : 0.0 for k in eachindex(params)]
    @test gradient[few] ≈ [(loss_at(params .+ basis(i)) - loss_at(params .- basis(i))) / 2e-4 for i in few] rtol = 1e-5
    for sensealg in (:ForwardDiff, AutoForwardDiff(), AutoReverseDiff(), AutoZygote())
        other_loss, other = loss_and_gradient(problem, params; sensealg)
        @test other_loss ≈ loss rtol = 1e-9
        @test other ≈ gradient rtol = 1e-6
    end
end

@testset "parameters and gradients are of one kind" begin
    problem = custom_problem(; sensealg = AutoForwardDiff())
    ps = Lux.f64(first(Lux.setup(Xoshiro(1), custom_model())))
    components = ComponentArray(ps)
    loss, gradient = loss_and_gradient(problem, collect(components))
    of_components, of_tree = loss_and_gradient(problem, components)[2], loss_and_gradient(problem, ps)[2]
    @test of_components isa typeof(components) && collect(of_components) == gradient
    @test of_tree.layer_3.spline_scale == of_components.layer_3.spline_scale && keys(of_tree) == keys(ps)
    @test loss_and_gradient(problem, Lux.f32(components))[2] isa ComponentVector{Float32}
    @test trajectory(problem, ps) == trajectory(problem, components)
    @test initial_parameters(custom_problem(; ps = components)) == collect(components)
    @test_throws DimensionMismatch loss_and_gradient(problem, components[1:5])
    @test_throws DimensionMismatch loss_and_gradient(problem, ps.layer_2)
end

@testset "time and inputs reach a layer of Lux" begin
    inputs = Inputs([0, 2], [1.0, 3.0])
    series = [Series([0.5], [0.5, 1.5], [1.0 2.0]; inputs)]
    options = (; rtol = 1e-10, atol = 1e-10)
    ours = FitProblem(mlp_field([3, 1]; inputs = 1, time = true), series; options...)
    params = [-0.7, 1.3, 0.2, 0.4]
    model = FitProblem(Dense(3 => 1), series; time = true, options...)
    @test trajectory(model, params) ≈ trajectory(ours, params) rtol = 1e-9
    @test loss_and_gradient(model, params)[2] ≈ loss_and_gradient(ours, params)[2] rtol = 1e-9
end

@testset "states are those that are given" begin
    field = kan_field([2, 3, 2])
    ps, st = Lux.setup(Xoshiro(1), field)
    problem(st) = FitProblem(field, [0.5, -0.3], [0.5, 1.0], ones(2, 2); ps, st, rtol = 1e-8, atol = 1e-8)
    params, faster = initial_parameters(problem(st)), merge(st, (; rate = [2.0, 2.0]))
    @test problem(st).field === field
    twice = remake(problem(st); model = kan_field([2, 3, 2]; rate = [2.0, 2.0]))
    @test trajectory(problem(faster), params) ≈ trajectory(twice, params) rtol = 1e-7
end

@testset "models that do not fit are told" begin
    fit(model; options...) = FitProblem(model, [0.5, -0.3], [0.5, 1.0], ones(2, 2); options...)
    @test_throws "expected a model that maps a batch (2, B) to (2, B)" fit(Dense(2 => 3))
    @test_throws "expected a model that maps a batch (2, B) to (2, B)" fit(Dense(3 => 2))
    @test_throws "other columns" fit(WrappedFunction(x -> x .- sum(x)))
    roots = Chain(x -> sqrt.(x .- 2), Dense(2 => 2))         # defined where the data are
    @test_throws "it failed: DomainError" fit(roots)
    @test FitProblem(roots, [2.5, 3.0], [0.5, 1.0], ones(2, 2)) isa FitProblem
    @test_throws DimensionMismatch fit(Dense(2 => 2); ps = zeros(5))
    @test_throws "made with time = false" fit(mlp_field([2, 2]); time = true)
    @test_throws "expected (n, K) and (n, T, K)" FitProblem(Dense(2 => 2), ones(2, 3), [0.5, 1.0], ones(2, 2))
end

@testset "a stiff solver differentiates a layer of Lux: $sensealg" for sensealg in (AutoForwardDiff(), AutoZygote())
    model, field = Chain(Dense(2 => 5, tanh), Dense(5 => 2)), mlp_field([2, 5, 2])
    data, options = randn(Xoshiro(1), 2, 3), (; solver = Rodas5P(), rtol = 1e-8, atol = 1e-8)
    fit(model; others...) = FitProblem(model, [0.3, -0.2], [0.2, 0.5, 1.0], data; options..., others...)
    params = example_parameters(field)
    loss, gradient = loss_and_gradient(fit(model; sensealg), params)
    own_loss, own = loss_and_gradient(fit(field), params)
    @test loss ≈ own_loss rtol = 1e-10
    @test gradient ≈ own rtol = 1e-8
end

@testset "problems are shown, remade and solved by algorithms" begin
    field = mlp_field([2, 5, 2])
    params, problem = example_parameters(field), example_problem(field)
    shown = sprint(show, problem)
    @test shown == "FitProblem($field; 1 series, 6 save times, Tsit5, rtol 1.0e-9, atol 1.0e-9)"
    @test sprint(show, MIME("text/plain"), problem) == shown
    @test loss_and_gradient(remake(problem; solver = Tsit5()), params) == loss_and_gradient(problem, params)
    @test remake(problem; rtol = 1e-3).rtol == 1e-3 && remake(problem; rtol = 1e-3).loss_scale == problem.loss_scale
    @test remake(problem; sensealg = :ForwardDiff).sensealg == remake(remake(problem; sensealg = :ForwardDiff)).sensealg
    loose = remake(problem; reltol = 1e-3, abstol = 1e-4)
    @test (loose.rtol, loose.atol) == (1e-3, 1e-4)
    @test trajectory(problem, params; reltol = 1e-3, abstol = 1e-4) == trajectory(loose, params)
    other = remake(problem; series = [Series([0.1, 0.2], [1.0], zeros(2, 1))], model = kan_field([2, 2]))
    @test occursin("KAN field 2-2", string(other)) && other.rtol == 1e-9
    step_limiter!(u, integrator, p, t) = nothing
    limited = remake(problem; solver = Tsit5(; step_limiter!))
    @test trajectory(limited, params) ≈ trajectory(problem, params) rtol = 1e-7
    for (name, solver) in ("Tsit5" => Tsit5(; step_limiter!), "Rodas5P" => Rodas5P(; step_limiter!))
        other = remake(problem; solver)
        @test_throws "does not know the solver $name" loss_and_gradient(other, params; sensealg = :Replay)
    end
    @test_throws "expected an algorithm" remake(problem; solver = "Tsit5")
    @test_throws "expected a name" loss_and_gradient(problem, params; sensealg = 1)
end

@testset "loss and gradient have concrete types: $(label(field))" for field in small_fields()
    params, problem = example_parameters(field), example_problem(field)
    @test (@inferred loss_and_gradient(problem, params)) isa Tuple{Float64,Vector{Float64}}
    @test (@inferred trajectory(problem, params)) isa Matrix{Float64}
    components = ComponentArray(unpack(field, params))
    @test (@inferred loss_and_gradient(problem, components)) isa Tuple{Float64,typeof(components)}
end
