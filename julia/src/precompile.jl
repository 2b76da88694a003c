# A real solve and gradient of both models by a solver, through the very calls that the worker makes: without it, the
# first gradient of a process takes half a minute, nearly all of it compilation. Extensions do it for their solvers.
function exercise(solver::Symbol)
    saveat, knots = repeat(0.0:0.5:2.0, 2), repeat([0.0, 1.0, 2.5], 2)
    data, starts = ones(2, length(saveat)), [0.5 0.3; -0.3 0.2]
    pieces = (;
        starts, t0s = zeros(2), counts = [5.0, 5.0], saveat, knot_counts = [3.0, 3.0], held = [0.0, 1.0], knots,
        values = ones(1, length(knots)),
    )
    measured = (; data, weights = ones(size(data)), follows = [-1.0, -1.0], loss_scale = ones(2))
    limits = """ "rtol": 1e-4, "atol": 1e-4, "max_steps": 1000, "continuity": 1.0"""
    for model in ("mlp", "kan", "hybrid"), inputs in (0, 1)
        set = """ "field": $(exercised(model, inputs)), "solver": "$solver", $limits"""
        id = read_json(ask("setup", set, (; pieces..., measured...)))["problem"]
        (; field) = Bridge.PROBLEMS[id]
        params = initial_parameters(Random.Xoshiro(0), field)
        results = (; params, by_params = similar(params), by_starts = similar(starts))
        of, replayed = """ "problem": $id""", """ "sensealg": "Replay" """
        for picked in ([0.0], [0.0, 1.0])
            ask("value_and_grad", "$of, $replayed", (; results..., starts, series = picked, rows = 5 .+ 0 .* picked))
        end
        for sensealg in (""" "sensealg": "" """, replayed)
            ask("states", "$of, $limits, $sensealg", (; pieces..., params, states = similar(data)))
        end
        ask("pull", of, (; results..., cotangents = data))
        x = ones(field.spec.widths[1], 2)
        ask("rhs", of, (; x, params, slopes = ones(2, 2)))
        ask("release", of, (;))
    end
    return nothing
end

# A request as the worker makes it.
function ask(what, values, arrays)
    named = (
        "\"$name\": [$(Int(UInt(pointer(array)))), $(join(reverse(size(array)), ", "))]" for
        (name, array) in pairs(arrays)
    )
    GC.@preserve arrays Bridge.answer("""{"do": "$what", $values, "arrays": {$(join(named, ", "))}}""")
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
