# Known terms: arithmetic of states, inputs, time, trained numbers and calls of one network, as a list of operations.
# Python records it (kansciml/models/equations.py says how), and `described_equations` reads the record.

# NUMBER and TRAINED are places among the constants and among the trained numbers, X one in (u, w, t); CALL is one of
# the network, and OUTPUT one of its outputs. POWER has an exponent that varies, FIXED_POWER a constant.
@enum Code::UInt8 begin
    NUMBER; TRAINED; X; CALL; OUTPUT
    PLUS; MINUS; TIMES; OVER; POWER; FIXED_POWER
    NEG; ABS; EXP; LOG; SQRT; SIN; COS; TAN; TANH; ARCTAN
end

const CODES = Dict(
    "+" => PLUS, "-" => MINUS, "*" => TIMES, "/" => OVER, "**" => POWER, "neg" => NEG, "abs" => ABS, "exp" => EXP,
    "log" => LOG, "sqrt" => SQRT, "sin" => SIN, "cos" => COS, "tan" => TAN, "tanh" => TANH, "arctan" => ARCTAN,
)

struct Operation
    code::Code
    a::Int                            # places of its operands
    b::Int                            # 0: there is none
end

is_binary(operation) = PLUS <= operation.code <= FIXED_POWER

# du/dt. Operations come after their operands: first the constants, then what depends on trained numbers alone, up to
# `fixed`, then the rest.
struct Equations
    operations::Vector{Operation}
    constants::Vector{Float64}
    fixed::Int
    calls::Vector{Vector{Int}}        # of each call of the network the places of its inputs
    slopes::Vector{Int}               # places of du/dt
    parameters::Vector{Int}           # of the known parameters, which are functions of trained numbers
end

# Value of an operation; NaN where it is not defined.
@inline function applied(code::Code, a, b)
    code === TIMES && return a * b
    code === PLUS && return a + b
    code === MINUS && return a - b
    code === OVER && return a / b
    # Duals that vary in both would take the logarithm of a negative number.
    (code === POWER || code === FIXED_POWER) &&
        return a >= 0 || isinteger(b) && (code === FIXED_POWER || a isa Float64) ? a^b : not_a_number(a)
    code === NEG && return -a
    code === ABS && return abs(a)
    code === EXP && return exp(a)
    code === LOG && return a >= 0 ? log(a) : not_a_number(a)
    code === SQRT && return a >= 0 ? sqrt(a) : not_a_number(a)
    code === SIN && return isfinite(a) ? sin(a) : not_a_number(a)
    code === COS && return isfinite(a) ? cos(a) : not_a_number(a)
    code === TAN && return isfinite(a) ? tan(a) : not_a_number(a)
    code === TANH && return tanh(a)
    return atan(a)
end

not_a_number(a) = oftype(a, NaN)

# Its derivatives by its operands, where y is its value.
@inline function partials(code::Code, a, b, y)
    none, unit = zero(y), one(y)
    code === TIMES && return b, a
    code === PLUS && return unit, unit
    code === MINUS && return unit, -unit
    code === OVER && return unit / b, -y / b
    code === FIXED_POWER && return b * applied(code, a, b - 1), none
    code === POWER && return b * applied(POWER, a, b - 1), iszero(y) ? none : y * applied(LOG, a, none)
    code === NEG && return -unit, none
    code === ABS && return sign(a), none
    code === EXP && return y, none
    code === LOG && return unit / a, none
    code === SQRT && return unit / 2y, none
    code === SIN && return applied(COS, a, none), none
    code === COS && return -applied(SIN, a, none), none
    code === TAN && return unit + y * y, none
    code === TANH && return unit - y * y, none
    return unit / (unit + a * a), none
end

# The equations of a record with `inputs` inputs, as those of dv/dtau: see `StateUnits`.
function described_equations(told, inputs::Int, units)
    n = length(told["slopes"])
    operations, constants, calls, place = Operation[], Float64[], Vector{Int}[], Int[]
    is_number(place, value) = operations[place].code === NUMBER && constants[operations[place].a] == value
    function emit(code, a, b = 0)
        (code === TIMES && is_number(b, 1) || code === PLUS && is_number(b, 0)) && return a
        push!(operations, Operation(code, a, b))
        return length(operations)
    end
    number(value) = (push!(constants, value); emit(NUMBER, length(constants)))
    scaled(a, factor, origin) = emit(PLUS, emit(TIMES, a, number(factor)), number(origin))
    at(told) = get(() -> throw(ArgumentError("got equations whose operands do not come before")), place, told + 1)
    for (name, rest...) in told["nodes"]
        push!(place,
            name == "constant" ? number(rest[1]) :
            name == "parameter" ? emit(TRAINED, rest[1] + 1) :
            name == "state" ? scaled(emit(X, rest[1] + 1), units.state[rest[1] + 1], units.origin[rest[1] + 1]) :
            name == "input" ? emit(X, n + rest[1] + 1) :
            name == "time" ? scaled(emit(X, n + inputs + 1), units.time, units.t0) :
            name == "network" ? (push!(calls, at.(rest)); emit(CALL, length(calls))) :
            name == "output" ? emit(OUTPUT, operations[at(rest[1])].a, rest[2] + 1) :
            haskey(CODES, name) ? emit(CODES[name], at.(rest)...) :
            throw(ArgumentError("got an unknown operation $name in equations"))
        )
    end
    slopes = [emit(TIMES, at(slope), number(units.time / units.state[i])) for (i, slope) in enumerate(told["slopes"])]
    return arranged(operations, constants, calls, slopes, Int[at(one) for one in told["parameters"]])
end

# Leaves out what nothing depends on, and brings the operations into their order.
function arranged(operations, constants, calls, slopes, parameters)
    n = length(operations)
    call_at = Dict(operation.a => place for (place, operation) in enumerate(operations) if operation.code === CALL)
    used, kind = falses(n), zeros(Int, n)            # 0: constant, 1: of trained numbers, 2: varies
    function operands(place)
        (; code, a, b) = operations[place]
        code in (NUMBER, TRAINED, X) && return Int[]
        code === CALL && return calls[a]
        code === OUTPUT && return [call_at[a]]
        return b == 0 ? [a] : [a, b]
    end
    used[slopes] .= true
    used[parameters] .= true
    for place in n:-1:1
        used[place] && (used[operands(place)] .= true)
    end
    for (place, (; code, b)) in enumerate(operations)
        kind[place] = code === NUMBER ? 0 : code in (X, CALL, OUTPUT) ? 2 :
            maximum(kind[operands(place)]; init = 1)
        code === POWER && kind[b] == 0 && (operations[place] = Operation(FIXED_POWER, operations[place].a, b))
    end
    order = sort!(findall(used); by = place -> kind[place])        # stable
    place = zeros(Int, n)
    place[order] .= eachindex(order)
    moved = map(operations[order]) do (; code, a, b)
        code in (NUMBER, TRAINED, X, CALL, OUTPUT) ? Operation(code, a, b) :
            Operation(code, place[a], b == 0 ? 0 : place[b])
    end
    fixed = count(place -> kind[place] < 2, order)
    return Equations(moved, constants, fixed, [place[call] for call in calls], place[slopes], place[parameters])
end
