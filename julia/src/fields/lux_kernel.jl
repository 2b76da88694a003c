# Any model of Lux with its parameters bound. The model is differentiated batch by batch: all Jacobians by the state at
# once, and one pullback by the parameters.

mutable struct LuxKernel{T,S<:LuxSpec,P} <: FieldKernel{T}
    const spec::S
    const ps::P                       # arrays of T
    states::Matrix{T}                 # of the last `linearise!`, (widths[1], B)
    jacobians::Array{T,3}             # (n, widths[1], B)
    cotangents::Matrix{T}             # (n, B)
end

FieldKernel(::Type{T}, spec::LuxSpec) where {T} = LuxKernel(T, spec)

function LuxKernel(::Type{T}, spec::LuxSpec) where {T}
    width, n = spec.widths
    return LuxKernel(spec, arrays_of(T, spec.blocks), zeros(T, width, 0), zeros(T, n, width, 0), zeros(T, n, 0))
end

bind!(kernel::LuxKernel, params) = (fill_arrays!(kernel.ps, kernel.spec.blocks, params); kernel)

evaluate(spec::LuxSpec, x, ps) = first(LuxCore.apply(spec.model, x, ps, spec.state))

rhs!(du, x, kernel::LuxKernel) = copyto!(du, evaluate(kernel.spec, reshape(collect(x), :, 1), kernel.ps))

function linearise!(kernel::LuxKernel, states, columns::Int)
    (; spec) = kernel
    enough(kernel.jacobians, columns) || (kernel.jacobians = grown(kernel.jacobians, columns))
    enough(kernel.cotangents, columns) || (kernel.cotangents = grown(kernel.cotangents, columns))
    kernel.states = states[:, 1:columns]
    jacobians = view(kernel.jacobians, :, :, 1:columns)
    state_jacobians!(jacobians, spec.differentiator, x -> evaluate(spec, x, kernel.ps), kernel.states)
    return kernel
end

function pull_state!(state_cotangent, kernel::LuxKernel, b::Int, slope_cotangent)
    (; jacobians, cotangents) = kernel
    @inbounds for i in eachindex(slope_cotangent)
        cotangents[i, b] = slope_cotangent[i]
    end
    @inbounds for j in eachindex(state_cotangent)
        total = zero(eltype(jacobians))
        for i in eachindex(slope_cotangent)
            total = muladd(jacobians[i, j, b], cotangents[i, b], total)
        end
        state_cotangent[j] = total
    end
    return state_cotangent
end

function pull_parameters!(gradient, kernel::LuxKernel, columns::Int)
    (; spec, states, ps) = kernel
    tree = parameter_gradient(spec.differentiator, p -> evaluate(spec, states, p), ps, kernel.cotangents[:, 1:columns])
    return flatten!(gradient, spec.blocks, tree)
end
