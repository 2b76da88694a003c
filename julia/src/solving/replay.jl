# The exact gradient of the discrete solution, by replaying its accepted steps backwards.
#
# The solver integrates without derivatives. With k_j = f(Y_j), Y_j = u + h sum_m A[j, m] k_m, the next state
# u + h sum_j b_j k_j and save points u + h sum_j P_j(theta) k_j, the gradient is backpropagation through these formulas
# with the step sizes held fixed. All Y_j are known once the solve is over, so the field is visited as one batch; the
# recursion over the steps then needs one vector-Jacobian product a stage; the parameter gradient is one batched product
# at the end.

struct Replay end

# The accepted steps of a piece; its states at the save times are then in `memory.saved`.
function record!(::Replay, workspace, problem, params, piece)
    (; kernel, forcing) = workspace
    solution = integrate(kernel, forcing, problem, piece, piece.start; dense = keeps_slopes(problem.tableau))
    keeps_slopes(problem.tableau) && check_slopes(solution, problem.tableau)
    steps = replay_steps!(workspace, problem.tableau, solution, piece, params)
    return (solution, steps), view(workspace.memory.saved, :, eachindex(piece.saveat))
end

# Gradients of sum(cotangents .* states) by the parameters and the start.
function pull!(gradient, by_start, ::Replay, workspace, problem, params, piece, (solution, steps), cotangents)
    (; kernel, memory) = workspace
    kept = view(memory.saved, :, eachindex(piece.saveat))
    cotangents === kept || copyto!(kept, cotangents)
    pull_steps!(memory, kernel, problem.tableau, solution, piece, steps)
    pull_all_parameters!(gradient, kernel, memory.first_column[end] - 1, steps)
    copyto!(by_start, memory.running)
    return nothing
end

# Where a workspace has worked on other pieces since.
function recall!(::Replay, workspace, problem, params, piece, (solution, _))
    use_inputs!(workspace.forcing, piece.inputs, piece.t0)
    return solution, replay_steps!(workspace, problem.tableau, solution, piece, params)
end

keeps_slopes(table::Tableau) = table.keeps_slopes
keeps_slopes(table) = false

function replay_steps!(workspace, table::Tableau, solution, piece, params)
    (; kernel, memory) = workspace
    locate_saved!(memory, solution, piece.saveat)
    place_columns!(memory, table, solution, piece.inputs)
    stage_states!(workspace, table, solution, piece)
    linearise!(kernel, memory.states, memory.first_column[end] - 1)
    return nothing
end

pull_all_parameters!(gradient, kernel, columns, ::Nothing) = pull_parameters!(gradient, kernel, columns)

# Step that each save point lies in, and where.
function locate_saved!(memory, solution, saveat)
    resize!(memory.step, length(saveat))
    resize!(memory.theta, length(saveat))
    if size(memory.saved, 2) < length(saveat)
        memory.saved = similar(memory.saved, size(memory.saved, 1), length(saveat))
    end
    step, t = 1, solution.t
    for (s, time) in enumerate(saveat)
        while t[step + 1] < time && step < length(t) - 1
            step += 1
        end
        memory.step[s], memory.theta[s] = step, (time - t[step]) / (t[step + 1] - t[step])
    end
    return nothing
end

# The last stage of a step is the next one's first, unless held inputs jump between them.
shares_last(table, inputs, t) = table.shares_last && !(is_held(inputs) && insorted(t, inputs.t))

# Column j - 1 behind the first one of a step is its stage j.
function place_columns!(memory, table, solution, inputs)
    (; first_column) = memory
    steps = length(solution.t) - 1
    resize!(first_column, steps + 1)
    first_column[1], s = 1, 1
    for step in 1:steps
        while s <= length(memory.step) && memory.step[s] < step
            s += 1
        end
        saves = s <= length(memory.step) && memory.step[s] == step
        stages = saves ? stage_count(table) : table.stepping
        shared = step < steps && shares_last(table, inputs, solution.t[step + 1])
        first_column[step + 1] = first_column[step] + stages - shared
    end
    columns = first_column[end] - 1
    if size(memory.states, 2) < columns
        memory.states = similar(memory.states, size(memory.states, 1), columns + columns ÷ 2)
    end
    return nothing
