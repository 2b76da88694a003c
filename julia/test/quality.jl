# What tools find in the package as a whole.

using Aqua, JET

@testset "Aqua" begin
    Aqua.test_all(KanSciML; persistent_tasks = false)
end

# What inference finds depends on the version of Julia; this is the oldest one that is supported.
@testset "JET: $(label(field))" for field in (VERSION < v"1.11" ? (mlp_field([2, 5, 2]), kan_field([2, 3, 2])) : ())
    params, problem = example_parameters(field), example_problem(field)
    @test_call target_modules = (KanSciML,) loss_and_gradient(problem, params)
    @test_opt target_modules = (KanSciML,) loss_and_gradient(problem, params)
    @test_opt target_modules = (KanSciML,) trajectory(problem, params)
end
