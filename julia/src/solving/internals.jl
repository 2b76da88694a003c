# What the replay reads of OrdinaryDiffEq beyond its documented interface. Where a version has it no more, an error
# names it.

struct UnknownInternals <: Exception
    message::String
end

function Base.showerror(io::IO, failure::UnknownInternals)
    print(io, failure.message, ": this version of OrdinaryDiffEq is not supported; take one that KanSciML's ")
    return print(io, "Project.toml allows, or sensealg = :ForwardDiff")
end

# A field of a value, or a name in a module.
function internal(owner, name::Symbol)
    hasproperty(owner, name) || throw(UnknownInternals("$(nameof(typeof(owner))) has no field $name"))
    return getproperty(owner, name)
end

function internal(owner::Module, name::Symbol)
    isdefined(owner, name) || throw(UnknownInternals("$owner has no $name"))
    return getfield(owner, name)
end

# The slopes of all stages of every step, in a dense solution.
function check_slopes(solution, table)
    k = internal(solution, :k)
    length(k) == length(solution.t) && length(k[end]) >= stage_count(table) ||
        throw(UnknownInternals("the field k of a solution has no slope of all $(stage_count(table)) stages of a step"))
    return nothing
end

# Whether the first step is what the tableau makes of the solver's start: a cheap sign that the two belong together.
function check_first_step(table, solution, slopes)
    h = solution.t[2] - solution.t[1]
    for i in eachindex(solution.u[1])
        expected = solution.u[1][i]
        size = abs(expected)
        for j in 1:(table.stepping)
            expected += h * table.b[j] * slopes[j][i]
            size += abs(h * table.b[j] * slopes[j][i])
        end
        off = abs(expected - solution.u[2][i])
        off > 1e-10 * size &&
            throw(UnknownInternals("a step of the solver is $off off what its coefficients make of it"))
    end
    return nothing
end

# A tableau whose coefficients were collected from the solver's, by their names.
function consistent(table::Tableau, name)
    stages = sum(table.A; dims = 2) ≈ table.c
    ends = sum(table.b) ≈ 1 && vec(sum(table.dense; dims = 2)) ≈ table.b
    stages && ends || throw(UnknownInternals("the coefficients of $name have other names than the replay knows"))
    return table
end
