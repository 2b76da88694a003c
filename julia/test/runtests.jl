# Run in julia/ by `Pkg.test(; julia_args = ["--check-bounds=auto", "-O1"])`: the default checks bounds in every
# package, and all of them are then compiled anew; nearly all of the time goes into compiling the tests, which -O1 does
# more quickly. SciMLSensitivity's algorithms are tested if it is in the environment.

using ForwardDiff, KanSciML, Lux, Random, Test
using KanSciML: FieldKernel, bind!, bspline_basis, linearise!, pull_parameters!, pull_state!, rhs!, unpack
using KanSciML: uniform_knots, uniform_pieces

include("references.jl")

@testset verbose = true "KanSciML" begin
    @testset "$file" for file in (
        "bsplines", "layers", "grids", "kernels", "lux_models", "gradients", "series", "inputs", "solvers", "hybrid",
        "saved_models", "threads", "quality",
    )
        include("$file.jl")
    end
end
