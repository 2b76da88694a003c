# Derivatives of a Lux model by ReverseDiff.
module KanSciMLReverseDiffExt

using ADTypes: AutoReverseDiff
using KanSciML: KanSciML, blocks_of, flatten!, unpack
using ReverseDiff: ReverseDiff

ReverseDiff.@grad_from_chainrules KanSciML.bspline_basis(
    x::ReverseDiff.TrackedArray, knots, pieces, outside::Symbol
)

function KanSciML.state_jacobians!(jacobians, ::AutoReverseDiff, f, x)
    for i in axes(jacobians, 1)
        jacobians[i, :, axes(x, 2)] .= ReverseDiff.gradient(x -> sum(view(f(x), i, :)), x)
    end
    return jacobians
end

function KanSciML.parameter_gradient(::AutoReverseDiff, f, ps, cotangents)
    blocks, count = blocks_of(ps)
    flat = flatten!(zeros(count), blocks, ps)
    return unpack(blocks, ReverseDiff.gradient(p -> sum(cotangents .* f(unpack(blocks, p))), flat))
end

end
