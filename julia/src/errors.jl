"""
    SolveFailure(message)

The ODE solver could not reach the end of the time span with these parameters: the solution blows up, or needs more
than `maxiters` steps.
"""
struct SolveFailure <: Exception
    message::String
end

Base.showerror(io::IO, failure::SolveFailure) = print(io, failure.message)
