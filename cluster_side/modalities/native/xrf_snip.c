/* The background of spectra. Plain C99, no Python: arrays come as pointers, sizes as long, nothing is allocated. */

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
   `cuts` (first is 0, last is channels); it is added to `total` (channel). `spare` has room for 2 spectra. */
void snip(const float *counts, float *net, double *total, float *spare, const long *cuts, long cut_count, long count, long channels,
          long stride, long width)
{
    for (long n = 0; n < count; n++) {
        const float *spectrum = counts + n * stride;
        float *rest = net + n * channels;
        memcpy(spare, spectrum, channels * sizeof(float));
        for (long c = 0; c + 1 < cut_count; c++)
            snip_segment(spare + cuts[c], spare + channels, cuts[c + 1] - cuts[c], width);
        for (long i = 0; i < channels; i++) {
            total[i] += (double)spare[i];
            rest[i] = spectrum[i] - spare[i];
        }
    }
}
