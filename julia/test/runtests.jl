# Run in julia/ by `Pkg.test(; julia_args = ["--check-bounds=auto"])`: the default checks bounds in every package, and
# all of them are then compiled anew. SciMLSensitivity's algorithms are tested if it is in the environment.

using ForwardDiff, KanSciML, Lux, Random, Test
using KanSciML: FieldKernel, bind!, bspline_basis, linearise!, pull_parameters!, pull_state!, rhs!, unpack
using KanSciML: uniform_knots, uniform_pieces

include("references.jl")

@testset "KanSciML" begin
    include("bsplines.jl")
    include("layers.jl")
    include("grids.jl")
    include("kernels.jl")
    include("lux_models.jl")
    include("gradients.jl")
    include("series.jl")
    include("inputs.jl")
    include("solvers.jl")
    include("hybrid.jl")
    include("saved_models.jl")
    include("threads.jl")
    include("quality.jl")
end
