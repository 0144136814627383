/* The fit of spectra without background. Plain C99, no Python; nothing is allocated.

   Eight spectra go through all steps together: they stay in the processor's cache, and each entry of a table is loaded once for all.
   Tables (channel, parameter) are zero in most channels; what is kept of them are blocks of 64 bytes, 8 channels in double or 16 in
   single precision. Entry e is a block of them. */

#include <string.h>

#include "xrf.h"

enum { TOGETHER = 8, FOUR = 4, BLOCK = 16, LINE = 16 };

/* By parameter: parameter j has the entries first[j] .. first[j + 1], and entry e begins at channel which[e].
   By block of channels: block b has the entries first[b] .. first[b + 1], and entry e belongs to parameter which[e]. */
struct table {
    const void *entries;
    const long *first, *which;
};

/* `weighted` (double) and `squares` (single precision) lie by parameter, `shapes` (single) by block. `padded` channels are whole
   blocks. */
struct model {
    struct table weighted, squares, shapes;
    const struct problem *problem;
    long channels, padded;
};

/* What `fit` works with: TOGETHER spectra (padded), zero beyond their channels, and k values of each; `spare` and `at` as `nnls` wants
   them. */
struct desk {
    double *exact;
    float *net, *variance;
    double *right, *squares, *spare;
    float *areas;
    long *at;
};

/* The spectra that come next, `rows` of `lines` cache lines. */
struct ahead {
    const float *next;
    long stride, lines, rows, line, share;
};

/* Bring a share of them nearer. To ask for all at once would be to wait for the memory. */
static inline void ask(struct ahead *ahead)
{
    for (long n = 0; n < ahead->share && ahead->rows > 0; n++) {
        __builtin_prefetch(ahead->next + ahead->line * LINE, 0, 2);
        if (++ahead->line == ahead->lines) {
            ahead->line = 0;
            ahead->next += ahead->stride;
            ahead->rows--;
        }
    }
}

/* right (TOGETHER, k) = spectra (TOGETHER, padded) times a table that lies by parameter. */
#define PROJECT(NAME, REAL, VECTOR)                                                                                                          \
    static void NAME(const struct table *table, const REAL *spectra, double *right, const struct model *m, struct ahead *ahead)                \
    {                                                                                                                                        \
        enum { LANES = sizeof(VECTOR) / sizeof(REAL), WIDTH = 2 * LANES };                                                                   \
        const long k = m->problem->k, padded = m->padded;                                                                                    \
        for (long j = 0; j < k; j++) {                                                                                                       \
            ask(ahead);                                                                                                                      \
            VECTOR sums[TOGETHER] = {{0}};                                                                                                   \
            for (long e = table->first[j]; e < table->first[j + 1]; e++) {                                                                   \
                const VECTOR *entry = (const VECTOR *)((const REAL *)table->entries + e * WIDTH), low = entry[0], high = entry[1];           \
                const REAL *from = spectra + table->which[e];                                                                                \
                for (int s = 0; s < TOGETHER; s++)                                                                                           \
                    sums[s] += low * *(const VECTOR *)(from + s * padded);                                                                   \
                for (int s = 0; s < TOGETHER; s++)                                                                                           \
                    sums[s] += high * *(const VECTOR *)(from + s * padded + LANES);                                                          \
            }                                                                                                                                \
            for (int s = 0; s < TOGETHER; s++) {                                                                                             \
                double total = 0.0;                                                                                                          \
                for (int l = 0; l < LANES; l++)                                                                                              \
                    total += sums[s][l];                                                                                                     \
                right[s * k + j] = total;                                                                                                    \
            }                                                                                                                                \
        }                                                                                                                                    \
    }

PROJECT(project_double, double, quad)
PROJECT(project_single, float, octet)

/* Sums of squared residuals in units of their variance, at least 1, of FOUR spectra. The model is `areas` (k, FOUR) times the
   templates. */
