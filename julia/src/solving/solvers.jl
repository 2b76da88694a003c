# The package of OrdinaryDiffEq that brings a solver; Tsit5 is always there.
const SOLVER_PACKAGES = (
    BS3 = :OrdinaryDiffEqLowOrderRK, Tsit5 = :OrdinaryDiffEqTsit5, Vern8 = :OrdinaryDiffEqVerner,
    Rodas5P = :OrdinaryDiffEqRosenbrock, FBDF = :OrdinaryDiffEqBDF, KenCarp4 = :OrdinaryDiffEqSDIRK,
    AutoTsit5 = :OrdinaryDiffEqRosenbrock,
)

"""
    SOLVERS

Solvers of a [`FitProblem`](@ref), by their names in OrdinaryDiffEq:

  - `:Tsit5` (default), explicit, order 5; `:BS3`, order 3, after `using OrdinaryDiffEqLowOrderRK`; `:Vern8`, order 8,
    after `using OrdinaryDiffEqVerner`.
  - For stiff systems, with the Jacobian of the field: `:Rodas5P`, after `using OrdinaryDiffEqRosenbrock`; `:FBDF`,
    after `using OrdinaryDiffEqBDF`; `:KenCarp4`, after `using OrdinaryDiffEqSDIRK`; `:AutoTsit5`, which is
    `AutoTsit5(Rosenbrock23())`, after `using OrdinaryDiffEqRosenbrock`.
"""
const SOLVERS = keys(SOLVER_PACKAGES)
const EXPLICIT_SOLVERS = (:BS3, :Tsit5, :Vern8)

function check_solver(solver::Symbol)
    solver in SOLVERS || throw(ArgumentError("unknown solver $solver: expected one of $(join(SOLVERS, ", "))"))
    solver === :Tsit5 || hasmethod(algorithm, Tuple{Val{solver}}) || throw(
        ArgumentError("solver $solver needs $(SOLVER_PACKAGES[solver]): call `using $(SOLVER_PACKAGES[solver])` first")
    )
    return nothing
end

# Methods for the other solvers are in the extensions.
algorithm(solver::Symbol) = solver === :Tsit5 ? Tsit5() : algorithm(Val(solver))
tableau(solver::Symbol) = solver === :Tsit5 ? TSIT5 : tableau(Val(solver))
tableau(::Val) = nothing
