/* What the loops of XRF share. Vectors are GCC's, which Clang has too; `quad` and `octet` fill one AVX2 register. */

typedef double quad __attribute__((vector_size(32), aligned(8)));
typedef float octet __attribute__((vector_size(32), aligned(4)));
typedef long bits __attribute__((vector_size(32)));
typedef int marks __attribute__((vector_size(32)));

/* A problem of `nnls`, scaled. Where `inverse`, that of `gram`, is good enough (`through_inverse`), only those parameters are solved
   for that are not positive, usually the fewer. */
struct problem {
    const double *gram, *inverse, *scale;
    const char *free;
    long k, through_inverse;
};

void nnls(const struct problem *problem, const double *right, double *x, double *spare, long *at, long count);
