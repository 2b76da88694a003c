# One spline layer. An input sees S + 1 splines only, so layers work on the cell it lies in and never form a dense
# basis; `padded` has S zero columns on both sides, for the splines that a cell near the edge lacks.
mutable struct SplineKernel{T}
    const order::Int
    const cells::Int
    const outside::Symbol
    const first_knot::Float64
    const per_cell::Float64
    const pieces::Matrix{Float64}
    const blocks::NTuple{3,UnitRange{Int}}
    const base::Matrix{T}             # (O, I)
    const spline::Array{T,3}          # (O, M, I)
    const scale::Matrix{T}            # (O, I)
    const padded::Array{T,3}          # spline .* scale, (O, M + 2S, I)
    cell::Matrix{Int}                 # (I, B); -1 outside the knots
    basis::Array{T,3}                 # (S + 1, I, B)
    basis_slopes::Array{T,3}
    silu::Matrix{T}                   # (I, B)
    silu_slopes::Matrix{T}
    cotangents::Matrix{T}             # of the output, (O, B)
end

function SplineKernel(::Type{T}, spec::FieldSpec, n_in, n_out, block) where {T}
    order, n_basis = spec.spline_order, spec.grid + spec.spline_order
    knots = uniform_knots(spec.grid, order, spec.grid_range)
    cells = length(knots) - 1
    return SplineKernel{T}(
        order, cells, spec.outside, knots[1], cells / (knots[end] - knots[1]), uniform_pieces(order),
        (block.base_weight.range, block.spline_weight.range, block.spline_scale.range),
        zeros(T, n_out, n_in), zeros(T, n_out, n_basis, n_in), zeros(T, n_out, n_in),
        zeros(T, n_out, n_basis + 2order, n_in),
        zeros(Int, n_in, 0), zeros(T, order + 1, n_in, 0), zeros(T, order + 1, n_in, 0), zeros(T, n_in, 0),
        zeros(T, n_in, 0), zeros(T, n_out, 0),
    )
end

mutable struct KANKernel{T} <: FieldKernel{T}
    const spec::FieldSpec
    const normalisation::Normalisation
    const layers::Vector{SplineKernel{T}}
    const values::Vector{Vector{T}}   # inputs of each layer at one state, then the output
    const inputs::Vector{Matrix{T}}   # inputs of each layer, (in, B)
    slopes::Matrix{T}                 # of the normalisation, (n, B)
end

function KANKernel(::Type{T}, spec::FieldSpec) where {T}
    widths = spec.widths
    blocks = kan_blocks(spec)
    layers = [SplineKernel(T, spec, widths[l], widths[l + 1], blocks[l]) for l in eachindex(blocks)]
    return KANKernel{T}(
        spec, Normalisation(spec), layers, [zeros(T, n) for n in widths],
        [zeros(T, n, 0) for n in widths[1:(end - 1)]], zeros(T, widths[1], 0),
    )
end

function bind!(kernel::KANKernel, params)
    foreach(layer -> bind!(layer, params), kernel.layers)
    return kernel
end

function bind!(layer::SplineKernel, params)
    for (array, range) in zip((layer.base, layer.spline, layer.scale), layer.blocks)
        copyto!(array, 1, params, first(range), length(range))
    end
    scale, spline, padded, order = layer.scale, layer.spline, layer.padded, layer.order
    @inbounds for i in axes(spline, 3), m in axes(spline, 2)
        @simd for o in axes(spline, 1)
            padded[o, m + order, i] = scale[o, i] * spline[o, m, i]
        end
    end
    return layer
end

# Cell that x lies in, the place in it, how far x is beyond the grid where splines go on straight, both in cells, and
# what a slope by the place is multiplied with. The cell is -1 where there is no spline, and where x is not a number.
@inline function locate(layer::SplineKernel, x)
    u = (x - layer.first_knot) * layer.per_cell
    if layer.outside === :zero
        0 <= u < layer.cells || return -1, zero(u), zero(u), layer.per_cell
        cell = cell_index(u)
        return cell, u - cell, zero(u), layer.per_cell
    end
    isnan(u) && return -1, u, u, layer.per_cell
    last_cell = layer.cells - layer.order - 1
    at = clamp(u, layer.order, last_cell + 1)
    cell = min(cell_index(at), last_cell)                    # the right end belongs to the last cell
    layer.outside === :linear && return cell, at - cell, u - at, layer.per_cell
    return cell, at - cell, zero(u), u == at ? layer.per_cell : 0.0
