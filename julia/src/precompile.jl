# A real solve and gradient of both models, through the very calls that the worker makes: without it, the first gradient
# of a process takes half a minute, nearly all of it compilation.
@setup_workload begin
    saveat = collect(0.0:0.5:2.0)
    data = ones(2, length(saveat))
    states = similar(data)
    normalisation = [0.0 1.0 1.0; 0.0 1.0 1.0]
    u0, ones2 = [0.5, -0.3], ones(2)
    at(array) = Int(UInt(pointer(array)))
    @compile_workload begin
        GC.@preserve saveat data states normalisation u0 ones2 for model in ("mlp", "kan")
            id = Addresses.setup(
                model, "tanh", "2 3 2", 5, 3, -1.0, 1.0, false, 1, at(normalisation), at(u0), length(saveat),
                at(saveat), at(data), at(ones2), 0.0, 1e-6, 1e-6, 1000,
            )
            field = Addresses.PROBLEMS[id].field
            params = initial_parameters(Random.Xoshiro(0), field)
            gradient = similar(params)
            GC.@preserve params gradient begin
                Addresses.value_and_gradient(id, at(params), "Replay", length(saveat), at(gradient))
                Addresses.trajectory(id, at(params), length(saveat), at(saveat), 1e-8, 1e-8, at(states))
                Addresses.rhs(id, length(saveat), at(data), at(params), at(states))
            end
            Addresses.release(id)
        end
    end
end
