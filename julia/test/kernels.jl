@testset "kernel, Lux model and derivatives agree: $(label(field))" for field in example_fields()
    params, n = example_parameters(field), field.spec.widths[1]
    u = randn(Xoshiro(5), n, 20)
    kernel = bind!(FieldKernel(Float64, field.spec), params)
    by_kernel = reduce(hcat, rhs!(zeros(n), collect(column), kernel) for column in eachcol(u))
    @test by_kernel ≈ field(u, params) rtol = 1e-13
    @test field(u[:, 1], params) ≈ by_kernel[:, 1] rtol = 1e-13

    cotangent = randn(Xoshiro(6), n, 20)
    linearise!(kernel, u, 20)
    by_state = reduce(hcat, pull_state!(zeros(n), kernel, b, cotangent[:, b]) for b in 1:20)
    by_params = pull_parameters!(zeros(length(params)), kernel, 20)
    @test all(any(!iszero, array) for layer in unpack(field, by_params) for array in layer)
    for seed in 1:3
        rng = Xoshiro(seed)
        v, q = randn(rng, n, 20), randn(rng, length(params))
        along(f) = ForwardDiff.derivative(f, 0.0)
        @test sum(by_state .* v) ≈ along(e -> sum(cotangent .* field(u .+ e .* v, params))) rtol = 1e-10
        @test sum(by_params .* q) ≈ along(e -> sum(cotangent .* field(u, params .+ e .* q))) rtol = 1e-10
    end
end

@testset "a kernel does not allocate" begin
    for field in (mlp_field([2, 50, 2]), kan_field([2, 6, 2]))
        kernel = bind!(FieldKernel(Float64, field.spec), example_parameters(field))
        du, u = zeros(2), [0.1, 0.2]
        rhs!(du, u, kernel)
        @test (@allocated rhs!(du, u, kernel)) == 0
    end
end
