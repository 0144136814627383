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

/* Sum of squared residuals in units of their variance, at least 1, of each spectrum. */
void chi_square(const double *net, const float *model, const float *variance, double *result, long count, long channels)
{
    for (long n = 0; n < count; n++) {
        float sums[16] = {0};
        long i = n * channels, end = i + channels;
        for (; i + 16 <= end; i += 16)
            for (long l = 0; l < 16; l++) {
                float left = (float)net[i + l] - model[i + l], spread = variance[i + l] > 1.0f ? variance[i + l] : 1.0f;
                sums[l] += left * left / spread;
            }
        for (long l = 0; i < end; i++, l++) {
            float left = (float)net[i] - model[i];
            sums[l] += left * left / (variance[i] > 1.0f ? variance[i] : 1.0f);
        }
        double total = 0.0;
        for (long l = 0; l < 16; l++)
            total += sums[l];
        result[n] = total;
    }
}

/* Solve gram x = right for the parameters `at`, by Cholesky; x is 0 elsewhere. `work` has room for k * k + k values. */
static void solve_passive(const double *gram, const double *right, const long *at, long size, long k, double *work, double *x)
{
    double *lower = work, *column = work + k * k;
    for (long i = 0; i < size; i++)
        for (long j = 0; j <= i; j++)
            lower[i * k + j] = gram[at[i] * k + at[j]];
    for (long j = 0; j < size; j++) {
        double pivot = sqrt(lower[j * k + j]);
        lower[j * k + j] = pivot;
        for (long i = j + 1; i < size; i++)
            column[i] = lower[i * k + j] /= pivot;
        for (long i = j + 1; i < size; i++) {
            double *restrict row = lower + i * k, factor = column[i];
            for (long l = j + 1; l <= i; l++)
                row[l] -= factor * column[l];
        }
    }
    for (long i = 0; i < size; i++) {
        double sum = right[at[i]];
        for (long j = 0; j < i; j++)
            sum -= lower[i * k + j] * column[j];
        column[i] = sum / lower[i * k + i];
    }
    for (long i = size - 1; i >= 0; i--) {
        double sum = column[i];
        for (long j = i + 1; j < size; j++)
            sum -= lower[j * k + i] * column[j];
        column[i] = sum / lower[i * k + i];
    }
    for (long i = 0; i < k; i++)
        x[i] = 0.0;
    for (long i = 0; i < size; i++)
        x[at[i]] = column[i];
}

/* One spectrum of `pivot`: the algorithm is that of `_pivot` in xrf/nnls.py. `x` comes in as the unconstrained solution. */
static void pivot_one(const double *gram, const double *right, const char *free, double *x, long k, double *work, long *at, char *passive)
{
    double largest = 0.0;
    long fewest = k + 1, lives = 3;
    for (long i = 0; i < k; i++) {
        largest = fabs(right[i]) > largest ? fabs(right[i]) : largest;
        passive[i] = free[i] || x[i] > 0.0;
    }
    double tolerance = 1e-11 * largest;
    long *wrong = at + k;
    for (;;) {
        long size = 0, broken = 0;
        for (long i = 0; i < k; i++)
            if (passive[i])
                at[size++] = i;
        solve_passive(gram, right, at, size, k, work, x);
        for (long i = 0; i < k; i++) {
            double value = x[i];
            if (!passive[i]) {
                value = -right[i];
                for (long j = 0; j < size; j++)
                    value += gram[i * k + at[j]] * x[at[j]];
            }
            if (value < -tolerance && !free[i])
                wrong[broken++] = i;
        }
        if (!broken)
            return;
        lives = broken < fewest ? 3 : lives - 1;
        fewest = broken < fewest ? broken : fewest;
        for (long i = lives < 0 ? broken - 1 : 0; i < broken; i++)
            passive[wrong[i]] = !passive[wrong[i]];
    }
}

/* Make the solutions `x` (count, k) non-negative. `work`: k * k + k values; `at`: 2 k; `passive`: k. */
void pivot(const double *gram, const double *right, const char *free, double *x, double *work, long *at, char *passive, long count, long k)
{
    for (long n = 0; n < count; n++)
        pivot_one(gram, right + n * k, free, x + n * k, k, work, at, passive);
}
