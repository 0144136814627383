/* The inner loops that NumPy cannot fuse. Plain C99, no Python: arrays come as pointers, sizes as long, nothing is allocated. */

#include <string.h>

/* One segment of one spectrum: PyMca's SNIP recurrence, y_i <- min(y_i, (y_(i-p) + y_(i+p)) / 2) for p = width .. 1,
   each pass from the values of the pass before. `spare` has room for `length` values; the result stands in `values`. */
static void snip_segment(double *restrict values, double *restrict spare, long length, long width)
{
    double *restrict from = values, *restrict to = spare;
    if (width > (length - 1) / 2)
        width = (length - 1) / 2;
    for (long p = width; p > 0; p--) {
        memcpy(to, from, p * sizeof(double));
        for (long i = p; i < length - p; i++) {
            double mean = 0.5 * (from[i - p] + from[i + p]);
            to[i] = from[i] < mean ? from[i] : mean;
        }
        memcpy(to + length - p, from + length - p, p * sizeof(double));
        double *swap = from;
        from = to;
        to = swap;
    }
    if (from != values)
        memcpy(values, from, length * sizeof(double));
}

/* Turn `count` spectra of `channels` values into their background, between the `cuts` (0 = first, channels = last). */
void snip(double *spectra, double *spare, const long *cuts, long cut_count, long count, long channels, long width)
{
    for (long n = 0; n < count; n++)
        for (long c = 0; c + 1 < cut_count; c++)
            snip_segment(spectra + n * channels + cuts[c], spare, cuts[c + 1] - cuts[c], width);
}