static void chi_square(const struct model *m, const float *net, const float *variance, const float *areas, double *result)
{
    const octet one = {1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f};
    const struct table *table = &m->shapes;
    octet sums[FOUR] = {{0}};
    for (long b = 0; b * BLOCK < m->padded; b++) {
        octet left[FOUR][2];
        for (int s = 0; s < FOUR; s++)
            for (int h = 0; h < 2; h++)
                left[s][h] = *(const octet *)(net + s * m->padded + b * BLOCK + 8 * h);
        for (long e = table->first[b]; e < table->first[b + 1]; e++) {
            const octet *shape = (const octet *)((const float *)table->entries + e * BLOCK), low = shape[0], high = shape[1];
            const float *area = areas + FOUR * table->which[e];
            for (int s = 0; s < FOUR; s++) {
                left[s][0] -= low * area[s];
                left[s][1] -= high * area[s];
            }
        }
        for (int s = 0; s < FOUR; s++) { /* a / b + c / d with one division, which is slow */
            octet over[2];
            for (int h = 0; h < 2; h++) {
                const octet wide = *(const octet *)(variance + s * m->padded + b * BLOCK + 8 * h);
                const marks above = wide > one;
                over[h] = (octet)(((marks)wide & above) | ((marks)one & ~above));
            }
            sums[s] += (left[s][0] * left[s][0] * over[1] + left[s][1] * left[s][1] * over[0]) / (over[0] * over[1]);
        }
    }
    for (int s = 0; s < FOUR; s++) {
        double total = 0.0;
        for (int l = 0; l < 8; l++)
            total += (double)sums[s][l];
        result[s] = total;
    }
}

/* Copy a spectrum in both precisions. */
static void take(const float *restrict from, double *restrict exact, float *restrict single, long channels)
{
    for (long i = 0; i < channels; i++) {
        exact[i] = (double)from[i];
        single[i] = from[i];
    }
}

/* Areas `x` (count, k) of the spectra `net` (count, channels), which lie `stride` values apart. With their `variance`, `apart` values
   apart: `squares` (count, k), the variances of the estimates without bounds, and `chi2`, the sums of squared residuals (count). */
void fit(const struct model *m, const struct desk *d, const float *net, const float *variance, double *x, double *squares, double *chi2,
         long stride, long apart, long count)
{
    const long k = m->problem->k, channels = m->channels, padded = m->padded;
    const float *spread = variance == net ? d->net : d->variance;
    for (long n = 0; n < count; n += TOGETHER) {
        const long some = count - n < TOGETHER ? count - n : TOGETHER;
        for (long s = 0; s < some; s++) {
            take(net + (n + s) * stride, d->exact + s * padded, d->net + s * padded, channels);
            if (variance && variance != net)
                memcpy(d->variance + s * padded, variance + (n + s) * apart, channels * sizeof(float));
        }
        struct ahead ahead = {net + (n + TOGETHER) * stride, stride, (channels + LINE - 1) / LINE, count - n - some, 0, 0};
        ahead.rows = ahead.rows < TOGETHER ? ahead.rows : TOGETHER;
        ahead.share = ahead.rows * ahead.lines / (variance ? 2 * k : k) + 1;
        project_double(&m->weighted, d->exact, d->right, m, &ahead);
        nnls(m->problem, d->right, x + n * k, d->spare, d->at, some);
        if (!variance)
            continue;
        project_single(&m->squares, spread, d->squares, m, &ahead);
        memcpy(squares + n * k, d->squares, some * k * sizeof(double));
        for (long h = 0; h < some; h += FOUR) {
            double four[FOUR];
            for (long s = 0; s < FOUR; s++)
                for (long j = 0; j < k; j++)
                    d->areas[FOUR * j + s] = h + s < some ? (float)x[(n + h + s) * k + j] : 0.0f;
            chi_square(m, d->net + h * padded, spread + h * padded, d->areas, four);
            memcpy(chi2 + n + h, four, (some - h < FOUR ? some - h : FOUR) * sizeof(double));
        }
    }
}
