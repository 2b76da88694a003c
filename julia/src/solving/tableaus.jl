# Explicit Runge-Kutta methods as the replay needs them. Stage j is evaluated at u + h sum_m A[j, m] k_m and t + c_j h;
# the next state is u + h sum_j b_j k_j, and u(t + theta h) = u + h sum_j P_j(theta) k_j, P_j(theta) = sum_p dense[j, p]
# theta^p. Tests compare stages and dense output with the solver's.
struct Tableau
    c::Vector{Float64}
    A::Matrix{Float64}
    b::Vector{Float64}
    dense::Matrix{Float64}
    stepping::Int                     # stages that the next state needs; those after serve save points alone
    shares_last::Bool                 # the last stage is the next step's first
    keeps_slopes::Bool                # the solver keeps the slope of every stage
end

stage_count(tableau::Tableau) = length(tableau.c)
stage_count(::Nothing) = 0

dense_weight(tableau, j, theta) = theta * evaluate_row(tableau.dense, j, theta)

@inline function evaluate_row(dense, j, theta)
    value = dense[j, end]
    for p in (size(dense, 2) - 1):-1:1
        value = muladd(theta, value, dense[j, p])
    end
    return value
end

# `Tsit5()` of OrdinaryDiffEq: Ch. Tsitouras, Runge-Kutta pairs of order 5(4) satisfying only the first column
# simplifying assumption, Computers & Mathematics with Applications 62 (2011) 770-775.
const TSIT5 = let
    A = [
        0.0 0.0 0.0 0.0 0.0 0.0 0.0
        0.161 0.0 0.0 0.0 0.0 0.0 0.0
        -0.008480655492356989 0.335480655492357 0.0 0.0 0.0 0.0 0.0
        2.8971530571054935 -6.359448489975075 4.3622954328695815 0.0 0.0 0.0 0.0
        5.325864828439257 -11.748883564062828 7.4955393428898365 -0.09249506636175525 0.0 0.0 0.0
        5.86145544294642 -12.92096931784711 8.159367898576159 -0.071584973281401 -0.028269050394068383 0.0 0.0
        0.09646076681806523 0.01 0.4798896504144996 1.379008574103742 -3.290069515436081 2.324710524099774 0.0
    ]
    dense = [
        1.0 -2.763706197274826 2.9132554618219126 -1.0530884977290216
        0.0 0.13169999999999998 -0.2234 0.1017
        0.0 3.9302962368947516 -5.941033872131505 2.490627285651253
        0.0 -12.411077166933676 30.33818863028232 -16.548102889244902
        0.0 37.50931341651104 -88.1789048947664 47.37952196281928
        0.0 -27.896526289197286 65.09189467479366 -34.87065786149661
        0.0 1.5 -4.0 2.5
    ]
    Tableau([0, 0.161, 0.327, 0.9, 0.9800255409045097, 1, 1], A, A[7, :], dense, 7, true, true)
end
