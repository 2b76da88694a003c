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

# Numbers in memory, and dual numbers.
const PlainArray = StridedArray{<:Union{Base.IEEEFloat,ForwardDiff.Dual}}

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

# Polynomials of the splines on any knots (K, I), as `uniform_pieces` has them, for every cell and input:
# (S + 1, S + 1, K - 1, I). Splines that the grid lacks are zero.
function knot_pieces(knots::AbstractMatrix, order::Integer)
    count, inputs = size(knots)
    pieces = zeros(order + 1, order + 1, count - 1, inputs)
    for i in 1:inputs, cell in 1:(count - 1)
        t = view(knots, :, i)
        start, width = t[cell], t[cell + 1] - t[cell]
        lower = Dict(cell => [1.0])
        for k in 1:order
            higher = empty(lower)
            for j in max(1, cell - k):min(cell, count - 1 - k)
                spline = zeros(k + 1)
                # a + b r times the polynomial of lower order
                for (left, a, b, span) in (
                    (j, start - t[j], width, t[j + k] - t[j]),
                    (j + 1, t[j + k + 1] - start, -width, t[j + k + 1] - t[j + 1]),
                )
                    haskey(lower, left) || continue
                    spline[1:k] .+= (a / span) .* lower[left]
                    spline[2:(k + 1)] .+= (b / span) .* lower[left]
                end
                higher[j] = spline
            end
            lower = higher
        end
        for (j, spline) in lower
            pieces[:, j - cell + order + 1, cell, i] = spline
        end
    end
    return pieces
end

# The polynomials of the derivatives of that order by r.
function derived(pieces, derivative::Int)
    derivative == 0 && return pieces
    slopes = zero(pieces)
    for p in 1:(size(pieces, 1) - 1)
        selectdim(slopes, 1, p) .= p .* selectdim(pieces, 1, p + 1)
    end
    return derived(slopes, derivative - 1)
end

# What splines do outside the grid, as the Python layer names it.
const OUTSIDE = (:zero, :clamp, :linear)

"""
    bspline_basis(x, knots, pieces, outside = :zero)

The `G + S` B-splines at every entry of `x`: an array of size `(G + S, size(x)...)`. Uniform `knots (K,)` are those of
every entry, `knots (K, I)` those of every entry along the first axis of `x (I, ...)`. `pieces (S + 1, S + 1)` of
uniform knots come from [`uniform_pieces`](@ref), those `(S + 1, S + 1, K - 1, I)` of others from `knot_pieces`. At a
knot the cell to its right counts, as in the recursion of Cox and de Boor on half-open intervals.

`outside` the grid of G cells, `:zero` lets the splines fade to zero over S knots, `:clamp` keeps their value at its
end, `:linear` goes on straight. With the latter two, the right end of the grid belongs to its last cell.

Arrays of numbers in memory are read cell by cell, and derivatives of any order are written out. Others, of a GPU or of
a tape, go through broadcasts without mutation.
"""
bspline_basis(x::AbstractArray, knots, pieces) = bspline_basis(x, knots, pieces, :zero)

bspline_basis(x::PlainArray, knots, pieces, outside::Symbol) = plain_basis(x, knots, pieces, outside, 0)

# The derivatives of that order of the splines.
function plain_basis(x, knots, pieces, outside::Symbol, derivative::Int)
    knots, pieces = in_type_of(x, knots), derived(in_type_of(x, pieces), derivative)
    order, cells = size(pieces, 1) - 1, size(knots, 1) - 1
    basis = zeros(eltype(x), cells - order, size(x)...)
    columns = reshape(basis, cells - order, :)
    for (column, position) in enumerate(x)
        i = mod1(column, size(knots, 2))
        cell, r, per_unit, beyond = locate(knots, pieces, i, position, outside)
        cell < 0 && continue
        factor, own = per_unit^derivative, pieces_of(pieces, cell, i)
        for q in max(0, order - cell):min(order, cells - 1 - cell)
            value = spline_derivative(own, q, r, factor, beyond * per_unit, outside, derivative)
            @inbounds columns[cell - order + q + 1, column] = value
        end
    end
    return basis
end

