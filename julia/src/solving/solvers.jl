# The package of OrdinaryDiffEq that brings a solver; Tsit5 is always there.
const SOLVER_PACKAGES = (
    BS3 = :OrdinaryDiffEqLowOrderRK, Tsit5 = :OrdinaryDiffEqTsit5, Vern8 = :OrdinaryDiffEqVerner,
    Rodas5P = :OrdinaryDiffEqRosenbrock, FBDF = :OrdinaryDiffEqBDF, KenCarp4 = :OrdinaryDiffEqSDIRK,
    AutoTsit5 = :OrdinaryDiffEqRosenbrock,
)

"""
    SOLVERS

Solvers of a [`FitProblem`](@ref) by their names in OrdinaryDiffEq, whose other algorithms are taken as objects:

  - `:Tsit5` (default), explicit, order 5; `:BS3`, order 3, after `using OrdinaryDiffEqLowOrderRK`; `:Vern8`, order 8,
    after `using OrdinaryDiffEqVerner`.
  - For stiff systems, with the Jacobian of the field: `:Rodas5P`, after `using OrdinaryDiffEqRosenbrock`; `:FBDF`,
    after `using OrdinaryDiffEqBDF`; `:KenCarp4`, after `using OrdinaryDiffEqSDIRK`; `:AutoTsit5`, which is
    `AutoTsit5(Rosenbrock23())`, after `using OrdinaryDiffEqRosenbrock`.
"""
const SOLVERS = keys(SOLVER_PACKAGES)

# The algorithm of a name, or one that is given.
ode_algorithm(solver::AbstractODEAlgorithm) = solver
function ode_algorithm(solver::Symbol)
    solver in SOLVERS || throw(ArgumentError("unknown solver $solver: expected one of $(join(SOLVERS, ", "))"))
    solver === :Tsit5 && return Tsit5()
    hasmethod(algorithm, Tuple{Val{solver}}) || throw(
        ArgumentError("solver $solver needs $(SOLVER_PACKAGES[solver]): call `using $(SOLVER_PACKAGES[solver])` first")
    )
    return algorithm(Val(solver))
end
function ode_algorithm(solver)
    names = join(SOLVERS, ", ")
    throw(ArgumentError("got solver $solver: expected an algorithm of OrdinaryDiffEq, or one of $names"))
end

# The extensions have methods of all these for the solvers of their packages.
function algorithm end

# What the replay needs to know of a solver; of others nothing. Limiters change steps in ways it does not know.
tableau(solver::AbstractODEAlgorithm) = nothing
tableau(solver::Tsit5) = has_limiters(solver) ? nothing : TSIT5
has_limiters(solver) = solver.stage_limiter! !== trivial_limiter! || solver.step_limiter! !== trivial_limiter!

# Whether it is given the field's Jacobian; one that does not ask for it pays nothing.
needs_jacobian(solver::AbstractODEAlgorithm) = true
needs_jacobian(::Tsit5) = false

# Whether it must step onto the save points, as between its steps it is far less accurate than the tolerance.
steps_onto_saves(solver::AbstractODEAlgorithm) = false

name_of(solver) = string(nameof(typeof(solver)))
