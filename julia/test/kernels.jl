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
    # A reference hides the type of the field: dual numbers of one type serve all of them.
    hidden = Ref{Any}(field)
    for (by_u, by_p) in ((1, 0), (0, 1), (1, 1)), seed in 1:2
        rng = Xoshiro(seed)
        v, q = by_u .* randn(rng, n, 20), by_p .* randn(rng, length(params))
        along = ForwardDiff.derivative(e -> sum(cotangent .* hidden[](u .+ e .* v, params .+ e .* q)), 0.0)
        @test sum(by_state .* v) + sum(by_params .* q) ≈ along rtol = 1e-10
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
