/* The inner loop of XRD. Plain C99, no Python: arrays come as pointers, sizes as long, nothing is allocated. */

/* Scatter one frame into bins. Pixel p gives the part pairs[p][0] of its value to bin first[p] and pairs[p][1] to the bin after it;
   pixels with further bins stand again in `more`; a pixel in no bin has first = count. `both` (2, bin + 2, 2) gets part x value, and as variance part^2 x (value - 1) for
   values above 1 (what a value of at most 1 has stands in the prepared sums). Neighbours often lie in one bin: they add to two sets
   of sums in turn, so that none waits for the one before. A pixel with a value outside of [low, high], or within one of the
   `ranges` [from, to] of `out`, or NaN is lost: `lost` gets what it has in the prepared sums (part x weight, its square, part, part^2, and
   part x dark). */
typedef double pair __attribute__((vector_size(16), aligned(8)));
struct table {
    const int *first, *more_pixels, *more_first;
    const float *pairs, *more_pairs, *weight, *dark;
    const double *out;
    double low, high;
    long ranges, pixels, more, count;
};
enum { CHUNK = 64, LANES = 8 };

static inline void gain(pair *bin, const float *parts, double value)
{
    const pair measured = {value, value > 1.0 ? value - 1.0 : 0.0};
    const double left = parts[0], right = parts[1];
    bin[0] += (pair){left, left * left} * measured;
    bin[1] += (pair){right, right * right} * measured;
}

static void lose(double *lost, const struct table *table, long pixel, long first, const float *parts)
{
    for (int side = 0; side < 2 && parts[side] != 0.0f; side++) {
        double part = parts[side], share = part * table->weight[pixel], *bin = lost + first + side;
        bin[0] += share;
        bin[table->count] += share * share;
        bin[2 * table->count] += part;
        bin[3 * table->count] += part * part;
        if (table->dark)
            bin[4 * table->count] += part * table->dark[pixel];
    }
}

static inline int valid(const struct table *table, double value)
{
    int good = (value >= table->low) & (value <= table->high);
    for (long n = 0; n < table->ranges; n++)
        good &= !((value >= table->out[2 * n]) & (value <= table->out[2 * n + 1]));
    return good;
}

/* Whether all values from `least` to `most` are valid. */
static inline int all_valid(const struct table *table, double least, double most)
{
    int good = (least >= table->low) & (most <= table->high);
    for (long n = 0; n < table->ranges; n++)
        good &= !((most >= table->out[2 * n]) & (least <= table->out[2 * n + 1]));
    return good;
}

#define SCATTER(NAME, TYPE)                                                                                                                           \
    long NAME(const TYPE *frame, const struct table *given, double *both, double *lost, double *total)                                                \
    {                                                                                                                                                 \
        const struct table table = *given;                                                                                                            \
        pair *restrict even = (pair *)both, *restrict odd = even + table.count + 2;                                                                   \
        double all[LANES] = {0};                                                                                                                      \
        long missing = 0;                                                                                                                             \
        for (long start = 0; start < table.pixels; start += CHUNK) {                                                                                  \
            const long size = table.pixels - start < CHUNK ? table.pixels - start : CHUNK;                                                            \
            const TYPE *values = frame + start;                                                                                                       \
            const int *first = table.first + start;                                                                                                   \
            const float *parts = table.pairs + 2 * start;                                                                                             \
            TYPE least = values[0], most = values[0];                                                                                                 \
            int nan = 0;                                                                                                                              \
            for (long p = 0; p < size; p++) {                                                                                                         \
                least = values[p] < least ? values[p] : least;                                                                                        \
                most = values[p] > most ? values[p] : most;                                                                                           \
                nan |= values[p] != values[p];                                                                                                        \
            }                                                                                                                                         \
            if (size == CHUNK && !nan && all_valid(&table, (double)least, (double)most)) {                                                            \
                for (long p = 0; p < CHUNK; p += LANES)                                                                                               \
                    for (long l = 0; l < LANES; l++)                                                                                                  \
                        all[l] += first[p + l] < table.count ? (double)values[p + l] : 0.0;                                                           \
                for (long p = 0; p < CHUNK; p += 2) {                                                                                                 \
                    gain(even + first[p], parts + 2 * p, (double)values[p]);                                                                          \
                    gain(odd + first[p + 1], parts + 2 * p + 2, (double)values[p + 1]);                                                               \
                }                                                                                                                                     \
                continue;                                                                                                                             \
            }                                                                                                                                         \
            for (long p = 0; p < size; p++)                                                                                                           \
                if (first[p] < table.count && valid(&table, (double)values[p])) {                                                                     \
                    gain(even + first[p], parts + 2 * p, (double)values[p]);                                                                          \
                    all[0] += (double)values[p];                                                                                                      \
                } else if (first[p] < table.count) {                                                                                                  \
                    lose(lost, &table, start + p, first[p], parts + 2 * p);                                                                           \
                    missing++;                                                                                                                        \
                }                                                                                                                                     \
        }                                                                                                                                             \
        for (long n = 0; n < table.more; n++) {                                                                                                       \
            const long pixel = table.more_pixels[n];                                                                                                  \
            if (valid(&table, (double)frame[pixel]))                                                                                                  \
                gain(even + table.more_first[n], table.more_pairs + 2 * n, (double)frame[pixel]);                                                     \
            else                                                                                                                                      \
                lose(lost, &table, pixel, table.more_first[n], table.more_pairs + 2 * n);                                                             \
        }                                                                                                                                             \
        *total = 0.0;                                                                                                                                 \
        for (long l = 0; l < LANES; l++)                                                                                                              \
            *total += all[l];                                                                                                                         \
        return missing;                                                                                                                               \
    }

SCATTER(scatter_u1, unsigned char)
SCATTER(scatter_u2, unsigned short)
SCATTER(scatter_u4, unsigned int)
SCATTER(scatter_i2, short)
SCATTER(scatter_i4, int)
SCATTER(scatter_f4, float)
