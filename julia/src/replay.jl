# The exact gradient of the discrete solution, by replaying its accepted steps backwards.
#
# `Tsit5()` integrates without derivatives and keeps the slopes k_j of every accepted step. With k_j = f(Y_j),
# Y_j = u + h sum_m A[j, m] k_m, the next state u + h sum_j A[7, j] k_j and save points u + h sum_j P_j(theta) k_j, the
# gradient is backpropagation through these formulas with the step sizes held fixed. All Y_j are known once the solve is
# over, so the field is visited as one batch; the recursion over the steps then needs one vector-Jacobian product a
# stage; the parameter gradient is one batched product at the end.

function replay_loss_and_gradient!(gradient, problem::FitProblem, params, n_save::Int)
    t_end = problem.saveat[n_save]
    if t_end == problem.t0  # only the initial state is compared: it has no parameters
        fill!(gradient, 0)
        return mean_square(problem, problem.u0)
    end
    return with_workspace(problem) do workspace
        kernel = bind!(workspace.kernel, params)
        quietly() do
            (; rtol, atol) = problem
            solution = integrate(kernel, problem, problem.u0, (problem.t0, t_end); rtol, atol, dense = true)
            replay!(gradient, problem, workspace, solution, n_save)
        end::Float64
    end
end

mean_square(problem, u) = sum(abs2, (u .- problem.data[:, 1]) ./ problem.loss_scale) / length(u)

function replay!(gradient, problem, workspace, solution, n_save)
    (; kernel, memory) = workspace
    loss = compare_saved!(memory, problem, solution, n_save)
    columns = stage_states!(memory, solution)
    linearise!(kernel, memory.states, columns)
    pull_steps!(memory, kernel, solution, n_save)
    pull_parameters!(gradient, kernel, columns)
    isfinite(loss) && all(isfinite, gradient) || throw(SolveFailure("the solution or its gradient is not finite"))
    return loss
end

# The loss; `memory.saved` holds its gradient by the saved states.
function compare_saved!(memory, problem, solution, n_save)
    (; saveat, data, loss_scale) = problem
    n = length(problem.u0)
    if size(memory.saved, 2) < n_save
        memory.saved = Matrix{Float64}(undef, n, n_save)
        resize!(memory.step, n_save)
        resize!(memory.theta, n_save)
    end
    saved = memory.saved
    total, factor, step = 0.0, 2 / (n * n_save), 1
    for s in 1:n_save
        while solution.t[step + 1] < saveat[s] && step < length(solution.t) - 1
            step += 1
        end
        h = solution.t[step + 1] - solution.t[step]
        theta = (saveat[s] - solution.t[step]) / h
        memory.step[s], memory.theta[s] = step, theta
        column = view(saved, :, s)
        copyto!(column, solution.u[step])
        for j in 1:STAGES
            add_scaled!(column, h * dense_weight(j, theta), solution.k[step + 1][j])
        end
        for i in 1:n
            residual = (column[i] - data[i, s]) / loss_scale[i]
            total += residual^2
            column[i] = factor * residual / loss_scale[i]
        end
    end
    return total / (n * n_save)
end

@inline function add_scaled!(y, a, x)
    @inbounds @simd for i in eachindex(y, x)
        y[i] = muladd(a, x[i], y[i])
    end
    return y
end

# Fills `memory.states`; number of its columns. Column 6 (step - 1) + j is stage j of a step.
function stage_states!(memory, solution)
    steps = length(solution.t) - 1
    n, columns = length(memory.running), (STAGES - 1) * steps + 1
    if size(memory.states, 2) < columns
        memory.states = Matrix{Float64}(undef, n, columns + columns ÷ 2)
    end
    states = memory.states
    for step in 1:steps
        h = solution.t[step + 1] - solution.t[step]
        start, slopes = solution.u[step], solution.k[step + 1]
        for j in 1:(STAGES - 1)
            column = view(states, :, (STAGES - 1) * (step - 1) + j)
            copyto!(column, start)
            for m in 1:(j - 1)
                add_scaled!(column, h * A[j, m], slopes[m])
            end
        end
    end
    copyto!(view(states, :, columns), solution.u[end])
    return columns
end

# From the last step to the first: hands every stage its slope's cotangent, through `pull_state!`.
function pull_steps!(memory, kernel, solution, n_save)
    (; slope_cotangents, running, pulled, saved) = memory
    fill!(slope_cotangents, 0)
    fill!(running, 0)
    s = n_save
    for step in (length(solution.t) - 1):-1:1
        h = solution.t[step + 1] - solution.t[step]
        first_column = (STAGES - 1) * (step - 1)
        # The last stage's slope is the first of the next step, whose cotangent column 1 still holds.
        copyto!(view(slope_cotangents, :, STAGES), view(slope_cotangents, :, 1))
        fill!(view(slope_cotangents, :, 1:(STAGES - 1)), 0)
        first_saved = s
        while first_saved >= 1 && memory.step[first_saved] == step
            for j in 1:STAGES
                weight = h * dense_weight(j, memory.theta[first_saved])
                add_scaled!(view(slope_cotangents, :, j), weight, view(saved, :, first_saved))
            end
            first_saved -= 1
        end
        pull_state!(pulled, kernel, first_column + STAGES, view(slope_cotangents, :, STAGES))
        add_scaled!(running, 1.0, pulled)
        for j in 1:(STAGES - 1)
            add_scaled!(view(slope_cotangents, :, j), h * A[STAGES, j], running)
        end
        for j in (STAGES - 1):-1:2
            pull_state!(pulled, kernel, first_column + j, view(slope_cotangents, :, j))
            add_scaled!(running, 1.0, pulled)
            for m in 1:(j - 1)
                add_scaled!(view(slope_cotangents, :, m), h * A[j, m], pulled)
            end
        end
        for k in (first_saved + 1):s
            add_scaled!(running, 1.0, view(saved, :, k))
        end
        s = first_saved
    end
    pull_state!(pulled, kernel, 1, view(slope_cotangents, :, 1))
    return nothing
end
