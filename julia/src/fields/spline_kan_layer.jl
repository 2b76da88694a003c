@doc raw"""
    SplineKANLayer(in => out; grid = 5, spline_order = 3, grid_range = (-1, 1), base_activation = swish,
                   outside = :zero, init_weight = glorot_uniform, init_spline, init_scale = ones32)

Kolmogorov-Arnold layer with a learnable univariate function on every edge (Liu et al. 2024; Pal & Das 2024,
section 3):

```math
y_o = \sum_i w_{oi}\,\mathrm{act}(x_i) + s_{oi} \sum_{m=1}^{G+S} c_{omi} B_m(x_i)
```

## Arguments

  - `in`, `out`: number of inputs and outputs, at least 1.
  - `grid`: number of grid intervals G.
  - `spline_order`: polynomial order S (3: cubic).
  - `grid_range`: interval that the grid covers.
  - `base_activation`: function of one number (default: SiLU).
  - `outside`: the splines outside the grid: `:zero` (they fade to zero over S knots, and only the base branch is left),
    `:clamp` (they keep their value at its end) or `:linear` (they go on straight).
  - `init_weight`, `init_spline`, `init_scale`: functions of `(rng, dims...)` that draw the parameters below.

## Input and output

Array `(in, ...)`, array `(out, ...)`. It computes in the floating-point type of the input. Arrays of a GPU or of a tape
take a way without mutation, see [`KanSciML.bspline_basis`](@ref).

## Parameters

  - `base_weight`: w, `(out, in)`; by default Glorot-uniform.
  - `spline_weight`: c, `(out, G + S, in)`; by default normal with standard deviation `0.1 / sqrt(in)`.
  - `spline_scale`: s, `(out, in)`; by default ones.

In all `in * out * (2 + G + S)`, as the paper counts them.

## States

  - `knots (G + 2S + 1, in)`: at first uniform, see [`update_grid`](@ref) and [`extend_grid`](@ref). Float64, so that
    they are exact whatever the parameters are.
  - `pieces`: coefficients of the splines in their cells; of uniform knots they depend on the order only.
"""
@concrete struct SplineKANLayer <: AbstractLuxLayer
    in_dims <: Int
    out_dims <: Int
    grid <: Int
    spline_order <: Int
    grid_range <: Tuple{Float64,Float64}
    base_activation
    outside <: Symbol
    init_weight
    init_spline
    init_scale
end

function SplineKANLayer(
    mapping::Pair{<:Integer,<:Integer};
    grid::Integer = 5,
    spline_order::Integer = 3,
    grid_range = (-1, 1),
    base_activation = swish,
    outside::Symbol = :zero,
    init_weight = glorot_uniform,
    init_spline = small_normal,
    init_scale = ones32,
)
    n_in, n_out = mapping
    if min(n_in, n_out, grid, spline_order) < 1
        throw(ArgumentError("got $mapping, grid $grid, spline_order $spline_order: expected each to be at least 1"))
    end
    low, high = grid_range
    isfinite(low) && isfinite(high) && low < high ||
        throw(ArgumentError("got grid_range $grid_range: expected two finite numbers, the lower first"))
    range = (Float64(low), Float64(high))
    return SplineKANLayer(
        Int(n_in), Int(n_out), Int(grid), Int(spline_order), range, base_activation, checked_outside(outside),
        init_weight, init_spline, init_scale,
    )
end

function checked_outside(outside)
    outside in OUTSIDE || throw(ArgumentError("got outside $outside: expected one of $(join(OUTSIDE, ", "))"))
    return outside
end

small_normal(rng, n_out, n_basis, n_in) = 0.1f0 / sqrt(Float32(n_in)) .* randn(rng, Float32, n_out, n_basis, n_in)

function Base.show(io::IO, l::SplineKANLayer)
    print(io, "SplineKANLayer($(l.in_dims) => $(l.out_dims), grid=$(l.grid), spline_order=$(l.spline_order), ")
    return print(io, "grid_range=$(l.grid_range)$(shown_outside(l.outside)))")
end

shown_outside(outside) = outside === :zero ? "" : ", outside=$outside"

function LuxCore.initialparameters(rng::AbstractRNG, l::SplineKANLayer)
    return (
        base_weight = l.init_weight(rng, l.out_dims, l.in_dims),
        spline_weight = l.init_spline(rng, l.out_dims, l.grid + l.spline_order, l.in_dims),
        spline_scale = l.init_scale(rng, l.out_dims, l.in_dims),
    )
end

function LuxCore.initialstates(::AbstractRNG, l::SplineKANLayer)
    return (
        knots = repeat(uniform_knots(l.grid, l.spline_order, l.grid_range), 1, l.in_dims),
        pieces = uniform_pieces(l.spline_order),
    )
end

LuxCore.parameterlength(l::SplineKANLayer) = l.in_dims * l.out_dims * (2 + l.grid + l.spline_order)
LuxCore.statelength(l::SplineKANLayer) = (l.grid + 2l.spline_order + 1) * l.in_dims + (l.spline_order + 1)^2
LuxCore.outputsize(l::SplineKANLayer, x::AbstractArray, ::AbstractRNG) = (l.out_dims, size(x)[2:(end - 1)]...)

function (l::SplineKANLayer)(x::AbstractArray, ps, st::NamedTuple)
    n_in, n_out = l.in_dims, l.out_dims
    if size(x, 1) != n_in
        throw(DimensionMismatch("got an input of size $(size(x)): expected ($n_in, ...)"))
    end
    columns = reshape(x, n_in, :)                                             # (I, B)
    basis = bspline_basis(columns, st.knots, st.pieces, l.outside)            # (M, I, B), M = G + S
    spline = ps.spline_weight .* reshape(ps.spline_scale, n_out, 1, n_in)     # (O, M, I)
    y = ps.base_weight * l.base_activation.(columns) .+ reshape(spline, n_out, :) * reshape(basis, :, size(columns, 2))
    return reshape(y, n_out, Base.tail(size(x))...), st
end
