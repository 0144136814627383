/* The inner loops that NumPy cannot fuse. Plain C99, no Python: arrays come as pointers, sizes as long, nothing is allocated. */

#include <math.h>
#include <string.h>

/* One segment of one spectrum: PyMca's SNIP recurrence, y_i <- min(y_i, (y_(i-p) + y_(i+p)) / 2) for p = width .. 1,
   each pass from the values of the pass before. `spare` has room for `length` values; the result stands in `values`. */
static void snip_segment(float *restrict values, float *restrict spare, long length, long width)
{
    float *restrict from = values, *restrict to = spare;
    if (width > (length - 1) / 2)
        width = (length - 1) / 2;
    for (long p = width; p > 0; p--) {
        memcpy(to, from, p * sizeof(float));
        for (long i = p; i < length - p; i++) {
            float mean = 0.5f * (from[i - p] + from[i + p]);
            to[i] = from[i] < mean ? from[i] : mean;
        }
        memcpy(to + length - p, from + length - p, p * sizeof(float));
        float *swap = from;
        from = to;
        to = swap;
    }
    if (from != values)
        memcpy(values, from, length * sizeof(float));
}

/* `net` (count, channels) becomes the spectra `counts`, which lie `stride` values apart, less their background, found between the
   `cuts` (first is 0, last is channels); it is added to `total` (channel). `spare` has room for 2 spectra. Single precision is
   enough: counts are below 2^24. */
void snip(const double *counts, double *net, double *total, float *spare, const long *cuts, long cut_count, long count,
          long channels, long stride, long width)
{
    for (long n = 0; n < count; n++) {
        const double *spectrum = counts + n * stride;
        double *rest = net + n * channels;
        for (long i = 0; i < channels; i++)
            spare[i] = (float)spectrum[i];
        for (long c = 0; c + 1 < cut_count; c++)
            snip_segment(spare + cuts[c], spare + channels, cuts[c + 1] - cuts[c], width);
        for (long i = 0; i < channels; i++) {
            total[i] += spare[i];
            rest[i] = spectrum[i] - spare[i];
        }
    }
}

/* Tables (channel, parameter) that are zero in most channels, in blocks of 8 channels in double or 16 in single precision, which is 64
   bytes: block b has the entries start[b] .. start[b + 1], entry e is those channels of parameter which[e]. The last block is filled up
   with zeros. */
typedef double quad __attribute__((vector_size(32), aligned(8)));
typedef float octet __attribute__((vector_size(32), aligned(4)));
typedef int marks __attribute__((vector_size(32)));

/* Return `width` values; those of the last block, which ends early, in `room`, filled up with zeros. */
static inline const double *block_of(const double *values, long left, long width, double *room)
{
    if (left >= width)
        return values;
    memset(room, 0, width * sizeof(double));
    memcpy(room, values, left * sizeof(double));
    return room;
}

static inline quad twice(const double *values)
{
    return *(const quad *)values;
}

static inline octet once(const double *values)
{
    octet all;
    for (int l = 0; l < 8; l++)
        all[l] = (float)values[l];
    return all;
}

/* right (count, k) = spectra (count, channels, `stride` apart) times a table. Four spectra at a time, so that each entry is loaded
   once for all of them. `sums` has room for 4 k vectors. */