# The products of the derivatives of that order with weights of the same size, summed over the splines.
function weighted_basis(x, knots, pieces, outside::Symbol, derivative::Int, weights)
    knots, pieces = in_type_of(x, knots), derived(in_type_of(x, pieces), derivative)
    order, cells = size(pieces, 1) - 1, size(knots, 1) - 1
    columns = reshape(weights, cells - order, :)
    sums = similar(x, promote_type(eltype(x), eltype(weights)))
    for (column, position) in enumerate(x)
        i = mod1(column, size(knots, 2))
        cell, r, per_unit, beyond = locate(knots, pieces, i, position, outside)
        total = zero(eltype(sums))
        if cell >= 0
            factor, own = per_unit^derivative, pieces_of(pieces, cell, i)
            for q in max(0, order - cell):min(order, cells - 1 - cell)
                @inbounds weight = columns[cell - order + q + 1, column]
                value = spline_derivative(own, q, r, factor, beyond * per_unit, outside, derivative)
                total = muladd(weight, value, total)
            end
        end
        sums[column] = total
    end
    return sums
end

# Of `pieces` that are derived as often; r and `beyond` are in cells.
@inline function spline_derivative(pieces, q, r, factor, beyond, outside, derivative)
    value = factor * piece_value(pieces, q, r)
    iszero(beyond) && return value
    outside === :linear && derivative == 0 && return muladd(beyond, piece_slope(pieces, q, r), value)
    return derivative > (outside === :linear) ? zero(value) : value
end

# Cell of input i that x lies in, the place in it, cells per unit there, and how far x is beyond the grid. The cell is
# -1 where all splines are zero, and where x is not a number.
@inline function locate(knots, pieces, i, x, outside)
    cells, margin = size(knots, 1) - 1, outside === :zero ? 0 : size(pieces, 1) - 1
    @inbounds low, high = knots[margin + 1, i], knots[cells + 1 - margin, i]
    is_there = outside === :zero ? low <= x < high : !isnan(x)
    is_there || return -1, zero(x), one(low), zero(x)
    at = clamp(x, low, high)
    return place(knots, pieces, i, at, margin, cells - 1 - margin)..., x - at
end

@inline function place(knots, ::AbstractMatrix, i, x, first_cell, last_cell)
    cells = size(knots, 1) - 1
    @inbounds first_knot, last_knot = knots[1, i], knots[cells + 1, i]
    per_cell = cells / (last_knot - first_knot)
    u = (x - first_knot) * per_cell
    cell = clamp(cell_index(u), first_cell, last_cell)
    return cell, u - cell, per_cell
end

@inline function place(knots, ::AbstractArray{<:Any,4}, i, x, first_cell, last_cell)
    t = view(knots, :, i)
    cell = clamp(searchsortedlast(t, x) - 1, first_cell, last_cell)
    per_cell = 1 / (t[cell + 2] - t[cell + 1])
    return cell, (x - t[cell + 1]) * per_cell, per_cell
end

@inline pieces_of(pieces::AbstractMatrix, cell, i) = pieces
@inline pieces_of(pieces, cell, i) = view(pieces, :, :, cell + 1, min(i, size(pieces, 4)))

function ChainRulesCore.rrule(::typeof(bspline_basis), x::PlainArray, knots, pieces, outside::Symbol)
    basis, pullback = ChainRulesCore.rrule(plain_basis, x, knots, pieces, outside, 0)
    return basis, cotangent -> pullback(cotangent)[1:5]
end

# Of what is no parameter.
const CONSTANTS = ntuple(_ -> NoTangent(), 4)

function ChainRulesCore.rrule(::typeof(plain_basis), x, knots, pieces, outside::Symbol, derivative::Int)
    project = ProjectTo(x)
    function basis_pullback(cotangent)
        by_x = weighted_basis(x, knots, pieces, outside, derivative + 1, unthunk(cotangent))
        return NoTangent(), project(by_x), CONSTANTS...
    end
    return plain_basis(x, knots, pieces, outside, derivative), basis_pullback
end

function ChainRulesCore.rrule(::typeof(weighted_basis), x, knots, pieces, outside::Symbol, derivative::Int, weights)
    project, project_weights = ProjectTo(x), ProjectTo(weights)
    function weighted_pullback(cotangent)
        cotangent = unthunk(cotangent)
        by_x = cotangent .* weighted_basis(x, knots, pieces, outside, derivative + 1, weights)
        basis = plain_basis(x, knots, pieces, outside, derivative)
        by_weights = reshape(cotangent, 1, size(cotangent)...) .* basis
        return NoTangent(), project(by_x), CONSTANTS..., project_weights(by_weights)
    end
    return weighted_basis(x, knots, pieces, outside, derivative, weights), weighted_pullback