end

@inline function add_scaled!(y, a, x)
    @inbounds @simd for i in eachindex(y)
        y[i] = muladd(a, x[i], y[i])
    end
    return y
end

# Fills `memory.states` and `memory.saved`.
function stage_states!(workspace, table, solution, piece)
    (; kernel, forcing, memory) = workspace
    (; A) = table
    n, last_stage = length(memory.running), table.stepping
    extended = n < size(memory.states, 1)
    s = 1
    for step in 1:(length(solution.t) - 1)
        t, h = solution.t[step], solution.t[step + 1] - solution.t[step]
        start = solution.u[step]
        slopes = table.keeps_slopes ? solution.k[step + 1] : memory.slopes
        hold!(forcing, piece.inputs, t)
        first_column, after = memory.first_column[step], memory.first_column[step + 1]
        for column in first_column:(after - 1)
            j = column - first_column + 1
            state = view(memory.states, :, column)
            if j == last_stage && table.shares_last
                copyto!(state, solution.u[step + 1])
            else
                copyto!(state, start)
                for m in 1:(j - 1)
                    A[j, m] == 0 || add_scaled!(view(state, 1:n), h * A[j, m], slopes[m])
                end
            end
            extended && extend!(state, forcing, n, t + table.c[j] * h)
            table.keeps_slopes || rhs!(slopes[j], state, kernel)
        end
        if !table.keeps_slopes && table.shares_last && after - first_column < last_stage
            state = view(memory.states, :, after)
            extend!(copyto!(state, solution.u[step + 1]), forcing, n, t + h)
            rhs!(slopes[last_stage], state, kernel)
        end
        while s <= length(memory.step) && memory.step[s] == step
            saved = copyto!(view(memory.saved, :, s), start)
            for j in 1:stage_count(table)
                add_scaled!(saved, h * dense_weight(table, j, memory.theta[s]), slopes[j])
            end
            s += 1
        end
        step == 1 && check_first_step(table, solution, slopes)
    end
    return nothing
end

# From the last step to the first: hands every stage its slope's cotangent, through `pull_state!`. `running` ends as the
# cotangent of the start.
function pull_steps!(memory, kernel, table::Tableau, solution, piece, ::Nothing)
    (; slope_cotangents, running, pulled, saved, first_column) = memory
    (; A, b) = table
    fill!(slope_cotangents, 0)
    fill!(running, 0)
    steps, s = length(solution.t) - 1, length(piece.saveat)
    slope_cotangent(j) = view(slope_cotangents, :, j)
    function pull_stage!(column, j)
        pull_state!(pulled, kernel, column, slope_cotangent(j))
        return add_scaled!(running, 1.0, pulled)
    end
    for step in steps:-1:1
        h, first = solution.t[step + 1] - solution.t[step], first_column[step]
        shared = step < steps && shares_last(table, piece.inputs, solution.t[step + 1])
        stages = first_column[step + 1] - first + shared
        # Column 1 still holds the slope's cotangent of the next step's first stage.
        step < steps && !shared && pull_stage!(first_column[step + 1], 1)
        shared && copyto!(slope_cotangent(stages), slope_cotangent(1))
        fill!(view(slope_cotangents, :, 1:(stages - shared)), 0)
        first_saved = s
        while first_saved >= 1 && memory.step[first_saved] == step
            for j in 1:stages
                weight = h * dense_weight(table, j, memory.theta[first_saved])
                add_scaled!(slope_cotangent(j), weight, view(saved, :, first_saved))
            end
            first_saved -= 1
        end
        last = stages - table.shares_last
        last < stages && pull_stage!(first + last, stages)             # it is at the next state
        for j in 1:min(last, table.stepping)
            b[j] == 0 || add_scaled!(slope_cotangent(j), h * b[j], running)
        end
        for j in last:-1:2
            pull_stage!(first + j - 1, j)
            for m in 1:(j - 1)
                A[j, m] == 0 || add_scaled!(slope_cotangent(m), h * A[j, m], pulled)
            end
        end
        for k in (first_saved + 1):s
            add_scaled!(running, 1.0, view(saved, :, k))
        end
        s = first_saved
    end
    pull_stage!(1, 1)
    return nothing
end
