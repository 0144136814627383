/* The loops over all channels of all detector elements. Plain C99, no Python; nothing is allocated. */

#include <math.h>
#include <string.h>

/* Look through the channels of a spectrum: `any` of them is not 0, one is `odd` (below 0, above MOST, or NaN). Largest and smallest
   number are quicker to find than each is to compare, but of floating point numbers only the comparison knows NaN. */
#define LOOK_INT(TYPE, counts, channels, MOST)                                                                                      \
    TYPE least = 0, largest = 0;                                                                                                    \
    for (long i = 0; i < channels; i++) {                                                                                           \
        largest = counts[i] > largest ? counts[i] : largest;                                                                        \
        least = counts[i] < least ? counts[i] : least;                                                                              \
    }                                                                                                                               \
    any = largest != least;                                                                                                         \
    odd = least != 0 || largest > MOST;
#define LOOK_FLOAT(TYPE, counts, channels, MOST)                                                                                    \
    for (long i = 0; i < channels; i++) {                                                                                           \
        any |= counts[i] != 0;                                                                                                      \
        odd |= !(counts[i] >= 0 && counts[i] <= MOST);                                                                              \
    }

/* Sum the `chosen` elements of spectra (count, elements, channels), `shape` = count, elements, channels, chosen elements. Each is
   multiplied by its factor (count, elements), where there are factors; `variance` then gets factor^2 x counts. An element without
   counts adds nothing, whatever its factor is; `live` says how many counted. A channel below 0 or above MOST is no count, NaN
   neither: then the spectrum is not known, its sums are NaN, and `wrong` is 1. */
#define SUM(NAME, TYPE, LOOK, MOST)                                                                                                 \
    void NAME(const TYPE *spectra, const double *factors, const long *chosen, const long *shape, float *total, float *variance,     \
              long *live, long *wrong)                                                                                              \
    {                                                                                                                               \
        const long count = shape[0], elements = shape[1], channels = shape[2];                                                      \
        for (long n = 0; n < count; n++) {                                                                                          \
            float *restrict sum = total + n * channels, *restrict spread = variance + n * channels;                                 \
            memset(sum, 0, channels * sizeof(float));                                                                               \
            if (factors)                                                                                                            \
                memset(spread, 0, channels * sizeof(float));                                                                        \
            live[n] = wrong[n] = 0;                                                                                                 \
            for (long c = 0; c < shape[3]; c++) {                                                                                   \
                const TYPE *restrict counts = spectra + (n * elements + chosen[c]) * channels;                                      \
                int any = 0, odd = 0;                                                                                               \
                LOOK(TYPE, counts, channels, MOST)                                                                                  \
                wrong[n] |= odd;                                                                                                    \
                if (!any)                                                                                                           \
                    continue;                                                                                                       \
                live[n]++;                                                                                                          \
                if (!factors) {                                                                                                     \
                    for (long i = 0; i < channels; i++)                                                                             \
                        sum[i] += (float)counts[i];                                                                                 \
                    continue;                                                                                                       \
                }                                                                                                                   \
                const float factor = (float)factors[n * elements + chosen[c]];                                                      \
                for (long i = 0; i < channels; i++) {                                                                               \
                    const float corrected = factor * (float)counts[i];                                                              \
                    sum[i] += corrected;                                                                                            \
                    spread[i] += factor * corrected;                                                                                \
                }                                                                                                                   \
            }                                                                                                                       \
            if (wrong[n])                                                                                                           \
                for (long i = 0; i < channels; i++)                                                                                 \
                    sum[i] = spread[i] = NAN;                                                                                       \
        }                                                                                                                           \
    }

SUM(sum_elements_u1, unsigned char, LOOK_INT, 253)
SUM(sum_elements_u2, unsigned short, LOOK_INT, 65533)
SUM(sum_elements_u4, unsigned int, LOOK_INT, 4294967293u)
SUM(sum_elements_i4, int, LOOK_INT, 2147483646)
SUM(sum_elements_f4, float, LOOK_FLOAT, 4294967040.0f)
SUM(sum_elements_f8, double, LOOK_FLOAT, 4294967293.0)

/* Take spectra (count, channels) into the `sum` and the `most` of each channel, and put the sum of each spectrum into `totals`. One
   that is not known (NaN in its first channel) becomes zeros, and its total NaN. */
void collect(float *spectra, double *restrict sum, float *restrict most, double *totals, long count, long channels)
{
    for (long n = 0; n < count; n++) {
        float *restrict counts = spectra + n * channels;
        double lanes[8] = {0};
        const int known = isfinite(counts[0]);
        if (!known)
            memset(counts, 0, channels * sizeof(float));
        for (long i = 0; i < channels; i++) {
            sum[i] += (double)counts[i];
            most[i] = counts[i] > most[i] ? counts[i] : most[i];
        }
        long i = 0;
        for (; i + 8 <= channels; i += 8)
            for (long l = 0; l < 8; l++)
                lanes[l] += (double)counts[i + l];
        for (; i < channels; i++)
            lanes[0] += (double)counts[i];
        for (long l = 1; l < 8; l++)
            lanes[0] += lanes[l];
        totals[n] = known ? lanes[0] : NAN;
    }
}
