# Other knots for a spline layer, and what it does outside its grid. The numbers are those that the Python layer,
# SplineKAN, gives for the same coefficients sin(1 + i + 2p + 3o), i, p, o from 0, and the same inputs.

using Zygote

function grid_layer(order; options...)
    layer = SplineKANLayer(2 => 2; grid = 4, spline_order = order, options...)
    ps, st = Lux.f64(Lux.setup(Xoshiro(0), layer))
    coefficients = [sin(1 + i + 2p + 3o) for o in 0:1, p in 0:(3 + order), i in 0:1]
    return layer, merge(ps, (; spline_weight = coefficients, spline_scale = [1.0 2.0; 0.5 -1.0])), st
end

const GRID_INPUTS = [0.8cos(0.7n + i) + 0.1i for i in 0:1, n in 0:39]

# As the Python layer has them: (in, G + S, out).
as_in_python(ps, places) = permutedims(ps.spline_weight, (3, 2, 1))[:, places, :]

@testset "knots follow the inputs" begin
    layer, ps, st = grid_layer(3)
    moved, moved_st, error = update_grid(layer, ps, st, GRID_INPUTS)
    @test moved_st.knots[:, 1] ≈ [
        -1.7857531203414987, -1.4464681390830303, -1.1071831578245621, -0.7678981765660938, -0.4286131953076256,
        0.11406022500910018, 0.601387598356463, 0.8015663318447211, 1.0017450653329791, 1.2019237988212375,
        1.4021025323094953,
    ] rtol = 1e-12
    @test moved_st.knots[4:8, 2] ≈ [-0.7015347953877182, -0.5058205837866734, -0.02715202673409745, 0.5118602272379724,
        0.8617462342750699] rtol = 1e-12
    @test as_in_python(moved, 1:3:7)[:, :, 1] ≈ [
        0.7395537231587919 0.8345531938270128 -0.6694833773525635
        -0.5953971983395698 1.009456502427573 0.08935484831882123
    ] rtol = 1e-9
    @test as_in_python(moved, 1:3:7)[:, :, 2] ≈ [
        -0.8035549772750773 -0.7562746133626022 0.6127542491279091
        0.5660002968335964 -1.015283573149486 0.00707510461752936
    ] rtol = 1e-9
    @test error.rms ≈ 0.0018807309853336328 rtol = 1e-9
    @test error.relative ≈ 0.003954450196620465 rtol = 1e-9
    before, after = layer(GRID_INPUTS, ps, st)[1], layer(GRID_INPUTS, moved, moved_st)[1]
    @test maximum(abs, after .- before) <= 2error.max_abs
    @test update_grid(layer, Lux.f32(ps), st, GRID_INPUTS)[1].spline_weight isa Array{Float32}
end

@testset "a finer grid: order $order" for (order, grid, x, row) in (
    (3, 7, nothing, [0.4605605441405227, 0.14988358524986384, -0.7036744755775939]),
    (2, 6, GRID_INPUTS, [0.5485020531274406, -0.7460112874507678, 0.1738784132650119]),
)
    layer, ps, st = grid_layer(order)
    finer, finer_ps, finer_st, error = extend_grid(layer, ps, st, grid; x)
    @test finer.grid == grid && finer.base_activation === layer.base_activation
    @test as_in_python(finer_ps, 1:(order + 1):(grid + order))[1, :, 1] ≈ row rtol = 1e-9
    @test error.relative ≈ (order == 3 ? 0.008303212188705701 : 0.015085077980503342) rtol = 1e-8
    twice, twice_ps, twice_st, error = extend_grid(layer, ps, st, 8)
    inside = collect(-0.99:0.03:0.99)' .* ones(2)
    @test twice(inside, twice_ps, twice_st)[1] ≈ layer(inside, ps, st)[1] rtol = 1e-12
    @test error.relative < 1e-12
end

# Outputs at GRID_PLACES without the base branch, and the gradient of the first plus twice the second.
const GRID_PLACES = [-1.7 1.3 0.3; 0.4 -2.5 1.1]

