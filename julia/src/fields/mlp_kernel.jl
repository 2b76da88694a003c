struct MLPKernel{T} <: FieldKernel{T}
    spec::FieldSpec
    normalisation::Normalisation
    blocks::Vector{NTuple{2,UnitRange{Int}}}
    weights::Vector{Matrix{T}}      # (out, in)
    biases::Vector{Vector{T}}
    values::Vector{Vector{T}}       # inputs of each layer at one state, then the output
    inputs::Vector{Matrix{T}}       # inputs of each layer, (in, B)
    slopes::Vector{Matrix{T}}       # slope of each layer's input by what it was computed from, (in, B)
    cotangents::Vector{Matrix{T}}   # of each layer's output, (out, B)
end

function MLPKernel(::Type{T}, spec::FieldSpec) where {T}
    widths = spec.widths
    blocks = [(block.weight.range, block.bias.range) for block in mlp_blocks(spec)]
    return MLPKernel{T}(
        spec,
        Normalisation(spec),
        blocks,
        [zeros(T, n_out, n_in) for (n_in, n_out) in zip(widths[1:(end - 1)], widths[2:end])],
        [zeros(T, n) for n in widths[2:end]],
        [zeros(T, n) for n in widths],
        [zeros(T, n, 0) for n in widths[1:(end - 1)]],
        [zeros(T, n, 0) for n in widths[1:(end - 1)]],
        [zeros(T, n, 0) for n in widths[2:end]],
    )
end

function bind!(kernel::MLPKernel, params)
    for (l, (weight, bias)) in enumerate(kernel.blocks)
        copyto!(kernel.weights[l], 1, params, first(weight), length(weight))
        copyto!(kernel.biases[l], 1, params, first(bias), length(bias))
    end
    return kernel
end

function rhs!(du, x, kernel::MLPKernel)
    values = kernel.values
    z = values[1]
    @inbounds for i in eachindex(z)
        z[i] = kernel.normalisation(x[i], i)
    end
    last_layer = length(kernel.weights)
    for l in 1:last_layer
        y = values[l + 1]
        affine!(y, kernel.weights[l], z, kernel.biases[l])
        l < last_layer && with_activation(activate!, kernel.spec.activation, y)
        z = y
    end
    @inbounds for i in eachindex(du, z)
        du[i] = kernel.spec.rate[i] * z[i]
    end
    return du
end

function affine!(y, weight, x, bias)
    copyto!(y, bias)
    rows, columns = size(weight)
    fours = columns - columns % 4
    @inbounds for j in 1:4:fours
        add_four!(y, (x[j], x[j + 1], x[j + 2], x[j + 3]), weight, rows * (j - 1))
    end
    @inbounds for j in (fours + 1):columns
        add_one!(y, x[j], weight, rows * (j - 1))
    end
    return y
end

function activate!(f::F, y) where {F}
    @inbounds @simd for i in eachindex(y)
        y[i] = f(y[i])
    end
    return y
end

function linearise!(kernel::MLPKernel{T}, states, columns::Int) where {T}
    for arrays in (kernel.inputs, kernel.slopes, kernel.cotangents), l in eachindex(arrays)
        enough(arrays[l], columns) || (arrays[l] = grown(arrays[l], columns + columns ÷ 2))
    end
    z, slope = kernel.inputs[1], kernel.slopes[1]
    @inbounds for b in 1:columns, i in axes(z, 1)
        z[i, b], slope[i, b] = value_and_slope(kernel.normalisation, states[i, b], i)
    end
    for l in 1:(length(kernel.weights) - 1)
        y = kernel.inputs[l + 1]
        mul!(view(y, :, 1:columns), kernel.weights[l], view(kernel.inputs[l], :, 1:columns))
        with_activation(activate_columns!, kernel.spec.activation, y, kernel.slopes[l + 1], kernel.biases[l], columns)
    end
    return kernel
end

# What it gives at the states of the last `linearise!`.
function outputs!(y, kernel::MLPKernel, columns::Int)
    mul!(view(y, :, 1:columns), kernel.weights[end], view(kernel.inputs[end], :, 1:columns))
    (; biases, spec) = kernel
    @inbounds for b in 1:columns, i in axes(y, 1)
        y[i, b] = spec.rate[i] * (y[i, b] + biases[end][i])
    end
    return y
end

function activate_columns!(f::F, y, slopes, bias, columns) where {F}
    @inbounds for b in 1:columns
        @simd for i in eachindex(bias)
            y[i, b], slopes[i, b] = value_and_slope(f, y[i, b] + bias[i])
        end
    end
    return nothing
end

function pull_state!(state_cotangent, kernel::MLPKernel, b::Int, slope_cotangent)
    layers = length(kernel.weights)
    cotangent = kernel.cotangents[layers]
    @inbounds for i in eachindex(slope_cotangent)
        cotangent[i, b] = kernel.spec.rate[i] * slope_cotangent[i]
    end
    for l in layers:-1:2
        pull_column!(view(kernel.cotangents[l - 1], :, b), kernel.weights[l], view(kernel.cotangents[l], :, b),
            view(kernel.slopes[l], :, b))
    end
    return pull_column!(state_cotangent, kernel.weights[1], view(kernel.cotangents[1], :, b),
        view(kernel.slopes[1], :, b))
end

# out = slopes .* (weight' * cotangent)
function pull_column!(out, weight, cotangent, slopes)
    rows, columns = size(weight)
    fours = columns - columns % 4
    @inbounds for j in 1:4:fours
        products = dot_four(cotangent, weight, rows * (j - 1))
        out[j], out[j + 1], out[j + 2], out[j + 3] =
            products .* (slopes[j], slopes[j + 1], slopes[j + 2], slopes[j + 3])
    end
    @inbounds for j in (fours + 1):columns
        out[j] = slopes[j] * dot_one(cotangent, weight, rows * (j - 1))
    end
    return out
end

function pull_parameters!(gradient, kernel::MLPKernel, columns::Int)
    for (l, (weight, bias)) in enumerate(kernel.blocks)
        cotangents = view(kernel.cotangents[l], :, 1:columns)
        target = reshape(view(gradient, weight), size(kernel.weights[l]))
        mul!(target, cotangents, transpose(view(kernel.inputs[l], :, 1:columns)))
        sum!(view(gradient, bias), cotangents)
    end
    return gradient
end
