# A real solve and gradient of both models by a solver, through the very calls that the worker makes: without it, the
# first gradient of a process takes half a minute, nearly all of it compilation. Extensions do it for their solvers.
function exercise(solver::Symbol)
    saveat, knots = repeat(0.0:0.5:2.0, 2), repeat([0.0, 1.0, 2.5], 2)
    data = ones(2, length(saveat))
    states, weights, signal = similar(data), ones(size(data)), ones(1, length(knots))
    t0s, save_counts, knot_counts, held, follows = zeros(2), [5.0, 5.0], [3.0, 3.0], [0.0, 1.0], [-1.0, -1.0]
    starts, ones2, picked = [0.5 0.3; -0.3 0.2], ones(2), [0.0, 1.0]
    at(array) = Int(UInt(pointer(array)))
    for model in ("mlp", "kan", "hybrid"), inputs in (0, 1)
        kept = (
            saveat, knots, data, states, weights, signal, t0s, save_counts, knot_counts, held, follows, starts, ones2,
            picked,
        )
        GC.@preserve kept begin
            id = Addresses.setup(
                exercised(model, inputs), string(solver), 2, at(starts), at(t0s), at(save_counts), at(saveat),
                at(knot_counts), at(held), at(knots), at(signal), at(data), at(weights), at(follows), at(ones2), 1.0,
                1e-4, 1e-4, 1000,
            )
            field = Addresses.PROBLEMS[id].field
            params = initial_parameters(Random.Xoshiro(0), field)
            gradient, by_starts = similar(params), similar(starts)
            GC.@preserve params gradient by_starts begin
                for count in 1:2
                    Addresses.value_and_gradient(
                        id, at(params), at(starts), count, at(picked), at(save_counts), "Replay", at(gradient),
                        at(by_starts),
                    )
                end
                for sensealg in ("", "Replay")
                    Addresses.states(
                        id, at(params), 2, at(starts), at(t0s), at(save_counts), at(saveat), at(knot_counts), at(held),
                        at(knots), at(signal), 1e-4, 1e-4, sensealg, at(states),
                    )
                end
                Addresses.pull(id, at(params), at(data), at(gradient), at(by_starts))
                Addresses.rhs(id, 2, at(data), at(params), at(states))
            end
            Addresses.release(id)
        end
    end
    return nothing
end

function exercised(model, inputs)
    network(model, n_in, rest) = """
        {"model": "$model", "widths": [$n_in, 3, 2], "activation": "tanh", "grid": 5, "spline_order": 3,
         "grid_range": [-1.0, 1.0], "center": [], "scale": [], "rate": [], "squash": false, "input_power": 1$rest}"""
    model == "hybrid" ||
        return network(model, 2 + 2inputs, ", \"kind\": \"spec\", \"inputs\": $inputs, \"time\": $(inputs == 1)")
    known = """{"nodes": [["state", 0], ["parameter", 0], ["network", 0, 1], ["output", 2, 0], ["*", 3, 1], ["exp", 0]],
        "slopes": [4, 5], "parameters": [1]}"""
    return """{"kind": "hybrid", "network": $(network(inputs == 0 ? "mlp" : "kan", 2, "")), "equations": $known,
        "parameters": [{"name": "p"}], "inputs": $inputs}"""
end

@compile_workload exercise(:Tsit5)
