# The solver Vern8: J. H. Verner, Numerically optimal Runge-Kutta pairs with interpolants, Numerical Algorithms 53
# (2010) 383-396. Its coefficients are the solver's own, by their names: a0302 is A[3, 2].
module KanSciMLVernerExt

using KanSciML: KanSciML, Tableau, consistent, internal
using OrdinaryDiffEqVerner: OrdinaryDiffEqVerner, Vern8
using PrecompileTools: @compile_workload

KanSciML.algorithm(::Val{:Vern8}) = Vern8()
KanSciML.needs_jacobian(::Vern8) = false

function KanSciML.tableau(solver::Vern8)
    KanSciML.has_limiters(solver) && return nothing
    c, A, b, dense = zeros(21), zeros(21, 21), zeros(21), zeros(21, 8)
    c[12] = 1
    table = internal(OrdinaryDiffEqVerner, :Vern8Tableau)(Float64, Float64)
    for part in (table, internal(table, :extra), internal(table, :interp)), name in fieldnames(typeof(part))
        kind, number = match(r"^([a-z]+)(\d*)$", string(name))
        if kind == "a"
            A[parse(Int, number[1:2]), parse(Int, number[3:4])] = getfield(part, name)
        elseif kind == "b"
            b[parse(Int, number)] = getfield(part, name)
        elseif kind == "c"
            c[parse(Int, number)] = getfield(part, name)
        elseif kind == "r"
            dense[parse(Int, number[1:2]), parse(Int, number[3:3])] = getfield(part, name)
        end
    end
    kept = [1:12; 14:21]              # stage 13 serves the error estimate alone
    return consistent(Tableau(c[kept], A[kept, kept], b[kept], dense[kept, :], 12, false, false), "Vern8")
end

@compile_workload KanSciML.exercise(:Vern8)

end
