# The replay for Rosenbrock methods. With W = 1 / (h gamma) - J(u, t), their stages solve
#
#     W k_i = f(Y_i, t + c_i h) + h d_i df/dt + sum_j C[i, j] k_j / h,    Y_i = u + sum_j A[i, j] k_j,
#
# the next state is u + sum_j b_j k_j, and u(t + theta h) = u + sum_j P_j(theta) k_j. The transposed solves of a step
# give v_i; J k_i + h d_i df/dt is the derivative of f along y_i = (k_i, h d_i dw/dt, h d_i), so that what J and df/dt
# depend on is pulled back through the kernel at the dual number x + epsilon y_i.
struct RosenbrockTableau
    A::Matrix{Float64}
    C::Matrix{Float64}
    gamma::Float64
    c::Vector{Float64}
    d::Vector{Float64}
    b::Vector{Float64}
    dense::Matrix{Float64}            # P_j(theta) = sum_p dense[j, p] theta^p
end

stage_count(tableau::RosenbrockTableau) = length(tableau.c)

const AlongLine = ForwardDiff.Dual{Line,Float64,1}

struct RosenbrockSteps{K<:FieldKernel}
    kernel::K                         # at x + epsilon y of every stage of every step
    factors::Vector{LU{Float64,Matrix{Float64},Vector{Int}}}
end

# Jacobian (n, widths[1]) of the kernel at x.
function field_jacobian!(jacobian, kernel::FieldKernel{T}, x) where {T}
    n = size(jacobian, 1)
    linearise!(kernel, reshape(x, :, 1), 1)
    row, unit = zeros(T, length(x)), zeros(T, n)
    for i in 1:n
        fill!(unit, 0)
        unit[i] = 1
        jacobian[i, :] .= pull_state!(row, kernel, 1, unit)
    end
    return jacobian
end

function replay_steps!(workspace, table::RosenbrockTableau, solution, piece, params)
    (; kernel, forcing, memory) = workspace
    locate_saved!(memory, solution, piece.saveat)
    n, width, stages, steps = length(memory.running), length(memory.pulled), stage_count(table), length(solution.t) - 1
    resize!(memory.first_column, steps + 1) .= 1 .+ stages .* (0:steps)
    memory.states = Matrix{Float64}(undef, width, stages * steps)
    lines = Matrix{AlongLine}(undef, width, stages * steps)
    jacobian, slope, slope_in_time, rates = zeros(n, width), zeros(n), zeros(n), zeros(width)
    factors = empty!(Vector{LU{Float64,Matrix{Float64},Vector{Int}}}(undef, steps))
    k = memory.slopes
    s = 1
    for step in 1:steps
        t, h, start = solution.t[step], solution.t[step + 1] - solution.t[step], solution.u[step]
        hold!(forcing, piece.inputs, t)
        first_column = memory.first_column[step]
        x = extend!(copyto!(view(memory.states, :, first_column), start), forcing, n, t)
        field_jacobian!(jacobian, kernel, x)
        mul!(slope_in_time, view(jacobian, :, (n + 1):width), view(input_rates!(rates, forcing, n, t), (n + 1):width))
        push!(factors, lu(I(n) ./ (h * table.gamma) .- view(jacobian, :, 1:n)))
        for i in 1:stages
            state = copyto!(view(memory.states, :, first_column + i - 1), start)
            for j in 1:(i - 1)
                add_scaled!(view(state, 1:n), table.A[i, j], k[j])
            end
            rhs!(slope, extend!(state, forcing, n, t + table.c[i] * h), kernel)
            add_scaled!(slope, h * table.d[i], slope_in_time)
            for j in 1:(i - 1)
                add_scaled!(slope, table.C[i, j] / h, k[j])
            end
            ldiv!(k[i], factors[step], slope)
            for row in 1:width
                y = row <= n ? k[i][row] : h * table.d[i] * rates[row]
                lines[row, first_column + i - 1] = ForwardDiff.Dual{Line}(x[row], y)
            end
        end
        while s <= length(memory.step) && memory.step[s] == step
            saved = copyto!(view(memory.saved, :, s), start)
            for j in 1:stages
                add_scaled!(saved, dense_weight(table, j, memory.theta[s]), k[j])
            end
            s += 1
        end
    end
    linearise!(kernel, memory.states, stages * steps)
    along = bind!(FieldKernel(AlongLine, kernel.spec), params)
    return RosenbrockSteps(linearise!(along, lines, stages * steps), factors)
end

function pull_steps!(memory, kernel, table::RosenbrockTableau, solution, piece, steps::RosenbrockSteps)
    (; slope_cotangents, running, pulled, saved, first_column) = memory
    n, stages, s = length(running), stage_count(table), length(piece.saveat)
    along, v = zeros(AlongLine, length(pulled)), zeros(n)
    fill!(running, 0)
    for step in length(steps.factors):-1:1
        h, turned = solution.t[step + 1] - solution.t[step], transpose(steps.factors[step])
        for j in 1:stages
            view(slope_cotangents, :, j) .= table.b[j] .* running
        end
        last_saved = s
        while s >= 1 && memory.step[s] == step
            for j in 1:stages
                add_scaled!(view(slope_cotangents, :, j), dense_weight(table, j, memory.theta[s]), view(saved, :, s))
            end
            s -= 1
        end
        for i in stages:-1:1
            column = first_column[step] + i - 1
            ldiv!(v, turned, view(slope_cotangents, :, i))
            pull_state!(pulled, kernel, column, v)
            pull_state!(along, steps.kernel, column, v)
            for row in 1:n
                running[row] += pulled[row] + ForwardDiff.partials(along[row], 1)
            end
            for j in 1:(i - 1)
                add_scaled!(view(slope_cotangents, :, j), table.A[i, j], pulled)
                add_scaled!(view(slope_cotangents, :, j), table.C[i, j] / h, v)
            end
        end
        for k in (s + 1):last_saved
            add_scaled!(running, 1.0, view(saved, :, k))
        end
    end
    return nothing
end

function pull_all_parameters!(gradient, kernel, columns, steps::RosenbrockSteps)
    pull_parameters!(gradient, kernel, columns)
    gradient .+= ForwardDiff.partials.(pull_parameters!(zeros(AlongLine, length(gradient)), steps.kernel, columns), 1)
    return nothing
end
