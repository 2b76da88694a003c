@testset "splines are those of Cox and de Boor: order $order, grid $grid" for order in 1:6, grid in (1, 4, 7)
    range = (-0.7, 1.1)
    knots, pieces = uniform_knots(grid, order, range), uniform_pieces(order)
    @test length(knots) == grid + 2order + 1
    @test knots[order + 1] ≈ range[1] && knots[order + grid + 1] ≈ range[2]
    x = collect(-5:0.037:5)
    basis = bspline_basis(x, knots, pieces)
    @test size(basis) == (grid + order, length(x))
    @test basis ≈ reduce(hcat, de_boor.(x, Ref(knots), order)) atol = 1e-13
    inside = range[1] .<= x .<= range[2]
    @test all(sum(basis[:, inside]; dims = 1) .≈ 1)   # partition of unity
    @test all(basis .>= -1e-15)
end

@testset "splines vanish outside the knots and where x is not a number" begin
    knots, pieces = uniform_knots(5, 3, (-1, 1)), uniform_pieces(3)
    outside = [knots[1] - 1e-9, knots[end] + 1e-9, 1e300, -Inf, Inf, NaN]
    @test iszero(bspline_basis(outside, knots, pieces))
    @test bspline_basis([0.3f0], knots, pieces) isa Matrix{Float32}
end

@testset "slopes are derivatives of the splines" begin
    knots, pieces = uniform_knots(4, 3, (-1, 1)), uniform_pieces(3)
    x = collect(-2.6:0.11:2.6)
    derivative = ForwardDiff.jacobian(x -> vec(sum(bspline_basis(x, knots, pieces) .* (1:7); dims = 1)), x)
    slopes = vec(sum(KanSciML.plain_basis(x, knots, pieces, :zero, 1) .* (1:7); dims = 1))
    @test [derivative[i, i] for i in eachindex(x)] ≈ slopes atol = 1e-12
    _, pullback = KanSciML.ChainRulesCore.rrule(bspline_basis, x, knots, pieces, :zero)
    @test pullback(repeat(1:7, 1, length(x)) .* 1.0)[2] ≈ slopes atol = 1e-12
end
