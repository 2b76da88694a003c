# Known terms and a network, against the function that they were recorded from.

struct Noted
    tape::Vector{Any}
    place::Int
end

note(tape, node...) = (push!(tape, Any[node...]); Noted(tape, length(tape) - 1))
noted(tape, x) = x isa Noted ? x.place : note(tape, "constant", Float64(x)).place

for (operation, name) in ((:+, "+"), (:-, "-"), (:*, "*"), (:/, "/"), (:^, "**"))
    @eval Base.$operation(a::Noted, b::Noted) = note(a.tape, $name, a.place, b.place)
    @eval Base.$operation(a::Noted, b::Real) = note(a.tape, $name, a.place, noted(a.tape, b))
    @eval Base.$operation(a::Real, b::Noted) = note(b.tape, $name, noted(b.tape, a), b.place)
end
Base.:^(a::Noted, b::Integer) = a^Float64(b)

for (operation, name) in (
    (:-, "neg"), (:abs, "abs"), (:exp, "exp"), (:log, "log"), (:sqrt, "sqrt"), (:sin, "sin"), (:cos, "cos"),
    (:tan, "tan"), (:tanh, "tanh"), (:atan, "arctan"),
)
    @eval Base.$operation(a::Noted) = note(a.tape, $name, a.place)
end

# The field that `known(t, u, w, network, p)` describes; `named` makes the known parameters of the trained numbers.
function hybrid_field(known, named, network, n; m = 0, trained = 0, units = nothing)
    tape = []
    leaves(name, count) = [note(tape, name, i - 1) for i in 1:count]
    t, u, w, p = note(tape, "time"), leaves("state", n), leaves("input", m), named(leaves("parameter", trained))
    function call(x)
        place = note(tape, "network", (noted(tape, one) for one in x)...).place
        return [note(tape, "output", place, j - 1) for j in 1:network.widths[end]]
    end
    slopes = [noted(tape, one) for one in known(t, u, w, call, p)]
    told = Dict("nodes" => tape, "slopes" => slopes, "parameters" => [one.place for one in p])
    units = KanSciML.StateUnits(units, n)
    names = ["p$i" for i in 1:trained]
    return KanSciML.Field(KanSciML.HybridSpec(network, KanSciML.described_equations(told, m, units), names, m))
end

function network_spec(model, n_in, n_out)
    options = (; scale = fill(2.0, n_in), rate = collect((1:n_out) ./ 2), free_ends = true)
    return KanSciML.FieldSpec(model, [n_in, 4, n_out]; options...)
end

# Every operation, the network twice, once on its own output.
function everything(t, (x, y), (w,), network, (a, b, c))
    first = network([x, y, t])
    second = network([y, first[1], x * b])
    one = a * x^2 - first[1] * sin(t * x) + second[2] + w * x
    two = exp(-y * y) / (1 + abs(x)) + first[2] * 2.0^y + tanh(x) - atan(y)
    three = log(3 + y) * sqrt(x * x + 1) + c * cos(x) + tan(y / 3) - b^x
    return [one, two + three]
end

bounded((a, b, c)) = [a * 1.3 + 1.3, exp(b) * 2.0, 1.0 / (exp(-c) * 3.0 + 1.0)]

everything_field(model; options...) =
    hybrid_field(everything, bounded, network_spec(model, 3, 2), 2; m = 1, trained = 3, options...)

function truth(field, x::AbstractVector, params)
    count = parameter_count(field.network)
    network(z) = field.network([z...], params[1:count])
    return everything(x[4], x[1:2], x[3:3], network, bounded(params[(count + 1):end]))
end

truth(field, x, params) = reduce(hcat, truth(field, column, params) for column in eachcol(x))

@testset "known terms, their array form and derivatives agree: $model" for model in (:mlp, :kan)
    field = everything_field(model)
    params, x = example_parameters(field), 0.5 .* randn(Xoshiro(5), 4, 20)
    kernel = bind!(FieldKernel(Float64, field.spec), params)
    expected = truth(field, x, params)
    by_kernel = reduce(hcat, rhs!(zeros(2), collect(column), kernel) for column in eachcol(x))
    @test by_kernel ≈ expected rtol = 1e-13
    @test field(x, params) ≈ expected rtol = 1e-13
    @test field(x[:, 1], params) ≈ expected[:, 1] rtol = 1e-13
    cotangent = randn(Xoshiro(6), 2, 20)
    linearise!(kernel, x, 20)
    for b in 1:20                                            # a Jacobian takes several products at one state
        pull_state!(zeros(4), kernel, b, [1.0, 0.0])
    end
    by_state = reduce(hcat, pull_state!(zeros(4), kernel, b, cotangent[:, b]) for b in 1:20)
    by_params = pull_parameters!(zeros(length(params)), kernel, 20)
    for seed in 1:3
        rng = Xoshiro(seed)
        v, q = randn(rng, 4, 20), randn(rng, length(params))
        along(f) = ForwardDiff.derivative(f, 0.0)
        @test sum(by_state .* v) ≈ along(e -> sum(cotangent .* truth(field, x .+ e .* v, params))) rtol = 1e-10
        @test sum(by_params .* q) ≈ along(e -> sum(cotangent .* truth(field, x, params .+ e .* q))) rtol = 1e-10
    end
    @test KanSciML.estimates(field, params) == Dict(zip(["p1", "p2", "p3"], bounded(params[(end - 2):end])))
    @test occursin("known terms", string(field))
    @test_throws DimensionMismatch field(x[1:3, :], params)
end