end

# The same by broadcasts, x (I, B) and knots (K, I) or (K,).
function bspline_basis(x::AbstractArray, knots, pieces, outside::Symbol)
    outside === :zero && return broadcast_basis(x, knots, pieces)
    columns = reshape(x, size(knots, 2), :)
    low, high = grid_ends(x, knots, size(pieces, 1) - 1)
    at = clamp.(columns, low, high)
    basis = broadcast_basis(at, knots, pieces)
    if outside === :linear
        basis = basis .+ reshape(columns .- at, 1, size(at)...) .* broadcast_slopes(at, knots, pieces)
    end
    return reshape(basis, size(basis, 1), size(x)...)
end

# Ends of the grid (1 or I, 1). Hats have a corner there, so that they are evaluated a rounding error before it.
function grid_ends(x, knots, order)
    t = in_type_of(x, knots)
    low, high = t[(order + 1):(order + 1), :], t[(end - order):(end - order), :]
    margin = order > 1 ? zero(low) : 16eps(eltype(t)) .* max.(abs.(t[1:1, :]), abs.(t[end:end, :]))
    return reshape(low .+ margin, :, 1), reshape(high .- margin, :, 1)
end

ChainRulesCore.@non_differentiable grid_ends(::Any, ::Any, ::Any)

function broadcast_basis(x, knots, pieces)
    columns, t, order = for_broadcast(x, knots, pieces)
    basis = ndims(pieces) == 2 ? uniform_broadcast(columns, t, Val(order)) : recursion_broadcast(columns, t, order)
    return reshape(basis, size(basis, 1), size(x)...)
end

# A derivative of splines comes from those an order lower, each over its width (de Boor 1978, chapter X).
function broadcast_slopes(x, knots, pieces)
    columns, t, order = for_broadcast(x, knots, pieces)
    last = size(t, 1) - order
    weighted = recursion_broadcast(columns, t, order - 1) .* (order ./ (t[(order + 1):end, :, :] .- t[1:last, :, :]))
    slopes = weighted[1:(last - 1), :, :] .- weighted[2:last, :, :]
    return reshape(slopes, size(slopes, 1), size(x)...)
end

function for_broadcast(x, knots, pieces)
    inputs = size(knots, 2)
    t = in_type_of(x, reshape(knots, size(knots, 1), inputs, 1))
    return reshape(x, 1, inputs, length(x) ÷ inputs), t, size(pieces, 1) - 1
end

function uniform_broadcast(x, t, ::Val{order}) where {order}
    cells = size(t, 1) - 1
    per_cell = cells ./ (t[(cells + 1):(cells + 1), :, :] .- t[1:1, :, :])
    cardinal(u) = cardinal_spline(u, Val(order))
    return cardinal.((x .- t[1:(cells - order), :, :]) .* per_cell)
end

# The spline of knots 0, 1, ..., S + 1 by truncated powers; from its nearer end nothing cancels.
@inline function cardinal_spline(u, ::Val{order}) where {order}
    middle = oftype(u, (order + 1) / 2)
    from_end = middle - abs(u - middle)
    terms = ntuple(Val(order ÷ 2 + 1)) do k
        oftype(u, (-1)^(k - 1) * binomial(order + 1, k - 1) / factorial(order)) * max(from_end - (k - 1), 0)^order
    end
    return sum(terms)
end

@inline between(x, low, high) = ifelse((low <= x) & (x < high), one(x), zero(x))

function recursion_broadcast(x, t, order)
    count = size(t, 1)
    at(range) = t[range, :, :]
    basis = between.(x, at(1:(count - 1)), at(2:count))
    for k in 1:order
        last = count - 1 - k
        rise = (x .- at(1:last)) ./ (at((1 + k):(last + k)) .- at(1:last))
        fall = (at((2 + k):count) .- x) ./ (at((2 + k):count) .- at(2:(last + 1)))
        basis = rise .* basis[1:last, :, :] .+ fall .* basis[2:(last + 1), :, :]
    end
    return basis
end
