using Tracker, Zygote

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
    @test all(y[:, a, b] ≈ kan_layer(x[:, a, b], ps, st.knots[:, 1], order) for a in 1:2, b in 1:5)
    @test layer(x[:, 1, 1], ps, st)[1] ≈ y[:, 1, 1]
end

@testset "the grid is in the states" begin
    narrow = SplineKANLayer(1 => 1; grid_range = (-1, 1))
    wide = SplineKANLayer(1 => 1; grid_range = (-3, 3))
    ps = Lux.f64(first(Lux.setup(Xoshiro(0), narrow)))
    st, unmoved = Lux.initialstates(Xoshiro(0), wide), Lux.initialstates(Xoshiro(0), narrow)
    @test narrow([2.0], ps, st)[1] == wide([2.0], ps, st)[1] != narrow([2.0], ps, unmoved)[1]
end

# An array as one of a GPU or of a tracer: it is sliced, reshaped, multiplied and broadcast as a whole; a single number
# is neither read nor written.
struct Device{T,N} <: AbstractArray{T,N}
    values::Array{T,N}
end
on_device(array::AbstractArray) = Device(collect(array))
on_device(tree::NamedTuple) = map(on_device, tree)
const Whole = Union{Colon,AbstractRange}
Base.size(array::Device) = size(array.values)
Base.getindex(array::Device, places::Whole...) = Device(array.values[places...])
Base.getindex(::Device, ::Int...) = error("a single number of an array on a device was read")
Base.reshape(array::Device, dims::Dims) = Device(reshape(array.values, dims))
Base.:*(a::Device{<:Any,2}, b::Device{<:Any,2}) = Device(a.values * b.values)
Base.BroadcastStyle(::Type{<:Device}) = Broadcast.ArrayStyle{Device}()
plain(x) = x
plain(array::Device) = array.values
plain(tree::Broadcast.Broadcasted) = Broadcast.broadcasted(tree.f, map(plain, tree.args)...)
Base.copy(tree::Broadcast.Broadcasted{Broadcast.ArrayStyle{Device}}) = Device(copy(Broadcast.instantiate(plain(tree))))

@testset "knots anywhere, and the way without mutation: order $order" for order in (1, 2, 3, 5)
    rng = Xoshiro(4)
    uniform = repeat(uniform_knots(4, order, (-0.7, 1.1)), 1, 3)
    uneven = cumsum(0.1 .+ rand(rng, size(uniform)...); dims = 1) .- [2.0 3.0 1.0]
    x = [2.5 .* randn(rng, 3, 40) uneven[[1, 3, 4], 1:3]]
    for (knots, pieces) in ((uniform, uniform_pieces(order)), (uneven, KanSciML.knot_pieces(uneven, order)))
        expected = stack([stack([de_boor(x[i, b], knots[:, i], order) for i in 1:3]) for b in axes(x, 2)])
        @test bspline_basis(x, knots, pieces) ≈ expected atol = 1e-12
        @test plain(bspline_basis(Device(x), Device(knots), Device(pieces))) ≈ expected atol = 1e-12
        @test bspline_basis(Float32.(x[:, 1:40]), knots, pieces) isa Array{Float32,3}
        weights = randn(rng, size(expected)...)
        slopes = KanSciML.weighted_basis(x, knots, pieces, :zero, 1, weights)
        along = ForwardDiff.derivative(e -> sum(weights .* bspline_basis(x .+ e, knots, pieces)), 0.0)
        @test sum(slopes) ≈ along rtol = 1e-9
    end
end

@testset "splines outside the grid, $outside: order $order" for outside in (:clamp, :linear), order in (1, 2, 3, 5)
    rng = Xoshiro(4)
    uniform = uniform_knots(4, order, (-0.7, 1.1))
    uneven = cumsum(0.1 .+ rand(rng, length(uniform))) .- 2
    for (t, pieces) in ((uniform, uniform_pieces(order)), (uneven, KanSciML.knot_pieces(reshape(uneven, :, 1), order)))
        low, high = t[order + 1], t[end - order]
        x = [4 .* randn(rng, 1, 30) low high 1e3 -1e3]
        ends = (low, high - 1e-14)                            # hats have a corner at the end
        slopes = [ForwardDiff.derivative(x -> de_boor(x, t, order), at) for at in ends]
        expected = stack(vec(x)) do x
            at = clamp(x, ends...)
            de_boor(at, t, order) .+ (outside === :linear) .* (x - at) .* slopes[1 + (x > low)]
        end
        basis = bspline_basis(x, reshape(t, :, 1), pieces, outside)
        @test basis[:, 1, :] ≈ expected rtol = 1e-12
        on = on_device((; x, knots = reshape(t, :, 1), pieces))
        @test plain(bspline_basis(on.x, on.knots, on.pieces, outside)) ≈ basis rtol = 1e-12
        @test bspline_basis(vec(x), t, pieces, outside) == basis[:, 1, :]
    end
    @test iszero(bspline_basis([NaN;;], reshape(uniform, :, 1), uniform_pieces(order), :clamp))
end

