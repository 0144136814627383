/* Non-negative least squares, as `by_sets` of xrf/nnls.py. Plain C99, no Python; nothing is allocated. */

#include "xrf.h"

/* Four spectra at once, one in each lane, from here on. What a lane has does not depend on the others: what they add to it is zero. */
enum { FOUR = 4 };

/* What `nnls` works with: k vectors each, k * k for `lower`. Lanes that are `through` the inverse solve for the parameters that are not
   positive, all others for those that are: each for the fewer. */
struct room {
    quad *right, *given, *values, *mask, *x, *column, *lower;
    long *at;
    bits through;
};

/* In each lane what is said of it. */
static inline quad either(bits what, quad yes, quad no)
{
    return (quad)(((bits)yes & what) | ((bits)no & ~what));
}

/* 1 where `what` says so, else 0. */
static inline quad ones(bits what)
{
    const quad one = {1.0, 1.0, 1.0, 1.0};
    return (quad)(what & (bits)one);
}

/* An element of the matrix that each lane solves with. */
static inline quad element(const struct problem *p, const struct room *r, long at)
{
    const quad none = {0};
    return either(r->through, none + p->inverse[at], none + p->gram[at]);
}

/* Solve matrix x = given for the parameters whose mask is 1, by L D L'. Return how many `at` names, those that any lane solves for; x
   has their values, and 0 where a lane's mask is 0. */
static long solve_masked(const struct problem *p, const struct room *r)
{
    quad *restrict lower = r->lower, *restrict x = r->x, *restrict column = r->column;
    const quad *restrict mask = r->mask;
    const long k = p->k;
    long *restrict at = r->at, size = 0;
    for (long i = 0; i < k; i++) {
        const quad one = mask[i];
        if (one[0] + one[1] + one[2] + one[3] > 0.0)
            at[size++] = i;
    }
    for (long i = 0; i < size; i++) {
        const quad one = column[i] = mask[at[i]];
        for (long j = 0; j < i; j++)
            lower[i * k + j] = element(p, r, at[i] * k + at[j]) * (one * column[j]);
        lower[i * k + i] = element(p, r, at[i] * k + at[i]) * one + (1.0 - one);
        x[i] = r->given[at[i]] * one;
    }
    for (long j = 0; j < size; j++) {
        const quad inverse = 1.0 / lower[j * k + j], known = x[j];
        for (long i = j + 1; i < size; i++) {
            quad *restrict row = lower + i * k;
            const quad factor = row[j] * inverse;
            column[i] = row[j];
            for (long l = j + 1; l <= i; l++)
                row[l] -= factor * column[l];
            row[j] = factor;
            x[i] -= factor * known;
        }
        x[j] = known * inverse;
    }
    for (long i = size - 1; i > 0; i--)
        for (long j = 0; j < i; j++)
            x[j] -= lower[i * k + j] * x[i];
    return size;
}

/* Let `values` be the solution where a parameter is positive, else the gradient. With N those that are not, H the inverse and s the
   unconstrained solution, the gradient g is -(H_NN)^-1 s_N, and x = s + H g. */
static void step(const struct problem *p, const struct room *r)
{
    const quad sign = 1.0 - 2.0 * ones(r->through), *restrict x = r->x;
    quad *restrict values = r->values;
    const long k = p->k, *restrict at = r->at, size = solve_masked(p, r);
    for (long i = 0; i < k; i++) {
        quad sum = -r->given[i];
        for (long j = 0; j < size; j++)
            sum += element(p, r, i * k + at[j]) * x[j];
        values[i] = sign * sum * (1.0 - r->mask[i]);
    }
    for (long j = 0; j < size; j++)
        values[at[j]] += sign * x[j];
}

/* Exchange what breaks a condition in one lane, as `by_sets` of xrf/nnls.py does; return whether it is to go on. */
static int exchange(const struct problem *p, struct room *r, int lane, double tolerance, long *fewest, long *lives)
{
    long broken = 0, last = 0;
    for (long i = 0; i < p->k; i++)
        if (r->values[i][lane] < -tolerance && !p->free[i]) {
            broken++;
            last = i;
        }
    *lives = broken < *fewest ? 3 : *lives - 1;
    *fewest = broken < *fewest ? broken : *fewest;
    if (!broken || *lives < -20 * p->k)
        return 0;
    for (long i = *lives < 0 ? last : 0; i <= last; i++)
        if (r->values[i][lane] < -tolerance && !p->free[i])
            r->mask[i][lane] = 1.0 - r->mask[i][lane];
    return 1;
}

