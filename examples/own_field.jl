# A layer of Lux of your own as the vector field of a neural ODE, beside the built-in MLP and KAN.
#
# Run: kansciml ode --backend julia --field examples/own_field.jl --system lotka
#
# The last value of the file is the layer, from states in the unit of the data (n, B) to du/dt (n, B), or a function that
# gives it of the scaling of the data, three vectors, as here. Inputs and time, where there are any, follow the states.

using Lux

function field((; center, scale, rate))
    inputs, outputs, width = length(center), length(rate), 12
    return Chain(
        u -> (u .- center) ./ scale,
        Dense(inputs => width, gelu),
        SkipConnection(Dense(width => width, gelu), +),
        Dense(width => outputs),
        du -> rate .* du,
    )
end
