# Run by `Pkg.test()`, or by `julia --project=julia julia/test/runtests.jl` where the packages are installed. The tests
# of SciMLSensitivity's algorithms run if that package is in the environment.

using ForwardDiff, KanSciML, Lux, Random, Test
using KanSciML: FieldKernel, bind!, bspline_basis, linearise!, pull_parameters!, pull_state!, rhs!, unpack
using KanSciML: uniform_knots, uniform_pieces

include("references.jl")

@testset "KanSciML" begin
    include("bsplines.jl")
    include("layers.jl")
    include("kernels.jl")
    include("gradients.jl")
end
