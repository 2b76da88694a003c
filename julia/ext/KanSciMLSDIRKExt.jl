module KanSciMLSDIRKExt

using KanSciML: KanSciML
using OrdinaryDiffEqSDIRK: KenCarp4

KanSciML.algorithm(::Val{:KenCarp4}) = KenCarp4()
KanSciML.steps_onto_saves(::KenCarp4) = true

end
