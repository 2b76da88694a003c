@testset "SplineKANLayer is the sum over its edges: order $order" for order in (1, 2, 3, 5)
    layer = SplineKANLayer(3 => 4; grid = 6, spline_order = order, grid_range = (-1.5, 1))
    ps, st = Lux.setup(Xoshiro(0), layer)
    @test Lux.parameterlength(layer) == 3 * 4 * (2 + 6 + order) == Lux.parameterlength(ps)
    @test Lux.statelength(layer) == Lux.statelength(st)
    @test all(array isa Array{Float32} for array in ps)
    ps = Lux.f64(ps)
    ps.spline_scale .= randn(Xoshiro(1), 4, 3)
    x = 1.4 .* randn(Xoshiro(2), 3, 2, 5)
    y, _ = layer(x, ps, st)
    @test size(y) == (4, 2, 5)
    @test all(y[:, a, b] ≈ kan_layer(x[:, a, b], ps, st.knots, order) for a in 1:2, b in 1:5)
    @test layer(x[:, 1, 1], ps, st)[1] ≈ y[:, 1, 1]
end

@testset "the grid is in the states" begin
    narrow = SplineKANLayer(1 => 1; grid_range = (-1, 1))
    wide = SplineKANLayer(1 => 1; grid_range = (-3, 3))
    ps = Lux.f64(first(Lux.setup(Xoshiro(0), narrow)))
    st, unmoved = Lux.initialstates(Xoshiro(0), wide), Lux.initialstates(Xoshiro(0), narrow)
    @test narrow([2.0], ps, st)[1] == wide([2.0], ps, st)[1] != narrow([2.0], ps, unmoved)[1]
end

@testset "bad sizes are errors" begin
    @test_throws ArgumentError SplineKANLayer(0 => 1)
    @test_throws ArgumentError SplineKANLayer(1 => 1; grid = 0)
    @test_throws ArgumentError SplineKANLayer(1 => 1; grid_range = (1, -1))
    layer = SplineKANLayer(2 => 3)
    ps, st = Lux.setup(Xoshiro(0), layer)
    @test_throws DimensionMismatch layer(ones(3), ps, st)
    @test_throws ArgumentError mlp_field([2, 5, 3])
    @test_throws ArgumentError mlp_field([2, 5, 2]; activation = :tahn)
    @test_throws ArgumentError kan_field([2, 5, 2]; input_power = 2)
    @test_throws ArgumentError kan_field([2, 5, 2]; scale = [1.0])
end

@testset "the flat vector has the order of Lux: $(label(field))" for field in example_fields()
    ps, _ = Lux.setup(Xoshiro(0), field.model)
    @test parameter_count(field) == Lux.parameterlength(field.model)
    ours = unpack(field, collect(1.0:parameter_count(field)))
    @test keys(ours) == keys(ps)
    @test all(keys(ours[l]) == keys(ps[l]) && map(size, ours[l]) == map(size, ps[l]) for l in keys(ps))
    @test reduce(vcat, vec(array) for layer in ours for array in layer) == 1:parameter_count(field)
end
