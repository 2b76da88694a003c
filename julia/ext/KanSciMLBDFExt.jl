module KanSciMLBDFExt

using KanSciML: KanSciML
using OrdinaryDiffEqBDF: FBDF

KanSciML.algorithm(::Val{:FBDF}) = FBDF()

end
