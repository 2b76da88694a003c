"""
Neural ODEs with spline KANs and MLPs: Lux layers, `Tsit5()`, and gradients by name.

    using KanSciML, Random

    field = kan_field([2, 6, 2]; center = [3.5, 2.5], scale = [3.5, 2.5], rate = [5.0, 5.0])
    t = collect(0:0.1:3.4)
    problem = FitProblem(field, [1.0, 1.0], t, data)          # data: states (2, 35) at the times t
    params = initial_parameters(Xoshiro(0), field)

    for step in 1:500                                         # plain gradient descent; Optimisers.jl works as well
        loss, gradient = loss_and_gradient(problem, params)
        params .-= 0.01 .* gradient
    end
    trajectory(problem, params; saveat = 0:0.01:10)

Several trajectories, with gaps, weights and inputs: [`Series`](@ref), [`Inputs`](@ref). Models trained in Python:
`KanSciML.load(folder)`. Any other layer of Lux is fitted as well: [`FitProblem`](@ref). The layer alone is
[`SplineKANLayer`](@ref).
"""
module KanSciML

using ADTypes: AbstractADType, AutoForwardDiff, AutoReverseDiff, AutoZygote
using ChainRulesCore: ChainRulesCore, NoTangent, ProjectTo, unthunk
using ConcreteStructs: @concrete
using ForwardDiff: ForwardDiff
using LinearAlgebra: I, LU, SymTridiagonal, eigen, ldiv!, lu, mul!
using Logging: NullLogger, with_logger
using Lux: AbstractLuxLayer, Chain, Dense, LuxCore, f64, glorot_uniform, ones32, testmode
using NNlib: gelu_erf, relu, sigmoid, sigmoid_fast, swish, tanh_fast
using OrdinaryDiffEqTsit5: Tsit5, trivial_limiter!
using PrecompileTools: @compile_workload
using Random: Random, AbstractRNG
using SciMLBase: SciMLBase, AbstractODEAlgorithm, AbstractSensitivityAlgorithm, FullSpecialize, ODEFunction, ODEProblem
using SciMLBase: ReturnCode, derivative_discontinuity!, init, remake, solve!, step!, successful_retcode
using SpecialFunctions: erf

export extend_grid, update_grid
export FitProblem, Inputs, SENSEALGS, SOLVERS, Series, SolveFailure, SplineKANLayer
export initial_parameters, kan_field, loss_and_gradient, mlp_field, parameter_count, remake, trajectory

include("errors.jl")
include("fields/parameters.jl")
include("fields/bsplines.jl")
include("fields/spline_kan_layer.jl")
include("fields/grid_refit.jl")
include("fields/fields.jl")
include("fields/kernels.jl")
include("fields/mlp_kernel.jl")
include("fields/kan_kernel.jl")
include("fields/equations.jl")
include("fields/hybrid_field.jl")
include("fields/hybrid_kernel.jl")
include("fields/lux_field.jl")
include("fields/lux_kernel.jl")
include("problems/inputs.jl")
include("problems/series.jl")
include("solving/tableaus.jl")
include("solving/internals.jl")
include("solving/rosenbrock.jl")
include("solving/solvers.jl")
include("problems/problems.jl")
include("solving/solving.jl")
include("solving/replay.jl")
include("gradients.jl")
include("json.jl")
include("fields/lux_file.jl")
include("saved_models.jl")
include("bridge.jl")

__init__() = Base.Experimental.register_error_hint(hint_of_sensitivity, MethodError)

include("precompile.jl")

end
