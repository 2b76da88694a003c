# Uniform B-splines in closed form, for any order: on a uniform grid every cell sees the same S + 1 polynomials in the
# local coordinate r in [0, 1), so a basis is one small matrix and not a recursion.

"""
    uniform_knots(grid, spline_order, grid_range)

The `grid + 2spline_order + 1` knots: `grid` intervals over `grid_range`, extended by `spline_order` intervals on both
sides.
"""
function uniform_knots(grid::Integer, spline_order::Integer, grid_range)
    low, high = Float64.(grid_range)
    return collect(low .+ (high - low) / grid .* (-spline_order:(grid + spline_order)))
end

"""
    uniform_pieces(spline_order)

Matrix `(S + 1, S + 1)`: column `q + 1` holds the coefficients in r, lowest power first, of the q-th non-zero B-spline
of a cell. Cell `e`, counted from the first knot, holds the splines `e - S, ..., e`; the q-th is `e - S + q`.
"""
function uniform_pieces(spline_order::Integer)
    pieces = cardinal_pieces(spline_order)
    # The first non-zero spline of a cell is in its last piece there.
    return Float64[pieces[spline_order + 1 - q][p + 1] for p in 0:spline_order, q in 0:spline_order]
end

# Polynomials in r = x - q of the cardinal B-spline N_S on [q, q + 1), q = 0, ..., S, exactly, from
# S N_S(x) = x N_{S-1}(x) + (S + 1 - x) N_{S-1}(x - 1).
function cardinal_pieces(order::Integer)
    order == 0 && return [[big(1) // 1]]
    lower = cardinal_pieces(order - 1)
    none = fill(big(0) // 1, order)
    return map(0:order) do q
        left = q < order ? lower[q + 1] : none
        right = q > 0 ? lower[q] : none
        piece = fill(big(0) // 1, order + 1)
        for p in 1:order
            piece[p] += (q * left[p] + (order + 1 - q) * right[p]) / order
            piece[p + 1] += (left[p] - right[p]) / order
        end
        piece
    end
end

# Value at r of the q-th polynomial (column q + 1), and its slope.
@inline function piece_value(pieces, q, r)
    value = pieces[end, q + 1] * one(r)
    for p in (size(pieces, 1) - 1):-1:1
        value = muladd(value, r, pieces[p, q + 1])
    end
    return value
end

@inline function piece_slope(pieces, q, r)
    order = size(pieces, 1) - 1
    slope = order * pieces[order + 1, q + 1] * one(r)
    for p in order:-1:2
        slope = muladd(slope, r, (p - 1) * pieces[p, q + 1])
    end
    return slope
end

# Index of the cell at position u >= 0, in cells from the first knot.
@inline cell_index(u::Union{Float64,Float32}) = unsafe_trunc(Int, u)
@inline cell_index(u::Real) = floor(Int, u)

"""
    bspline_basis(x, knots, pieces)

The `G + S` B-splines at every entry of `x`: an array of size `(G + S, size(x)...)`. `knots` are uniform (see
[`uniform_knots`](@ref)), `pieces` come from [`uniform_pieces`](@ref). Zero outside the knots; at a knot the cell to its
right counts, as in the recursion of Cox and de Boor on half-open intervals.
"""
function bspline_basis(x::AbstractArray{<:Real}, knots, pieces)
    return fill_basis!(piece_value, basis_array(x, knots, pieces), x, knots, pieces, 1.0)
end

function bspline_slopes(x::AbstractArray{<:Real}, knots, pieces)
    per_cell = (length(knots) - 1) / (knots[end] - knots[1])
    return fill_basis!(piece_slope, basis_array(x, knots, pieces), x, knots, pieces, per_cell)
end

basis_array(x, knots, pieces) = zeros(eltype(x), length(knots) - size(pieces, 1), size(x)...)

function fill_basis!(value::F, basis, x, knots, pieces, factor) where {F}
    order, cells = size(pieces, 1) - 1, length(knots) - 1
    first_knot, per_cell = knots[1], cells / (knots[end] - knots[1])
    columns = reshape(basis, cells - order, :)
    for (column, position) in enumerate(x)
        u = (position - first_knot) * per_cell
        0 <= u < cells || continue
        cell = cell_index(u)
        r = u - cell
        for q in max(0, order - cell):min(order, cells - 1 - cell)
            columns[cell - order + q + 1, column] = factor * value(pieces, q, r)
        end
    end
    return basis
end

function ChainRulesCore.rrule(::typeof(bspline_basis), x::AbstractArray{<:Real}, knots, pieces)
    project = ProjectTo(x)
    function bspline_basis_pullback(cotangent)
        weighted = bspline_slopes(x, knots, pieces) .* unthunk(cotangent)
        gradient = reshape(sum(weighted; dims = 1), size(x))
        return NoTangent(), project(gradient), NoTangent(), NoTangent()
    end
    return bspline_basis(x, knots, pieces), bspline_basis_pullback
end
