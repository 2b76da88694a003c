# A folder as Python writes it, written here by hand.

function write_model(folder, field, params, starts; units = "null", extra = Dict(), time = false, solver = "5")
    (; model, widths, center, scale, rate, inputs, outside) = field.spec
    list(x) = "[" * join(x, ", ") * "]"
    signal = inputs == 0 ? "null" : "\"linear\""
    time = outside === :zero ? "$time" : "$time, \"outside\": \"$outside\""
    fixed = "\"name\": \"\", \"t0\": 1.0, \"t_end\": 3.0, \"learned\": false, \"follows\": null"
    series = join(("{$fixed, \"u0\": $(list(start)), \"inputs\": $signal}" for start in eachcol(starts)), ", ")
    write(joinpath(folder, "model.json"), """
        {"schema": 1, "kansciml": "0.1.0", "field": {"kind": "spec", "model": "$model", "widths": $(list(widths)),
         "activation": "tanh", "grid": 5, "spline_order": 3, "grid_range": [-1.0, 1.0], "center": $(list(center)),
         "scale": $(list(scale)), "rate": $(list(rate)), "squash": false, "input_power": 1, "inputs": $inputs,
         "time": $time}, "units": $units, "loss_scale": [1.0, 1.0],
         "solver": {"name": "$solver", "rtol": 1e-10, "atol": 1e-10, "max_steps": 20000},
         "labels": ["prey \\u00e4", "\\"predator\\""], "input_labels": [], "series": [$series], "metrics": {}}
        """)
    arrays = merge(Dict("params" => params, "starts" => starts), extra)
    offset, entries, data = 0, String[], UInt8[]
    for (name, array) in arrays
        bytes = reinterpret(UInt8, htol.(vec(array)))
        shape, ends = list(reverse(size(array))), list([offset, offset + length(bytes)])
        push!(entries, "\"$name\": {\"dtype\": \"F64\", \"shape\": $shape, \"data_offsets\": $ends}")
        append!(data, bytes)
        offset += length(bytes)
    end
    header = "{" * join(entries, ", ") * "}"
    return write(joinpath(folder, "model.safetensors"), htol(UInt64(ncodeunits(header))), header, data)
end

@testset "a saved model is the field and its trajectories: $outside" for outside in (:zero, :clamp)
    field = kan_field([2, 3, 2]; center = [0.1, 0.2], scale = [2.0, 3.0], rate = [1.0, 2.0], outside)
    params, starts = example_parameters(field), [0.1 0.2; 0.3 -0.4]
    problem = FitProblem(field, [0.5, -0.2], [2.0, 4.0], zeros(2, 2); t0 = 1.5, rtol = 1e-10, atol = 1e-10)
    expected = trajectory(problem, params)
    mktempdir() do folder
        for units in ("null", "{\"origin\": [0.3, -2.0], \"state\": [0.5, 10.0], \"t0\": -1.0, \"time\": 3.0}")
            write_model(folder, field, params, starts; units)
            model = KanSciML.load(folder)
            @test model.labels == ["prey ä", "\"predator\""]
            @test model([0.3, 0.4], 0.0) == field([0.3, 0.4], params) == model([0.3, 0.4], nothing, 2.0)
            @test trajectory(model; u0 = [0.5, -0.2], t0 = 1.5, saveat = [2.0, 4.0]) ≈ expected rtol = 1e-8
            second = units == "null" ? starts[:, 2] : [0.3, -2.0] .+ [0.5, 10.0] .* starts[:, 2]
            @test trajectory(model; series = 2, saveat = [1.0, 2.0])[:, 1] ≈ second
            @test occursin("KAN field 2-3-2", string(model))
        end
    end
end

