# One problem evaluated by many tasks at once: every task must get what it gets alone. With one thread, tasks would take
# turns and share memory without harm, so this file starts itself again with several.

function evaluated_at_once(field; rounds = 40)
    problem = example_problem(field)
    params = [example_parameters(field) .* (0.6 + 0.1 * k) for k in 1:8]
    alone = map(p -> (loss_and_gradient(problem, p), trajectory(problem, p)), params)
    for _ in 1:rounds
        tasks = map(p -> Threads.@spawn((loss_and_gradient(problem, p), trajectory(problem, p))), params)
        fetch.(tasks) == alone || return false
    end
    return true
end

@testset "one problem in several tasks" begin
    if Threads.nthreads() > 1
        @test evaluated_at_once(mlp_field([2, 5, 2]))
        @test evaluated_at_once(kan_field([2, 3, 2]))
    else
        program = """
            using KanSciML, Random, Test
            include($(repr(joinpath(@__DIR__, "references.jl"))))
            include($(repr(@__FILE__)))
            """
        command = `$(Base.julia_cmd()) --project=$(Base.active_project()) --threads=4 -e $program`
        @test success(pipeline(command; stdout, stderr))
    end
end
