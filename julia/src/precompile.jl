# A real solve and gradient of both models by a solver, through the very calls that the worker makes: without it, the
# first gradient of a process takes half a minute, nearly all of it compilation. Extensions do it for their solvers.
function exercise(solver::Symbol)
    saveat, knots = repeat(0.0:0.5:2.0, 2), repeat([0.0, 1.0, 2.5], 2)
    data = ones(2, length(saveat))
    states, weights, signal = similar(data), ones(size(data)), ones(1, length(knots))
    t0s, save_counts, knot_counts, held, follows = zeros(2), [5.0, 5.0], [3.0, 3.0], [0.0, 1.0], [-1.0, -1.0]
    starts, ones2, picked = [0.5 0.3; -0.3 0.2], ones(2), [0.0, 1.0]
    at(array) = Int(UInt(pointer(array)))
    for model in ("mlp", "kan"), inputs in (0, 1)
        width = 2 + 2inputs
        normalisation = [zeros(width); ones(width + 2)]
        kept = (
            saveat, knots, data, states, weights, signal, t0s, save_counts, knot_counts, held, follows, starts, ones2,
            picked, normalisation,
        )
        GC.@preserve kept begin
            id = Addresses.setup(
                model, "tanh", "$width 3 2", 5, 3, -1.0, 1.0, false, 1, inputs, inputs == 1, at(normalisation),
                string(solver), 2, at(starts), at(t0s), at(save_counts), at(saveat), at(knot_counts), at(held),
                at(knots), at(signal), at(data), at(weights), at(follows), at(ones2), 1.0, 1e-4, 1e-4, 1000,
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

@compile_workload exercise(:Tsit5)