@testset "a layer and a field run on a device: $outside" for outside in KanSciML.OUTSIDE
    layer = SplineKANLayer(2 => 3; grid = 4, outside)
    ps, st = Lux.f64(Lux.setup(Xoshiro(0), layer))
    _, uneven, _ = update_grid(layer, ps, st, randn(Xoshiro(1), 2, 30))
    x = randn(Xoshiro(2), 2, 3, 4)
    for st in (st, uneven)
        y = layer(on_device(x), on_device(ps), on_device(st))[1]
        @test y isa Device
        @test plain(y) ≈ layer(x, ps, st)[1] rtol = 1e-12
    end
    field = kan_field([2, 3, 2]; outside, squash = true, input_power = 3, scale = [1.0, 0.5])
    ps, st = Lux.f64(Lux.setup(Xoshiro(0), field))
    y = field(on_device(x), on_device(ps), on_device(st))[1]
    @test y isa Device
    @test plain(y) ≈ field(x, ps, st)[1] rtol = 1e-12
    @test occursin("outside=", string(field)) == occursin("outside=", string(layer)) == (outside !== :zero)
end

@testset "derivatives of derivatives: $outside" for outside in (:zero, :linear)
    layer = SplineKANLayer(2 => 2; grid = 4, outside)
    ps, st = Lux.f64(Lux.setup(Xoshiro(0), layer))
    _, uneven, _ = update_grid(layer, ps, st, randn(Xoshiro(1), 2, 30))
    u = [0.3 -0.2 0.7; 0.1 3.6 -0.4]                         # not on knots
    for st in (st, uneven)
        loss(u) = sum(abs2, layer(u, ps, st)[1])
        gradient = ForwardDiff.gradient(loss, u)
        @test Zygote.gradient(loss, u)[1] ≈ gradient rtol = 1e-12
    end
    # Second ones of the splines alone: of a whole layer they take minutes to compile. First ones are quadratic, so that
    # central differences are exact.
    weights, v = randn(Xoshiro(2), 7, 2, 3), [1.0 2 -1; 0.5 -2 1]
    splines(u, st) = sum(weights .* bspline_basis(u, st.knots, st.pieces, outside))
    slopes(u, st) = Zygote.gradient(splines, u, st)[1]
    along(st) = (slopes(u .+ 1e-3 .* v, st) .- slopes(u .- 1e-3 .* v, st)) ./ 2e-3
    @test Zygote.gradient(u -> sum(v .* slopes(u, st)), u)[1] ≈ along(st) rtol = 1e-9
    @test ForwardDiff.derivative(e -> slopes(u .+ e .* v, uneven), 0.0) ≈ along(uneven) rtol = 1e-9
end

@testset "Tracker: $outside" for outside in (:zero, :linear)
    layer = SplineKANLayer(2 => 2; grid = 4, outside)
    ps, st = Lux.f64(Lux.setup(Xoshiro(0), layer))
    _, uneven, _ = update_grid(layer, ps, st, randn(Xoshiro(1), 2, 30))
    u = [0.3 -0.2 0.7; 0.1 0.6 -0.5]
    for st in (st, uneven)
        loss(u) = sum(abs2, layer(u, ps, st)[1])
        @test Tracker.data(Tracker.gradient(loss, u)[1]) ≈ ForwardDiff.gradient(loss, u) rtol = 1e-12
    end
end

@testset "parameters are drawn as they are asked for, and set the type" begin
    zero_splines(rng, dims...) = zeros(Float32, dims...)
    layer = SplineKANLayer(2 => 3; base_activation = tanh, init_spline = zero_splines, init_scale = Lux.zeros32)
    ps, st = Lux.setup(Xoshiro(0), layer)
    @test iszero(ps.spline_weight) && iszero(ps.spline_scale)
    x = randn(Xoshiro(1), Float32, 2, 5)
    y, _ = layer(x, ps, st)
    @test y isa Matrix{Float32} && y ≈ ps.base_weight * tanh.(x)
    ps, st = Lux.setup(Xoshiro(0), SplineKANLayer(2 => 3))
    @test layer(x, ps, Lux.f32(st))[1] ≈ layer(x, ps, st)[1] rtol = 1e-5
end

@testset "bad sizes are errors" begin
    @test_throws ArgumentError SplineKANLayer(0 => 1)
    @test_throws ArgumentError SplineKANLayer(1 => 1; grid = 0)
    @test_throws ArgumentError SplineKANLayer(1 => 1; grid_range = (1, -1))
    layer = SplineKANLayer(2 => 3)
    ps, st = Lux.setup(Xoshiro(0), layer)
    @test_throws DimensionMismatch layer(ones(3), ps, st)
    @test_throws "expected two finite numbers" SplineKANLayer(1 => 1; grid_range = (0, Inf))
    @test_throws "expected one of zero, clamp, linear" SplineKANLayer(2 => 3; outside = :wrap)
    @test_throws "expected one of zero, clamp, linear" kan_field([2, 2]; outside = :wrap)
    @test_throws "takes no outside" mlp_field([2, 5, 2]; outside = :clamp)
    @test_throws "takes no activation" kan_field([2, 5, 2]; activation = :tanh)
    @test_throws "takes no grid" mlp_field([2, 5, 2]; grid = 5)
    @test_throws "scale" mlp_field([2, 5, 2]; scale = [1.0, 0.0])
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
