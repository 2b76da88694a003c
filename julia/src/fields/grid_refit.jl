# Other knots for a spline layer, on which its functions stay. The knots and the least squares are those of the Python
# layer, kansciml.layers.SplineKAN.

const SPREAD = 1e-2        # weight of a sample, over 2S + 2, spread over each new cell: splines stay where no data lie
const MARGIN = 1e-3        # what a grid reaches beyond the samples on each side, in spans of the samples
const NARROWEST = 1e-2     # narrowest cell, in cells of the even grid
const FLOAT32_STEP = 1e-5  # narrowest cell, in magnitudes of the samples
const CONSTANT = 1e-7      # span of an input, in its magnitudes, below which it is rounding alone

"""
    update_grid(layer, ps, st, x; blend = 0.02) -> (ps, st, error)

Parameters and states of a [`SplineKANLayer`](@ref) whose knots are where the inputs `x (in, ...)` are, with
coefficients refitted so that the function stays. `blend`: 0 puts equally many inputs into each interval, 1 spaces the
knots evenly. The ends of the grid lie 0.1 % of the span beyond the inputs.

`error` tells how much the splines' outputs changed at the inputs: `(; max_abs, rms, relative)`.

Throws an `ArgumentError` if an input is not finite or `blend` is out of range, a `DimensionMismatch` for inputs of
another size.
"""
function update_grid(layer::SplineKANLayer, ps, st, x::AbstractArray{<:Real}; blend::Real = 0.02)
    samples = layer_samples(layer, x)
    0 <= blend <= 1 || throw(ArgumentError("got blend $blend: expected 0 (quantiles) to 1 (even grid)"))
    knots = reduce(hcat, adaptive_knots(sort(row), layer.grid, layer.spline_order, blend) for row in eachrow(samples))
    return refit(layer, ps, st, knots, samples)
end

"""
    extend_grid(layer, ps, st, grid; x = nothing) -> (layer, ps, st, error)

The layer with `grid` intervals over the same range: its functions stay exactly where `grid` is a multiple of the
present number, else by least squares over the inputs `x` and the grid. Else as [`update_grid`](@ref).
"""
function extend_grid(layer::SplineKANLayer, ps, st, grid::Integer; x = nothing)
    grid >= layer.grid || throw(ArgumentError("got grid $grid: expected at least $(layer.grid), the present one"))
    samples = isnothing(x) ? nothing : layer_samples(layer, x)
    knots = reduce(hcat, extended_knots(column, layer.spline_order, grid) for column in eachcol(all_knots(layer, st)))
    (; in_dims, out_dims, spline_order, grid_range, base_activation, outside) = layer
    finer = SplineKANLayer(
        in_dims => out_dims; grid, spline_order, grid_range, base_activation, outside, layer.init_weight,
        layer.init_spline, layer.init_scale,
    )
    return finer, refit(layer, ps, st, knots, samples)...
end

function layer_samples(layer, x)
    size(x, 1) == layer.in_dims && length(x) > 0 ||
        throw(DimensionMismatch("got inputs of size $(size(x)): expected ($(layer.in_dims), ...), at least one"))
    all(isfinite, x) || throw(ArgumentError("got inputs that are not finite"))
    return reshape(Array{Float64}(x), layer.in_dims, :)
end

all_knots(layer, st) = st.knots isa AbstractVector ? repeat(Float64.(st.knots), 1, layer.in_dims) : Float64.(st.knots)

# Of sorted samples: (1 - blend) quantiles + blend even, between ends a little beyond them.
function adaptive_knots(ordered, grid, order, blend)
    low, high = ordered[1], ordered[end]
    magnitude, centre = max(abs(low), abs(high)), (low + high) / 2
    is_constant = high - low <= CONSTANT * magnitude
    half = is_constant ? max(magnitude, 1.0) : (0.5 + MARGIN) * (high - low)
    even = 2half / grid
    points = map(range(0, length(ordered) - 1; length = grid + 1)) do at
        below = min(floor(Int, at), length(ordered) - 1)
        left, right = ordered[below + 1], ordered[min(below + 2, end)]
        left + (at - below) * (right - left)
    end
    points[1], points[end] = centre - half, centre + half
    widths = is_constant ? fill(even, grid) : (1 - blend) .* diff(points) .+ blend * even
    narrowest = max(NARROWEST * even, FLOAT32_STEP * magnitude)
    half = max(half, grid * narrowest / 2)
    spare = max.(widths .- narrowest, 0)
    widths = narrowest .+ max(2half - grid * narrowest, 0) .* spare ./ max(sum(spare), floatmin())
    return with_ends([0; cumsum(widths)] .+ (centre - half), order)
