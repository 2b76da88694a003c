# The solver BS3: P. Bogacki, L. F. Shampine, A 3(2) pair of Runge-Kutta formulas, Applied Mathematics Letters 2 (1989)
# 321-325; between steps the solver takes the cubic Hermite polynomial.
module KanSciMLLowOrderRKExt

using KanSciML: KanSciML, Tableau
using OrdinaryDiffEqLowOrderRK: BS3
using PrecompileTools: @compile_workload

KanSciML.algorithm(::Val{:BS3}) = BS3()
KanSciML.needs_jacobian(::BS3) = false

function KanSciML.tableau(solver::BS3)
    KanSciML.has_limiters(solver) && return nothing
    A = [0 0 0 0; 1/2 0 0 0; 0 3/4 0 0; 2/9 1/3 4/9 0]
    b = A[4, :]
    dense = [zeros(4) 3b -2b] + [1 -2 1; 0 0 0; 0 0 0; 0 -1 1]
    return Tableau([0, 1/2, 3/4, 1], A, b, dense, 4, true, false)
end

@compile_workload KanSciML.exercise(:BS3)

end
