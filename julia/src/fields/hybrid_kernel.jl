const NetworkKernel{T} = Union{MLPKernel{T},KANKernel{T}}

# Known terms and a network, by going through the list of operations and back.
mutable struct HybridKernel{T} <: FieldKernel{T}
    const spec::HybridSpec
    const networks::Vector{NetworkKernel{T}}      # one for each call, all with the same parameters
    const network_parameters::Int
    const values::Vector{T}           # of the operations at one state; those up to `fixed` hold for all
    const fixed_by_a::Vector{T}       # derivatives of these by their operands
    const fixed_by_b::Vector{T}
    const x::Vector{T}                # inputs of one call, then their cotangents
    const y::Vector{Vector{T}}        # outputs of each call, then their cotangents
    const fixed_cotangents::Vector{T}
    const of_call::Vector{T}          # parameter gradient by one call
    batch::Matrix{T}                  # values of the operations, (operations, B)
    by_a::Matrix{T}                   # their derivatives by their operands
    by_b::Matrix{T}
    cotangents::Matrix{T}
    network_x::Matrix{T}              # inputs of one call, (in, B)
    const network_y::Vector{Matrix{T}}            # outputs of each, (out, B)
end

function HybridKernel(::Type{T}, spec::HybridSpec) where {T}
    (; network, equations) = spec
    n_in, n_out, count = network.widths[1], network.widths[end], parameter_count(network)
    calls, n = length(equations.calls), length(equations.operations)
    return HybridKernel{T}(
        spec, [FieldKernel(T, network) for _ in 1:calls], count, zeros(T, n), zeros(T, equations.fixed),
        zeros(T, equations.fixed), zeros(T, n_in), [zeros(T, n_out) for _ in 1:calls], zeros(T, equations.fixed),
        zeros(T, count), (zeros(T, n, 0) for _ in 1:4)..., zeros(T, n_in, 0), [zeros(T, n_out, 0) for _ in 1:calls],
    )
end

function bind!(kernel::HybridKernel, params)
    for network in kernel.networks
        bind!(network, params)
    end
    (; values, fixed_by_a, fixed_by_b) = kernel
    (; operations, constants, fixed) = kernel.spec.equations
    for place in 1:fixed
        (; code, a, b) = operations[place]
        if code === NUMBER
            values[place] = constants[a]
        elseif code === TRAINED
            values[place] = params[kernel.network_parameters + a]
        else
            left, right = values[a], values[max(b, 1)]
            values[place] = applied(code, left, right)
            fixed_by_a[place], fixed_by_b[place] = partials(code, left, right, values[place])
        end
    end
    return kernel
end

function rhs!(du, x, kernel::HybridKernel)
    (; values, y) = kernel
    (; operations, fixed, calls, slopes) = kernel.spec.equations
    @inbounds for place in (fixed + 1):length(operations)
        (; code, a, b) = operations[place]
        if code === X
            values[place] = x[a]
        elseif code === OUTPUT
            values[place] = y[a][b]
        elseif code === CALL
            for (i, one) in enumerate(calls[a])
                kernel.x[i] = values[one]
            end
            rhs!(y[a], kernel.x, kernel.networks[1])
        else
            values[place] = applied(code, values[a], values[max(b, 1)])
        end
    end
    @inbounds for (i, place) in enumerate(slopes)
        du[i] = values[place]
    end
    return du
end

function linearise!(kernel::HybridKernel, states, columns::Int)
    enough(kernel.batch, columns) || grow!(kernel, columns + columns ÷ 2)
    (; values, batch, by_a, by_b, network_x, network_y) = kernel
    (; operations, fixed, calls) = kernel.spec.equations
    @inbounds for b in 1:columns, place in 1:fixed
        batch[place, b] = values[place]
    end
    for place in (fixed + 1):length(operations)
        operation = operations[place]
        (; code) = operation
        if code === CALL
            for (i, one) in enumerate(calls[operation.a])
                @inbounds for b in 1:columns
                    network_x[i, b] = batch[one, b]
                end
            end
            network = linearise!(kernel.networks[operation.a], network_x, columns)
            outputs!(network_y[operation.a], network, columns)
        elseif code === X
            @inbounds for b in 1:columns
                batch[place, b] = states[operation.a, b]
            end
        elseif code === OUTPUT
            @inbounds for b in 1:columns
                batch[place, b] = network_y[operation.a][operation.b, b]
            end
        else
            left, right = operation.a, max(operation.b, 1)
            @inbounds for b in 1:columns
                value = applied(code, batch[left, b], batch[right, b])
                batch[place, b] = value
                by_a[place, b], by_b[place, b] = partials(code, batch[left, b], batch[right, b], value)
            end
        end
    end
    return kernel
end

function grow!(kernel::HybridKernel, columns)
    for name in (:batch, :by_a, :by_b, :cotangents, :network_x)
        setfield!(kernel, name, grown(getfield(kernel, name), columns))
    end
    for (call, array) in enumerate(kernel.network_y)
        kernel.network_y[call] = grown(array, columns)
    end
    return kernel
end

function pull_state!(state_cotangent, kernel::HybridKernel, b::Int, slope_cotangent)
    (; cotangents, by_a, by_b, x, y) = kernel
    (; operations, fixed, calls, slopes) = kernel.spec.equations
    fill!(state_cotangent, 0)
    fill!(view(cotangents, :, b), 0)
    foreach(outputs -> fill!(outputs, 0), y)
    @inbounds for (i, place) in enumerate(slopes)
        cotangents[place, b] += slope_cotangent[i]
    end
    @inbounds for place in length(operations):-1:(fixed + 1)
        operation = operations[place]
        (; code) = operation
        cotangent = cotangents[place, b]
        if code === CALL
            pull_state!(x, kernel.networks[operation.a], b, y[operation.a])
            for (i, one) in enumerate(calls[operation.a])
                cotangents[one, b] += x[i]
            end
        elseif code === OUTPUT
            y[operation.a][operation.b] += cotangent
        elseif code === X
            state_cotangent[operation.a] += cotangent
        elseif !iszero(cotangent)
            cotangents[operation.a, b] += by_a[place, b] * cotangent
            is_binary(operation) && (cotangents[operation.b, b] += by_b[place, b] * cotangent)
        end
    end
    return state_cotangent
end

function pull_parameters!(gradient, kernel::HybridKernel, columns::Int)
    (; of_call, network_parameters, fixed_cotangents, cotangents, fixed_by_a, fixed_by_b) = kernel
    (; operations, fixed) = kernel.spec.equations
    fill!(gradient, 0)
    for network in kernel.networks
        pull_parameters!(of_call, network, columns)
        @inbounds for i in eachindex(of_call)
            gradient[i] += of_call[i]
        end
    end
    fill!(fixed_cotangents, 0)
    @inbounds for b in 1:columns, place in 1:fixed
        fixed_cotangents[place] += cotangents[place, b]
    end
    for place in fixed:-1:1
        operation, cotangent = operations[place], fixed_cotangents[place]
        if operation.code === TRAINED
            gradient[network_parameters + operation.a] += cotangent
        elseif operation.code !== NUMBER && !iszero(cotangent)
            fixed_cotangents[operation.a] += fixed_by_a[place] * cotangent
            is_binary(operation) && (fixed_cotangents[operation.b] += fixed_by_b[place] * cotangent)
        end
    end
    return gradient
end