/* Which lanes break a condition. */
static bits broken(const struct problem *p, const struct room *r, quad tolerance)
{
    bits any = {0};
    for (long i = 0; i < p->k; i++)
        if (!p->free[i])
            any |= r->values[i] < -tolerance;
    return any;
}

/* result = matrix (k, k) times `given`; four rows at a time, so that sums do not wait for each other. */
static void times(const double *matrix, const quad *restrict given, quad *restrict result, long k)
{
    for (long i = 0; i < k; i += FOUR) {
        const double *row[FOUR];
        quad sums[FOUR] = {{0}};
        for (long q = 0; q < FOUR; q++)
            row[q] = matrix + (i + q < k ? i + q : k - 1) * k;
        for (long j = 0; j < k; j++)
            for (long q = 0; q < FOUR; q++)
                sums[q] += row[q][j] * given[j];
        for (long q = 0; q < FOUR && i + q < k; q++)
            result[i + q] = sums[q];
    }
}

/* Choose which parameters are positive to begin with: clip the unconstrained solution, and go down the gradient once. That is right
   for most spectra where lines do not overlap much. */
static void begin(const struct problem *p, struct room *r)
{
    const quad none = {0};
    quad *restrict start = r->given, *restrict clipped = r->x, *restrict model = r->values, positive = {0};
    times(p->inverse, r->right, start, p->k);
    for (long i = 0; i < p->k; i++)
        clipped[i] = p->free[i] ? start[i] : either(start[i] > 0.0, start[i], none);
    times(p->gram, clipped, model, p->k);
    for (long i = 0; i < p->k; i++) {
        const quad down = clipped[i] + r->right[i] - model[i];
        positive += r->mask[i] = ones(p->free[i] ? down == down : down > 0.0);
    }
    r->through = p->through_inverse ? 2.0 * positive > (double)p->k : (bits){0};
    for (long i = 0; i < p->k; i++) {
        r->mask[i] = either(r->through, 1.0 - r->mask[i], r->mask[i]);
        r->given[i] = either(r->through, start[i], r->right[i]);
    }
}

/* Let `right` be the scaled rows of four spectra, (k) each; return the largest size of a value in each lane. */
static quad take(const struct problem *p, const struct room *r, const double *const *rows)
{
    quad most = {0};
    for (long i = 0; i < p->k; i++) {
        const quad value = {rows[0][i], rows[1][i], rows[2][i], rows[3][i]}, scaled = value * p->scale[i];
        const quad size = (quad)((bits)scaled & ~((bits){0} + (1L << 63)));
        r->right[i] = scaled;
        most = either(size > most, size, most);
    }
    return most;
}

/* The non-negative solutions `x` (count, k) for `right` (count, k), which are not scaled. `spare`: k * k + 6 k vectors; `at`: k. */
void nnls(const struct problem *given, const double *right, double *x, double *spare, long *at, long count)
{
    const struct problem p = *given;
    const long k = p.k;
    quad *room = (quad *)spare;
    struct room r = {room, room + k, room + 2 * k, room + 3 * k, room + 4 * k, room + 5 * k, room + 6 * k, at, {0}};
    for (long n = 0; n < count; n += FOUR) {
        const double *rows[FOUR];
        long fewest[FOUR], lives[FOUR];
        for (int l = 0; l < FOUR; l++) {
            rows[l] = right + (n + l < count ? n + l : count - 1) * k;
            fewest[l] = k + 1;
            lives[l] = 3;
        }
        const quad tolerance = take(&p, &r, rows) * 1e-11;
        begin(&p, &r);
        for (int open = FOUR; open;) {
            step(&p, &r);
            const bits which = broken(&p, &r, tolerance);
            open = 0;
            for (int l = 0; l < FOUR; l++)
                if (which[l])
                    open += exchange(&p, &r, l, tolerance[l], fewest + l, lives + l);
        }
        for (long i = 0; i < k; i++) {
            const bits solved = (r.mask[i] > 0.0) ^ r.through;
            const quad value = (quad)((bits)r.values[i] & solved & (p.free[i] ? solved : r.values[i] > 0.0)) * p.scale[i];
            for (long l = 0; l < FOUR && n + l < count; l++)
                x[(n + l) * k + i] = value[l];
        }
    }
}
