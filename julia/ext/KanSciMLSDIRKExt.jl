module KanSciMLSDIRKExt

using KanSciML: KanSciML
using OrdinaryDiffEqSDIRK: KenCarp4

KanSciML.algorithm(::Val{:KenCarp4}) = KenCarp4()

end