@testset "a saved model with inputs and time" begin
    field = mlp_field([4, 5, 2]; inputs = 1, time = true)
    params = example_parameters(field)
    inputs = Inputs([1.0, 2.0, 3.0], [0.5, 1.0, -1.0])
    problem = FitProblem(field, [Series([0.1, 0.2], [2.5], zeros(2, 1); t0 = 1.0, inputs)]; rtol = 1e-10, atol = 1e-10)
    mktempdir() do folder
        write_model(folder, field, params, reshape([0.1, 0.2], 2, 1); time = true,
            extra = Dict("inputs.0.t" => inputs.t, "inputs.0.values" => inputs.values))
        model = KanSciML.load(folder)
        @test model([0.1, 0.2], 1.5; inputs = [0.7]) == field([0.1, 0.2, 0.7, 1.5], params)
        @test trajectory(model; saveat = [2.5]) ≈ trajectory(problem, params) rtol = 1e-9
        @test_throws DimensionMismatch model([0.1, 0.2], 1.5)
        @test_throws "expected all of" trajectory(model; saveat = [3.5])
    end
end

@testset "a saved layer of Lux is what its file says" begin
    field = mlp_field([2, 3, 2]; center = [0.1, 0.2])
    params, start = example_parameters(field), [0.5, -0.2]
    problem = FitProblem(field, start, [2.0, 4.0], zeros(2, 2); t0 = 1.0, rtol = 1e-10, atol = 1e-10)
    sizes = "\"state_size\": 2, \"inputs\": 0, \"time\": false, \"scale\": [1, 1], \"rate\": [1, 1]"
    told = "\"field\": {\"kind\": \"lux\", \"name\": \"field.jl\", \"center\": [0.1, 0.2], $sizes}"
    mktempdir() do folder
        path = joinpath(folder, "model.json")
        units = "{\"origin\": [0.3, -2.0], \"state\": [0.5, 10.0], \"t0\": -1.0, \"time\": 3.0}"
        write_model(folder, field, params, reshape((start .- [0.3, -2.0]) ./ [0.5, 10.0], 2, 1); units)
        write(path, replace(read(path, String), r"\"field\": \{[^}]*\}" => told))
        write(joinpath(folder, "field.jl"), "using KanSciML\nscaling -> mlp_field([2, 3, 2]; scaling.center)")
        model = KanSciML.load(folder)
        @test model([0.3, 0.4], 0.0) ≈ field([0.3, 0.4], params)
        @test trajectory(model; saveat = [2.0, 4.0]) ≈ trajectory(problem, params) rtol = 1e-7
        write(joinpath(folder, "field.jl"), "using KanSciML\nmlp_field([2, 3, 2]")
        @test_throws r"field.jl:2:\d+: syntax error" KanSciML.load(folder)
    end
end

@testset "what is no model is told" begin
    field = mlp_field([2, 3, 2])
    mktempdir() do folder
        @test_throws "holds no model" KanSciML.load(folder)
        write_model(folder, field, example_parameters(field), zeros(2, 1))
        path = joinpath(folder, "model.safetensors")
        whole = read(path)
        write(path, whole[1:(end - 8)])
        @test_throws "is damaged" KanSciML.load(folder)
        write(path, whole)
        description = joinpath(folder, "model.json")
        write(description, replace(read(description, String), "\"spec\"" => "\"module\""))
        @test_throws "kind module" KanSciML.load(folder)
        write(description, "{\"schema\": 2}")
        @test_throws "schema 2" KanSciML.load(folder)
    end
end

@testset "JSON" begin
    read_json = KanSciML.read_json
    @test read_json(" {\"a\": [1, -2.5e3, true, null, {}], \"b\\n\": \"\\ud83d\\ude00\\/\\u00e9\"} ") ==
        Dict("a" => [1, -2500.0, true, nothing, Dict()], "b\n" => "😀/é")
    @test read_json("[]") == []
    for bad in ("{", "[1,]", "{\"a\" 1}", "nul", "1 2", "\"a")
        @test_throws ArgumentError read_json(bad)
    end
end
