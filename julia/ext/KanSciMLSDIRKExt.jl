module KanSciMLSDIRKExt

using KanSciML: KanSciML
using OrdinaryDiffEqSDIRK: KenCarp4

# Its smoothed error estimate is too small: errors were hundreds of times the tolerance.
KanSciML.algorithm(::Val{:KenCarp4}) = KenCarp4(; smooth_est = false)
KanSciML.steps_onto_saves(::KenCarp4) = true

end
