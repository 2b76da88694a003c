# Output and gradient of one layer, by input and parameters: SplineKANLayer beside KDense of KolmogorovArnold.jl, with
# about as many coefficients per edge, in Float32 on one thread.
#
#     julia --project=julia/benchmark -e 'import Pkg; Pkg.develop(path = "julia"); Pkg.instantiate()'
#     julia --project=julia/benchmark julia/benchmark/layers.jl

using KanSciML, KolmogorovArnold, LinearAlgebra, Lux, Random, Zygote

BLAS.set_num_threads(1)

# Milliseconds, the least of many calls one after the other.
function least_time(f; seconds = 3)
    f()
    best, stop = Inf, time() + seconds
    while time() < stop
        best = min(best, @elapsed f())
    end
    return 1e3best
end

function times(layer, n_in, batch)
    ps, st = Lux.setup(Xoshiro(0), layer)
    x = rand(Xoshiro(1), Float32, n_in, batch) .- 0.5f0
    loss(x, ps) = sum(abs2, first(layer(x, ps, st)))
    return least_time(() -> layer(x, ps, st)), least_time(() -> Zygote.gradient(loss, x, ps))
end

for (n_in, n_out, batch) in ((64, 64, 256), (256, 256, 1024))
    println("$n_in x $n_out, batch $batch: output, output and gradient in ms")
    for (name, layer) in (
        ("SplineKANLayer, G = 5, S = 3", SplineKANLayer(n_in => n_out; grid = 5)),
        ("KDense, 8 basis functions", KDense(n_in, n_out, 8)),
    )
        println("  ", rpad(name, 30), join(round.(times(layer, n_in, batch); sigdigits = 3), ", "))
    end
end
