# Derivatives of a Lux model by Zygote.
module KanSciMLZygoteExt

using ADTypes: AutoZygote
using KanSciML: KanSciML
using Zygote: Zygote

function KanSciML.state_jacobians!(jacobians, ::AutoZygote, f, x)
    y, pullback = Zygote.pullback(f, x)
    cotangents = zero(y)
    for i in axes(jacobians, 1)
        fill!(cotangents, 0)
        cotangents[i, :] .= 1
        by_state = only(pullback(cotangents))
        jacobians[i, :, axes(x, 2)] .= isnothing(by_state) ? 0 : by_state
    end
    return jacobians
end

KanSciML.parameter_gradient(::AutoZygote, f, ps, cotangents) = only(last(Zygote.pullback(f, ps))(cotangents))

end
