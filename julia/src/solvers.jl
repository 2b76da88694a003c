"""
    SOLVERS

Solvers of a [`FitProblem`](@ref) by their names in OrdinaryDiffEq: `:Tsit5`.
"""
const SOLVERS = (:Tsit5,)

function check_solver(solver::Symbol)
    solver in SOLVERS || throw(ArgumentError("unknown solver $solver: expected one of $(join(SOLVERS, ", "))"))
    return nothing
end

algorithm(solver::Symbol) = solver === :Tsit5 ? Tsit5() : algorithm(Val(solver))
tableau(solver::Symbol) = solver === :Tsit5 ? TSIT5 : tableau(Val(solver))
tableau(::Val) = nothing
