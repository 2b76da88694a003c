# Output and gradient of one layer, by input and parameters: SplineKANLayer beside KDense of KolmogorovArnold.jl, with
# about as many coefficients per edge, in Float32 on one thread.
#
#     julia --project=julia/benchmark -e 'import Pkg; Pkg.develop(path = "julia"); Pkg.instantiate()'
#     julia --project=julia/benchmark julia/benchmark/layers.jl

using KanSciML, KolmogorovArnold, LinearAlgebra, Lux, Random, Zygote

BLAS.set_num_threads(1)

# Median milliseconds of each of several calls, made in turn, so that what else the machine does slows all of them
# alike.
function median_times(calls; seconds = 20)
    foreach(call -> call(), calls)
    samples, stop = [Float64[] for _ in calls], time() + seconds
    while time() < stop
        for (call, sample) in zip(calls, samples)
            push!(sample, 1e3 * @elapsed call())
        end
    end
    return [sort(sample)[cld(length(sample), 2)] for sample in samples]
end

# The output of a layer, and the gradient of its squares by input and parameters.
function calls(layer, x)
    ps, st = Lux.setup(Xoshiro(0), layer)
    loss(x, ps) = sum(abs2, first(layer(x, ps, st)))
    return () -> layer(x, ps, st), () -> Zygote.gradient(loss, x, ps)
end

for (n_in, n_out, batch) in ((64, 64, 256), (256, 256, 1024))
    x = rand(Xoshiro(1), Float32, n_in, batch) .- 0.5f0
    ours, other = calls(SplineKANLayer(n_in => n_out; grid = 5), x), calls(KDense(n_in, n_out, 8), x)
    a, b, c, d = round.(median_times((ours[1], other[1], ours[2], other[2])); sigdigits = 3)
    println("$n_in x $n_out, batch $batch: output, output and gradient in ms")
    println("  SplineKANLayer, G = 5, S = 3  $a, $c")
    println("  KDense, 8 basis functions     $b, $d")
end