end

# Old intervals split evenly if their number divides the new one, else interpolated linearly in the index of the knots.
function extended_knots(knots, order, grid)
    inner = knots[(order + 1):(end - order)]
    old = length(inner) - 1
    return with_ends(
        map(0:grid) do step
            cell, rest = divrem(step * old, grid)
            inner[cell + 1] + rest / grid * (inner[min(cell + 2, end)] - inner[cell + 1])
        end, order
    )
end

# S intervals more on both sides, as wide as the cell next to them.
function with_ends(inner, order)
    left, right = inner[2] - inner[1], inner[end] - inner[end - 1]
    return [inner[1] .- left .* (order:-1:1); inner; inner[end] .+ right .* (1:order)]
end

function refit(layer, ps, st, knots, samples)
    old_knots, weight, scale = all_knots(layer, st), Float64.(ps.spline_weight), Float64.(ps.spline_scale)
    order, inputs = layer.spline_order, layer.in_dims
    new_weight = zeros(layer.out_dims, size(knots, 1) - order - 1, inputs)
    largest, squares, power, count = 0.0, 0.0, 0.0, 0.0
    for i in 1:inputs
        old, new = old_knots[:, i], knots[:, i]
        low, high = new[order + 1], new[end - order]
        points, weights = spread_points(old, new, order)
        if !isnothing(samples)
            row = samples[i, :]
            inside = low .<= row .<= high
            points, weights = [points; row[inside]], [SPREAD * (2order + 2) .* weights; ones(sum(inside))]
        end
        wanted = splines_at(points, old, layer) * weight[:, :, i]'                  # (points, out)
        splines = splines_at(points, new, layer)
        found = (sqrt.(weights) .* splines) \ (sqrt.(weights) .* wanted)            # (G + S, out)
        new_weight[:, :, i] = found'
        at, counts = isnothing(samples) ? (points, weights) : (samples[i, :], ones(size(samples, 2)))
        before = splines_at(at, old, layer) * weight[:, :, i]' .* scale[:, i]'
        change = splines_at(at, new, layer) * found .* scale[:, i]' .- before
        largest = max(largest, maximum(abs, change))
        squares += sum(counts .* abs2.(change))
        power += sum(counts .* abs2.(before))
        count += sum(counts) * layer.out_dims
    end
    rms, was = sqrt(squares / count), sqrt(power / count)
    error = (; max_abs = largest, rms, relative = rms == 0 ? 0.0 : rms / was)
    parameters = (; ps.base_weight, spline_weight = eltype(ps.spline_weight).(new_weight), ps.spline_scale)
    return parameters, (; knots, pieces = knot_pieces(knots, order)), error
end

splines_at(points, knots, (; spline_order, outside)) =
    permutedims(bspline_basis(points, knots, knot_pieces(reshape(knots, :, 1), spline_order), outside))

# Points and weights for which sums of polynomials of degree 2S over them are means over each new interval.
function spread_points(old, new, order)
    inner = new[(order + 1):(end - order)]
    breaks = sort!(unique([inner; filter(t -> inner[1] < t < inner[end], old)]))
    nodes, shares = gauss_rule(order + 1)
    points, weights = Float64[], Float64[]
    for (left, right) in zip(breaks[1:(end - 1)], breaks[2:end])
        interval = searchsortedlast(inner, left)
        share = (right - left) / (inner[interval + 1] - inner[interval])
        append!(points, left .+ (right - left) .* nodes)
        append!(weights, share .* shares)
    end
    return points, weights
end

# Gauss-Legendre nodes and weights on [0, 1], by the eigenvalues of the Jacobi matrix (Golub & Welsch 1969).
function gauss_rule(count)
    values, vectors = eigen(SymTridiagonal(zeros(count), [k / sqrt(4k^2 - 1) for k in 1:(count - 1)]))
    return (values .+ 1) ./ 2, vectors[1, :] .^ 2
end