end

@inline function spline_value(pieces, q, r, beyond)
    value = piece_value(pieces, q, r)
    return iszero(beyond) ? value : muladd(beyond, piece_slope(pieces, q, r), value)
end

# Offset of the spline in place q = 0 to S of a cell, in `padded`.
@inline padded_offset(layer::SplineKernel, i, cell, q) =
    size(layer.padded, 1) * (size(layer.padded, 2) * (i - 1) + cell + q)

# y[:] += what the splines of input i add, of which `value(q)` is the one in place q
@inline function add_splines!(value::F, y, layer::SplineKernel, i, cell) where {F}
    fours = (layer.order + 1) - (layer.order + 1) % 4
    for q in 0:4:(fours - 1)
        values = value(q), value(q + 1), value(q + 2), value(q + 3)
        add_four!(y, values, layer.padded, padded_offset(layer, i, cell, q))
    end
    for q in fours:layer.order
        add_one!(y, value(q), layer.padded, padded_offset(layer, i, cell, q))
    end
    return nothing
end

function rhs!(du, x, kernel::KANKernel)
    values = kernel.values
    z = values[1]
    @inbounds for i in eachindex(z)
        z[i] = kernel.normalisation(x[i], i)
    end
    for (l, layer) in enumerate(kernel.layers)
        z = forward!(values[l + 1], layer, z)
    end
    @inbounds for i in eachindex(du, z)
        du[i] = kernel.spec.rate[i] * z[i]
    end
    return du
end

function forward!(y, layer::SplineKernel, x)
    fill!(y, zero(eltype(y)))
    for i in eachindex(x)
        add_one!(y, swish(x[i]), layer.base, length(y) * (i - 1))
        cell, r, beyond, _ = locate(layer, x[i])
        cell < 0 && continue
        add_splines!(q -> spline_value(layer.pieces, q, r, beyond), y, layer, i, cell)
    end
    return y
end

function linearise!(kernel::KANKernel, states, columns::Int)
    for (l, layer) in enumerate(kernel.layers)
        enough(kernel.inputs[l], columns) || (kernel.inputs[l] = grown(kernel.inputs[l], columns + columns ÷ 2))
        enough(layer.cell, columns) || grow!(layer, columns + columns ÷ 2)
    end
    enough(kernel.slopes, columns) || (kernel.slopes = grown(kernel.slopes, columns + columns ÷ 2))
    z, slope = kernel.inputs[1], kernel.slopes
    @inbounds for b in 1:columns, i in axes(z, 1)
        z[i, b], slope[i, b] = value_and_slope(kernel.normalisation, states[i, b], i)
    end
    for (l, layer) in enumerate(kernel.layers)
        keep_basis!(layer, kernel.inputs[l], columns)
        l < length(kernel.layers) && forward_columns!(kernel.inputs[l + 1], layer, columns)
    end
    return kernel
end

function outputs!(y, kernel::KANKernel, columns::Int)
    forward_columns!(y, kernel.layers[end], columns)
    @inbounds for b in 1:columns, i in axes(y, 1)
        y[i, b] *= kernel.spec.rate[i]
    end
    return y
end

function grow!(layer::SplineKernel, columns)
    layer.cell = grown(layer.cell, columns)
    layer.basis, layer.basis_slopes = grown(layer.basis, columns), grown(layer.basis_slopes, columns)
    layer.silu, layer.silu_slopes = grown(layer.silu, columns), grown(layer.silu_slopes, columns)
    layer.cotangents = grown(layer.cotangents, columns)
    return layer
end

