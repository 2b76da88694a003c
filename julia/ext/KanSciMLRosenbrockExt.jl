# Rodas5P: G. Steinebach, Construction of Rosenbrock-Wanner method Rodas5P and numerical benchmarks within the Julia
# Differential Equations package, BIT Numerical Mathematics 63 (2023) 27. Its coefficients are the solver's own.
module KanSciMLRosenbrockExt

using KanSciML: KanSciML, RosenbrockTableau, internal
using OrdinaryDiffEqRosenbrock: OrdinaryDiffEqRosenbrock, Rodas5P, Rosenbrock23
using OrdinaryDiffEqTsit5: AutoTsit5
using PrecompileTools: @compile_workload

KanSciML.algorithm(::Val{:Rodas5P}) = Rodas5P()
KanSciML.algorithm(::Val{:AutoTsit5}) = AutoTsit5(Rosenbrock23())
KanSciML.name_of(::typeof(AutoTsit5(Rosenbrock23()))) = "AutoTsit5"

# Between steps u = (1 - theta) u0 + theta (u1 + (1 - theta) (K1 + theta (K2 + theta K3))), K = H k.
function KanSciML.tableau(solver::Rodas5P)
    KanSciML.has_limiters(solver) && return nothing
    table = internal(OrdinaryDiffEqRosenbrock, :Rodas5PTableau)(Float64, Float64)
    A, C, gamma, c, d, b, H = (internal(table, name) for name in (:A, :C, :gamma, :c, :d, :b, :H))
    dense = [b + H[1, :] H[2, :] - H[1, :] H[3, :] - H[2, :] -H[3, :]]
    return RosenbrockTableau(A, C, gamma, c, d, b, dense)
end

@compile_workload KanSciML.exercise(:Rodas5P)

end
