/* What the loops of XRF share. Vectors are GCC's, which Clang has too; `quad` and `octet` fill one AVX2 register. */

typedef double quad __attribute__((vector_size(32), aligned(8)));
typedef float octet __attribute__((vector_size(32), aligned(4)));
typedef long bits __attribute__((vector_size(32)));
typedef int marks __attribute__((vector_size(32)));

/* A problem of `nnls`, scaled. `through_inverse`: `inverse`, that of `gram`, is good enough to solve for the parameters that are not
   positive, where those are fewer. */
struct problem {
    const double *gram, *inverse, *scale;
    const char *free;
    long k, through_inverse;
};

void nnls(const struct problem *problem, const double *right, double *x, double *spare, long *at, long count);
