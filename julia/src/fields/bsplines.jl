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

# The polynomials of the derivatives by r.
function derived(pieces)
    slopes = zero(pieces)
    for p in 1:(size(pieces, 1) - 1)
        selectdim(slopes, 1, p) .= p .* selectdim(pieces, 1, p + 1)
    end
    return slopes
end

"""
    bspline_basis(x, knots, pieces)

The `G + S` B-splines at every entry of `x`: an array of size `(G + S, size(x)...)`. Uniform `knots (K,)` are those of
every entry, `knots (K, I)` those of every entry along the first axis of `x (I, ...)`. `pieces (S + 1, S + 1)` of
uniform knots come from [`uniform_pieces`](@ref), those `(S + 1, S + 1, K - 1, I)` of others from `knot_pieces`. Zero
outside the knots; at a knot the cell to its right counts, as in the recursion of Cox and de Boor on half-open
intervals.

Arrays of numbers in memory are read cell by cell, and derivatives of any order are written out. Others, of a GPU or of
a tape, go through broadcasts without mutation.
"""
bspline_basis(x::PlainArray, knots, pieces) = plain_basis(x, knots, pieces, 0)

bspline_slopes(x::PlainArray, knots, pieces) = plain_basis(x, knots, pieces, 1)

# The derivatives of that order of the splines.
function plain_basis(x, knots, pieces, derivative::Int)
    knots, pieces = in_type_of(x, knots), in_type_of(x, pieces)
    for _ in 1:derivative
        pieces = derived(pieces)
    end
    order, cells = size(pieces, 1) - 1, size(knots, 1) - 1
    basis = zeros(eltype(x), cells - order, size(x)...)
    columns = reshape(basis, cells - order, :)
    for (column, position) in enumerate(x)
        i = mod1(column, size(knots, 2))
        cell, r, per_unit = locate(knots, pieces, i, position)
        cell < 0 && continue
        factor = per_unit^derivative
        for q in max(0, order - cell):min(order, cells - 1 - cell)
            @inbounds columns[cell - order + q + 1, column] = factor * piece_value(pieces_of(pieces, cell, i), q, r)
        end
    end
    return basis
end

# The products of the derivatives of that order with weights of the same size, summed over the splines.
function weighted_basis(x, knots, pieces, derivative::Int, weights)
    knots, pieces = in_type_of(x, knots), in_type_of(x, pieces)
    for _ in 1:derivative
        pieces = derived(pieces)
    end
    order, cells = size(pieces, 1) - 1, size(knots, 1) - 1
    columns = reshape(weights, cells - order, :)
    sums = similar(x, promote_type(eltype(x), eltype(weights)))
    for (column, position) in enumerate(x)
        i = mod1(column, size(knots, 2))
        cell, r, per_unit = locate(knots, pieces, i, position)
        total = zero(eltype(sums))
        if cell >= 0
            for q in max(0, order - cell):min(order, cells - 1 - cell)
                @inbounds weight = columns[cell - order + q + 1, column]
                total = muladd(weight, piece_value(pieces_of(pieces, cell, i), q, r), total)
            end
        end
        sums[column] = total * per_unit^derivative
    end
    return sums
end

# Cell of input i that x lies in, the place in it, and cells per unit there; the cell is -1 outside the knots.
@inline function locate(knots, ::AbstractMatrix, i, x)
    cells = size(knots, 1) - 1
    @inbounds first_knot, last_knot = knots[1, i], knots[cells + 1, i]
    per_cell = cells / (last_knot - first_knot)
    u = (x - first_knot) * per_cell
    0 <= u < cells || return -1, zero(u), per_cell
    cell = cell_index(u)
    return cell, u - cell, per_cell
end

@inline function locate(knots, ::AbstractArray{<:Any,4}, i, x)
    t = view(knots, :, i)
    at = searchsortedlast(t, x)
    1 <= at < length(t) || return -1, zero(x), one(eltype(t))
    per_cell = 1 / (t[at + 1] - t[at])
    return at - 1, (x - t[at]) * per_cell, per_cell
end

@inline pieces_of(pieces::AbstractMatrix, cell, i) = pieces
@inline pieces_of(pieces, cell, i) = view(pieces, :, :, cell + 1, min(i, size(pieces, 4)))

function ChainRulesCore.rrule(::typeof(bspline_basis), x::PlainArray, knots, pieces)
    basis, pullback = ChainRulesCore.rrule(plain_basis, x, knots, pieces, 0)
    return basis, cotangent -> pullback(cotangent)[1:4]
end

function ChainRulesCore.rrule(::typeof(plain_basis), x, knots, pieces, derivative::Int)
    project = ProjectTo(x)
    function basis_pullback(cotangent)
        by_x = weighted_basis(x, knots, pieces, derivative + 1, unthunk(cotangent))
        return NoTangent(), project(by_x), NoTangent(), NoTangent(), NoTangent()
    end
    return plain_basis(x, knots, pieces, derivative), basis_pullback
end

function ChainRulesCore.rrule(::typeof(weighted_basis), x, knots, pieces, derivative::Int, weights)
    project, project_weights = ProjectTo(x), ProjectTo(weights)
    function weighted_pullback(cotangent)
        cotangent = unthunk(cotangent)
        by_x = cotangent .* weighted_basis(x, knots, pieces, derivative + 1, weights)
        by_weights = reshape(cotangent, 1, size(cotangent)...) .* plain_basis(x, knots, pieces, derivative)
        return NoTangent(), project(by_x), NoTangent(), NoTangent(), NoTangent(), project_weights(by_weights)
    end
    return weighted_basis(x, knots, pieces, derivative, weights), weighted_pullback
end

# The same by broadcasts, x (I, B) and knots (K, I) or (K,).
function bspline_basis(x::AbstractArray, knots, pieces)
    order, inputs = size(pieces, 1) - 1, size(knots, 2)
    t = in_type_of(x, reshape(knots, size(knots, 1), inputs, 1))
    columns = reshape(x, 1, inputs, length(x) ÷ inputs)
    basis = ndims(pieces) == 2 ? uniform_broadcast(columns, t, Val(order)) : recursion_broadcast(columns, t, order)
    return reshape(basis, size(basis, 1), size(x)...)
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