@testset "outside the grid the layer is Python's: $outside, order $order" for (outside, order, outputs, gradient) in (
    (
        :clamp, 3,
        [-0.1446905280472731 -1.3270552348907219 -0.11837171511202782
         -0.11212101997075298 -0.08536066856613067 -0.5775233241172727],
        [0.0 0.0 -0.2967506704462921; -7.867886972785845 0.0 0.0],
    ), (
        :clamp, 1,
        [2.312677980125737 2.2307133388931204 -1.0774199724127187
         0.3391672205382471 0.6906378156629209 -0.38550172076877426],
        [0.0 0.0 0.1650630317383519; 10.723529746459072 0.0 0.0],
    ), (
        :linear, 3,
        [1.1155861535824514 2.2414981056585663 0.18855397820482045
         -0.7232772796467114 2.0085039114915175 -0.43936687124665275],
        [-0.05423451753972497 0.25671815292025396 -0.2967506704462921
         -7.867886972785845 -5.119511369859005 5.8323859905808755],
    ), (
        :linear, 1,
        [3.2931693475729773 12.08039200360856 -1.69077171541782
         0.004996322561945599 5.5406048936753844 -0.6695331694442435],
        [-0.4459279592780539 -0.47483984117619527 0.1650630317383519
         10.723529746459072 -13.12804318206215 -11.814146403560384],
    ),
)
    layer, ps, st = grid_layer(order; outside)
    ps = merge(ps, (; base_weight = zeros(2, 2)))
    loss(x) = sum([1.0 2.0] * layer(x, ps, st)[1])
    @test layer(GRID_PLACES, ps, st)[1] ≈ outputs rtol = 1e-12
    @test Zygote.gradient(loss, GRID_PLACES)[1] ≈ gradient rtol = 1e-12
    @test ForwardDiff.gradient(loss, GRID_PLACES) ≈ gradient rtol = 1e-12
    @test central(x -> loss(reshape(x, 2, 3)), vec(GRID_PLACES), 1e-6) ≈ vec(gradient) rtol = 1e-7
end

@testset "other knots keep what splines do outside: $outside" for (outside, rms, rows, finer_change) in (
    (
        :clamp, 0.028282316196181847,
        [-5.030199493245536 1.464893095599571 -1.3823612314017129
         -1.7327421244455241 1.4354785401910068 -3.4216232320220485], 0.014106762926686897,
    ), (
        :linear, 0.020881272837112948,
        [-1.11554905989771 1.5445119249696098 -1.593909755617186
         -0.9302465700576189 1.7182908002447042 -1.6010502671484796], 0.07682350178163608,
    ),
)
    layer, ps, st = grid_layer(3; outside)
    moved, _, error = update_grid(layer, ps, st, 2GRID_INPUTS)
    @test as_in_python(moved, 1:3:7)[:, :, 1] ≈ rows rtol = 1e-9
    @test error.rms ≈ rms rtol = 1e-9
    finer, finer_ps, _, error = extend_grid(grid_layer(2; outside)..., 6; x = 2GRID_INPUTS)
    @test finer.outside === outside
    @test error.relative ≈ finer_change rtol = 1e-9
    @test as_in_python(finer_ps, 1:3:7)[1, :, 1] ≈
        [0.6606461370621112, -0.73177628896557, 0.15689367239136046] rtol = 1e-9
end

@testset "constant inputs, and inputs in few places" begin
    layer, ps, st = grid_layer(3)
    x = [fill(0.3, 1, 20); repeat([-0.5 0.5], 1, 10)]
    moved, moved_st, _ = update_grid(layer, ps, st, x; blend = 0)
    @test moved_st.knots[[4, 8], 1] ≈ [-0.7, 1.3]
    @test all(diff(moved_st.knots; dims = 1) .> 0)
    @test all(isfinite, moved.spline_weight)
end

@testset "what is no grid is told" begin
    layer, ps, st = grid_layer(3)
    @test_throws "expected at least 4" extend_grid(layer, ps, st, 3)
    @test_throws "not finite" update_grid(layer, ps, st, [1.0 NaN; 1 2])
    @test_throws DimensionMismatch update_grid(layer, ps, st, ones(3, 4))
    @test_throws "blend" update_grid(layer, ps, st, GRID_INPUTS; blend = 2)
end