#define PROJECT(NAME, REAL, VECTOR, LOAD)                                                                                                    \
    void NAME(const double *spectra, const REAL *table, const long *start, const long *which, REAL *sums, double *right, long count,         \
              long channels, long stride, long k)                                                                                            \
    {                                                                                                                                        \
        enum { LANES = sizeof(VECTOR) / sizeof(REAL), WIDTH = 2 * LANES, SPECTRA = 4 };                                                      \
        double room[SPECTRA][WIDTH];                                                                                                         \
        for (long n = 0; n < count; n += SPECTRA) {                                                                                          \
            const double *rows[SPECTRA];                                                                                                     \
            for (int s = 0; s < SPECTRA; s++)                                                                                                \
                rows[s] = spectra + (n + s < count ? n + s : count - 1) * stride;                                                            \
            memset(sums, 0, SPECTRA * k * sizeof(VECTOR));                                                                                   \
            for (long b = 0; b * WIDTH < channels; b++) {                                                                                    \
                VECTOR low[SPECTRA], high[SPECTRA];                                                                                          \
                for (int s = 0; s < SPECTRA; s++) {                                                                                          \
                    const double *values = block_of(rows[s] + b * WIDTH, channels - b * WIDTH, WIDTH, room[s]);                              \
                    low[s] = LOAD(values);                                                                                                   \
                    high[s] = LOAD(values + LANES);                                                                                          \
                }                                                                                                                            \
                for (long e = start[b]; e < start[b + 1]; e++) {                                                                             \
                    const VECTOR *entry = (const VECTOR *)(table + e * WIDTH), first = entry[0], second = entry[1];                          \
                    VECTOR *sum = (VECTOR *)sums + SPECTRA * which[e];                                                                       \
                    for (int s = 0; s < SPECTRA; s++)                                                                                        \
                        sum[s] = sum[s] + low[s] * first + high[s] * second;                                                                 \
                }                                                                                                                            \
            }                                                                                                                                \
            for (long j = 0; j < k; j++)                                                                                                     \
                for (long s = 0; s < SPECTRA && n + s < count; s++) {                                                                        \
                    double total = 0.0;                                                                                                      \
                    for (int l = 0; l < LANES; l++)                                                                                          \
                        total += sums[(SPECTRA * j + s) * LANES + l];                                                                        \
                    right[(n + s) * k + j] = total;                                                                                          \
                }                                                                                                                            \
        }                                                                                                                                    \
    }

PROJECT(project_f8, double, quad, twice)
PROJECT(project_f4, float, octet, once)

/* Sum of squared residuals in units of their variance, at least 1, of each spectrum. `net` and `variance` (count, channels) lie
   `stride` and `apart` values apart. `areas` (count, k) times the templates `shapes` is the model; `spare` has room for k values. In
   single precision. */
void chi_square(const double *net, const double *variance, const double *areas, const float *shapes, const long *start,
                const long *which, float *spare, double *result, long count, long channels, long stride, long apart, long k)
{
    const octet one = {1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f};
    enum { WIDTH = 16 };
    double rooms[2][WIDTH];
    for (long n = 0; n < count; n++) {
        octet sums[2] = {{0}, {0}};
        for (long j = 0; j < k; j++)
            spare[j] = (float)areas[n * k + j];
        for (long b = 0; b * WIDTH < channels; b++) {
            const double *values = block_of(net + n * stride + b * WIDTH, channels - b * WIDTH, WIDTH, rooms[0]);
            const double *spread = block_of(variance + n * apart + b * WIDTH, channels - b * WIDTH, WIDTH, rooms[1]);
            octet left[2] = {once(values), once(values + 8)};
            for (long e = start[b]; e < start[b + 1]; e++) {
                const octet *shape = (const octet *)(shapes + e * WIDTH);
                left[0] -= shape[0] * spare[which[e]];
                left[1] -= shape[1] * spare[which[e]];
            }
            for (int h = 0; h < 2; h++) {
                const octet wide = once(spread + 8 * h);
                const marks above = wide > one;
                const octet over = (octet)(((marks)wide & above) | ((marks)one & ~above));
                sums[h] += left[h] * left[h] / over;
            }
        }
        double total = 0.0;
        for (int l = 0; l < 8; l++)
            total += (double)sums[0][l] + sums[1][l];
        result[n] = total;
    }
}

/* Four spectra at once, one in each lane, from here on. What a lane has does not depend on the others: what they add to it is zero. */
enum { FOUR = 4 };

/* A problem of `nnls`, scaled. Where `inverse`, that of `gram`, is good enough (`through_inverse`), only those parameters are solved
   for that are not positive, usually the fewer. */
struct problem {
    const double *gram, *inverse, *scale;
    const char *free;
    long k, through_inverse;
};

/* What `nnls` works with: k vectors each, k * k for `lower`. */
struct room {
    quad *right, *start, *values, *mask, *x, *column, *lower;
    long *at;
};

/* Solve matrix x = right for the parameters whose mask is 1, by L D L'. Return how many `at` names, those that any lane solves for; x
   has their values, and 0 where a lane's mask is 0. */
