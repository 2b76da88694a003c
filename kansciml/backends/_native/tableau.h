// Dormand-Prince 5(4) with Shampine's midpoint, as in kansciml.backends._engines.tableaus; part of ode.cpp.

#pragma once

namespace {

const int SLOPES = 7;

const double C[SLOPES] = {0, 1. / 5, 3. / 10, 4. / 5, 8. / 9, 1, 1};
const double A[SLOPES][SLOPES] = {
    {0},
    {1. / 5},
    {3. / 40, 9. / 40},
    {44. / 45, -56. / 15, 32. / 9},
    {19372. / 6561, -25360. / 2187, 64448. / 6561, -212. / 729},
    {9017. / 3168, -355. / 33, 46732. / 5247, 49. / 176, -5103. / 18656},
    {35. / 384, 0, 500. / 1113, 125. / 192, -2187. / 6784, 11. / 84},
};
const double E[SLOPES] = {35. / 384 - 1951. / 21600, 0, 500. / 1113 - 22642. / 50085, 125. / 192 - 451. / 720,
                          -2187. / 6784 + 12231. / 42400, 11. / 84 - 649. / 6300, -1. / 60};
const double MID[SLOPES] = {0.5 * 6025192743 / 30085553152, 0, 0.5 * 51252292925 / 65400821598,
                            -0.5 * 2691868925 / 45128329728, 0.5 * 187940372067 / 1594534317056,
                            -0.5 * 1776094331 / 19743644256, 0.5 * 11237099 / 235043384};
const double SAFETY = 0.9, GROW = 10.0, SHRINK = 0.2;

// u(t + theta h) = u + h sum_j weight[j] k_j: the quartic through both ends, both slopes and the midpoint.
inline void dense_weights(double theta, double* weight) {
    const double t2 = theta * theta, t3 = t2 * theta, t4 = t2 * t2;
    for (int j = 0; j < SLOPES; j++) {
        const double first = j == 0, last = j == SLOPES - 1, b = A[SLOPES - 1][j], middle = 16 * MID[j];
        weight[j] = theta * first + t2 * (last - 4 * first - 5 * b + middle) +
                    t3 * (5 * first - 3 * last + 14 * b - 2 * middle) + t4 * (2 * (last - first) - 8 * b + middle);
    }
}

}  // namespace