@testset "known terms do not allocate" begin
    field = everything_field(:kan)
    kernel = bind!(FieldKernel(Float64, field.spec), example_parameters(field))
    du, x, states, gradient = zeros(2), [0.1, 0.2, 0.3, 0.4], randn(4, 30), zeros(parameter_count(field))
    function everything!()
        rhs!(du, x, kernel)
        linearise!(kernel, states, 30)
        pull_state!(x, kernel, 30, du)
        return pull_parameters!(gradient, kernel, 30)
    end
    everything!()
    @test (@allocated everything!()) <= 64                   # of this test's own
end

@testset "known terms in other units" begin
    units = Dict("origin" => [0.1, 0.2], "state" => [2.0, 0.5], "t0" => 1.0, "time" => 3.0)
    field, other = everything_field(:mlp), everything_field(:mlp; units)
    params, v = example_parameters(field), [0.3, -0.2, 0.7, 0.1]
    x = [0.1 + 2 * 0.3, 0.2 - 0.5 * 0.2, 0.7, 1 + 3 * 0.1]
    @test other(v, params) ≈ 3 .* field(x, params) ./ [2.0, 0.5] rtol = 1e-13
end

function hybrid_problem(field; solver = :Tsit5)
    rng = Xoshiro(2)
    series = map((:linear, :held)) do kind
        inputs = Inputs([0.0, 0.4, 0.9, 2.0], randn(rng, 1, 4); kind)
        Series(0.4 .* randn(rng, 2), [0.0, 0.3, 0.9, 1.2], randn(rng, 2, 4); inputs, learned = kind === :held)
    end
    return FitProblem(field, [series...]; solver, rtol = 1e-10, atol = 1e-10)
end

@testset "the gradient of known terms by $solver is that of the loss" for solver in (:Tsit5, :Rodas5P)
    field = everything_field(:mlp)
    problem = hybrid_problem(field; solver)
    params = vcat(example_parameters(field), problem.series[2].u0)
    loss, gradient = loss_and_gradient(problem, params)
    fine = hybrid_problem(field)
    @test loss ≈ loss_and_gradient(fine, params)[1] rtol = 1e-4
    if solver === :Tsit5
        @test gradient ≈ central(p -> loss_and_gradient(problem, p)[1], params, 1e-4) rtol = 1e-6
    else
        @test gradient ≈ loss_and_gradient(fine, params)[2] rtol = 1e-3
    end
    forward_loss, forward = loss_and_gradient(problem, params; sensealg = :ForwardDiff)
    @test loss ≈ forward_loss rtol = 1e-9
    @test gradient ≈ forward rtol = 1e-6
end

@testset "logistic growth, its rate known to be positive, has its closed form" begin
    network = network_spec(:mlp, 1, 1)
    growth(t, (x,), w, network, (r,)) = [r * x * (1 - x) + 0 * network([x])[1]]
    field = hybrid_field(growth, ((a,),) -> [exp(a) * 0.5], network, 1; trained = 1)
    t = [0.5, 1.0, 3.0]
    problem = FitProblem(field, [0.1], t, ones(1, 3); rtol = 1e-11, atol = 1e-11)
    solution(a) = [1 / (1 + 9exp(-0.5exp(a) * s)) for s in t]
    params = vcat(example_parameters(field.network), 0.3)
    @test vec(trajectory(problem, params)) ≈ solution(0.3) rtol = 1e-9
    gradient = loss_and_gradient(problem, params)[2]
    @test gradient[end] ≈ ForwardDiff.derivative(a -> sum(abs2, solution(a) .- 1) / 3, 0.3) rtol = 1e-8
    @test all(iszero, gradient[1:(end - 1)])
end

@testset "terms that are not defined are told" begin
    growth(t, (x,), w, network, p) = [sqrt(x - 2.0) * network([x])[1] + x^1.5]
    field = hybrid_field(growth, identity, network_spec(:mlp, 1, 1), 1)
    problem = FitProblem(field, [1.0], [1.0], ones(1, 1))
    @test_throws SolveFailure loss_and_gradient(problem, example_parameters(field))
    bad(told) = KanSciML.described_equations(told, 0, KanSciML.StateUnits(nothing, 1))
    told(nodes) = Dict("nodes" => nodes, "slopes" => [0], "parameters" => [])
    @test_throws "unknown operation max" bad(told([["state", 0], ["max", 0, 0]]))
    @test_throws "come before" bad(told([["neg", 3]]))
    equations = bad(told([["state", 0], ["network", 0], ["output", 1, 0]]))
    @test isempty(equations.calls) || equations.calls == [[1]]
end

if !isnothing(Base.find_package("SciMLSensitivity"))
    @eval using SciMLSensitivity
    @testset "$sensealg differentiates known terms" for sensealg in (:InterpolatingAdjoint, :ForwardDiffSensitivity)
        known(t, (x, y), w, network, (a,)) = [a * x - network([x, y])[1] * y, cos(t) * x^2 - 2.0 * y]
        field = hybrid_field(known, ((a,),) -> [a + 1.0], network_spec(:kan, 2, 1), 2; trained = 1)
        problem, params = FitProblem(field, [0.3, 0.2], [0.5, 1.0], ones(2, 2); rtol = 1e-10, atol = 1e-10), nothing
        params = example_parameters(field)
        loss, gradient = loss_and_gradient(problem, params)
        other_loss, other = loss_and_gradient(problem, params; sensealg)
        @test other_loss ≈ loss rtol = 1e-8
        @test other ≈ gradient rtol = 1e-6
    end
end