static long solve_masked(const double *matrix, const quad *right, const struct room *r, long k)
{
    quad *restrict lower = r->lower, *restrict x = r->x, *restrict column = r->column;
    const quad *restrict mask = r->mask;
    long *restrict at = r->at, size = 0;
    for (long i = 0; i < k; i++) {
        const quad one = mask[i];
        if (one[0] + one[1] + one[2] + one[3] > 0.0)
            at[size++] = i;
    }
    for (long i = 0; i < size; i++) {
        const quad one = column[i] = mask[at[i]];
        for (long j = 0; j < i; j++)
            lower[i * k + j] = matrix[at[i] * k + at[j]] * (one * column[j]);
        lower[i * k + i] = matrix[at[i] * k + at[i]] * one + (1.0 - one);
        x[i] = right[at[i]] * one;
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
    const double *matrix = p->through_inverse ? p->inverse : p->gram;
    const quad *given = p->through_inverse ? r->start : r->right, *restrict x = r->x;
    quad *restrict values = r->values;
    const long k = p->k, *restrict at = r->at, size = solve_masked(matrix, given, r, k);
    for (long i = 0; i < k; i++) {
        quad sum = -given[i];
        for (long j = 0; j < size; j++)
            sum += matrix[i * k + at[j]] * x[j];
        values[i] = (p->through_inverse ? -sum : sum) * (1.0 - r->mask[i]);
    }
    for (long j = 0; j < size; j++)
        values[at[j]] += p->through_inverse ? -x[j] : x[j];
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

/* Let `start` be the unconstrained solution, and choose which parameters to solve for first: clip it, and go down the gradient once.
   That is right for most spectra where lines do not overlap much. */
static void begin(const struct problem *p, const struct room *r)
{
    const long k = p->k;
    quad *restrict start = r->start, *restrict clipped = r->x;
    for (long i = 0; i < k; i++) {
        quad sum = {0};
        for (long j = 0; j < k; j++)
            sum += p->inverse[i * k + j] * r->right[j];
        start[i] = sum;
        for (int l = 0; l < FOUR; l++)
            clipped[i][l] = p->free[i] || sum[l] > 0.0 ? sum[l] : 0.0;
    }
    for (long i = 0; i < k; i++) {
        quad down = clipped[i] + r->right[i];
        for (long j = 0; j < k; j++)
            down -= p->gram[i * k + j] * clipped[j];
        for (int l = 0; l < FOUR; l++)
            r->mask[i][l] = (p->free[i] || down[l] > 0.0) != (p->through_inverse != 0);
    }
}

/* The non-negative solutions `x` (count, k) for `right` (count, k), which are not scaled. `spare`: k * k + 6 k vectors; `at`: k. */
void nnls(const struct problem *given, const double *right, double *x, double *spare, long *at, long count)
{
    const struct problem p = *given;
    const long k = p.k;
    quad *room = (quad *)spare;
    struct room r = {room, room + k, room + 2 * k, room + 3 * k, room + 4 * k, room + 5 * k, room + 6 * k, at};
    for (long n = 0; n < count; n += FOUR) {
        double tolerance[FOUR] = {0};
        long fewest[FOUR], lives[FOUR];
        for (int l = 0; l < FOUR; l++) {
            const double *row = right + (n + l < count ? n + l : count - 1) * k;
            for (long i = 0; i < k; i++) {
                r.right[i][l] = row[i] * p.scale[i];
                tolerance[l] = fabs(r.right[i][l]) > tolerance[l] ? fabs(r.right[i][l]) : tolerance[l];
            }
            tolerance[l] *= 1e-11;
            fewest[l] = k + 1;
            lives[l] = 3;
        }
        begin(&p, &r);
        for (int open = FOUR; open;) {
            step(&p, &r);
            open = 0;
            for (int l = 0; l < FOUR; l++)
                open += exchange(&p, &r, l, tolerance[l], fewest + l, lives + l);
        }
        for (long l = 0; l < FOUR && n + l < count; l++)
            for (long i = 0; i < k; i++) {
                const double value = (r.mask[i][l] > 0.0) != (p.through_inverse != 0) ? r.values[i][l] : 0.0;
                x[(n + l) * k + i] = (p.free[i] || value > 0.0 ? value : 0.0) * p.scale[i];
            }
    }
}