function keep_basis!(layer::SplineKernel, inputs, columns)
    (; pieces, cell, basis, basis_slopes, silu, silu_slopes) = layer
    @inbounds for b in 1:columns, i in axes(inputs, 1)
        x = inputs[i, b]
        silu[i, b], silu_slopes[i, b] = value_and_slope(swish, x)
        cell[i, b], r, beyond, per_cell = locate(layer, x)
        cell[i, b] < 0 && continue
        for q in 0:layer.order
            basis[q + 1, i, b] = spline_value(pieces, q, r, beyond)
            basis_slopes[q + 1, i, b] = per_cell * piece_slope(pieces, q, r)
        end
    end
    return nothing
end

function forward_columns!(outputs, layer::SplineKernel, columns)
    (; cell, basis, silu, base) = layer
    @inbounds for b in 1:columns
        y = view(outputs, :, b)
        fill!(y, zero(eltype(y)))
        for i in axes(base, 2)
            add_one!(y, silu[i, b], base, length(y) * (i - 1))
            cell[i, b] < 0 && continue
            add_splines!(q -> (@inbounds basis[q + 1, i, b]), y, layer, i, cell[i, b])
        end
    end
    return outputs
end

function pull_state!(state_cotangent, kernel::KANKernel, b::Int, slope_cotangent)
    layers = kernel.layers
    cotangent = layers[end].cotangents
    @inbounds for i in eachindex(slope_cotangent)
        cotangent[i, b] = kernel.spec.rate[i] * slope_cotangent[i]
    end
    for l in length(layers):-1:2
        pull_column!(view(layers[l - 1].cotangents, :, b), layers[l], b)
    end
    pull_column!(state_cotangent, layers[1], b)
    @inbounds for i in eachindex(state_cotangent)
        state_cotangent[i] *= kernel.slopes[i, b]
    end
    return state_cotangent
end

# Cotangent of the layer's input from that of its output.
function pull_column!(out, layer::SplineKernel, b::Int)
    (; cell, basis_slopes, silu_slopes, base, padded, order) = layer
    cotangent = view(layer.cotangents, :, b)
    fours = (order + 1) - (order + 1) % 4
    @inbounds for i in axes(base, 2)
        total = dot_one(cotangent, base, length(cotangent) * (i - 1)) * silu_slopes[i, b]
        if cell[i, b] >= 0
            for q in 0:4:(fours - 1)
                parts = dot_four(cotangent, padded, padded_offset(layer, i, cell[i, b], q))
                for (p, part) in enumerate(parts)
                    total = muladd(basis_slopes[q + p, i, b], part, total)
                end
            end
            for q in fours:order
                part = dot_one(cotangent, padded, padded_offset(layer, i, cell[i, b], q))
                total = muladd(basis_slopes[q + 1, i, b], part, total)
            end
        end
        out[i] = total
    end
    return out
end

function pull_parameters!(gradient, kernel::KANKernel, columns::Int)
    for layer in kernel.layers
        base, spline, scale = (
            reshape(view(gradient, range), size(array)) for
            (range, array) in zip(layer.blocks, (layer.base, layer.spline, layer.scale))
        )
        pull_parameters!(base, spline, scale, layer, columns)
    end
    return gradient
end

function pull_parameters!(base, spline, scale, layer::SplineKernel, columns::Int)
    (; order, cell, basis, silu, cotangents) = layer
    fill!(base, 0)
    fill!(spline, 0)
    n_basis = size(spline, 2)
    @inbounds for b in 1:columns, i in axes(base, 2)
        s = silu[i, b]
        @simd for o in axes(base, 1)
            base[o, i] = muladd(s, cotangents[o, b], base[o, i])
        end
        first_column = cell[i, b]
        first_column < 0 && continue
        for q in 1:(order + 1)
            m = first_column + q - order
            1 <= m <= n_basis || continue
            value = basis[q, i, b]
            @simd for o in axes(base, 1)
                spline[o, m, i] = muladd(value, cotangents[o, b], spline[o, m, i])
            end
        end
    end
    # `spline` is the gradient by scale .* spline_weight so far.
    fill!(scale, 0)
    @inbounds for i in axes(spline, 3), m in axes(spline, 2)
        @simd for o in axes(spline, 1)
            scale[o, i] = muladd(spline[o, m, i], layer.spline[o, m, i], scale[o, i])
            spline[o, m, i] *= layer.scale[o, i]
        end
    end
    return nothing
end
