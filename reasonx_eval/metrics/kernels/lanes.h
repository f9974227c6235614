/* Four float64 lanes and what the kernels do with them.
 *
 * A sum always goes over the same four lanes in the same order, and no multiplication is fused with an addition, so
 * every processor gives the same bits. Vector types are those of GCC and Clang; whoever includes this states a target
 * with AVX2 and FMA.
 */
#ifndef REASONX_LANES_H
#define REASONX_LANES_H

#include <float.h>
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 4
#define INLINE static inline __attribute__((always_inline))

typedef double lanes __attribute__((vector_size(32)));
typedef int64_t masks __attribute__((vector_size(32)));
typedef uint64_t words __attribute__((vector_size(32)));
typedef float floats4 __attribute__((vector_size(16)));

INLINE lanes same(double value) {
    return (lanes){value, value, value, value};
}

INLINE lanes select_lanes(masks where, lanes yes, lanes no) {
    return _mm256_blendv_pd(no, yes, (lanes)where);
}

INLINE lanes where_valid(masks where, lanes x) {
    return (lanes)(where & (masks)x);
}

INLINE lanes absolute(lanes x) {
    return (lanes)((masks)x & 0x7fffffffffffffffLL);
}

/* b where either is NaN. */
INLINE lanes larger(lanes a, lanes b) {
    return _mm256_max_pd(a, b);
}

/* b where either is NaN. */
INLINE lanes smaller(lanes a, lanes b) {
    return _mm256_min_pd(a, b);
}

/* True of NaN as well. */
INLINE masks outside(lanes x, double low, double high) {
    return ~((x >= same(low)) & (x <= same(high)));
}

INLINE lanes root(lanes x) {
    return _mm256_sqrt_pd(x);
}

/* a b + c, rounded once. */
INLINE lanes fused(lanes a, lanes b, lanes c) {
    return _mm256_fmadd_pd(a, b, c);
}

INLINE double total(lanes x) {
    return (x[0] + x[2]) + (x[1] + x[3]);
}

INLINE int any_lane(masks x) {
    return _mm256_movemask_pd((lanes)x) != 0;
}

INLINE double value(const void *from, int wide, int64_t i) {
    return wide ? ((const double *)from)[i] : (double)((const float *)from)[i];
}

/* Ask for what a loop over float64 comes to in a while: of itself the processor doesn't look beyond the end of a page,
 * which costs half the time where values come from memory. Distances of 2 to 4 KB do equally well. */
INLINE void ahead(const double *at) {
    __builtin_prefetch(at + 384);
}

/* Four values of float32 (wide 0) or float64 (wide 1) from index i on. */
INLINE lanes load(const void *from, int wide, int64_t i) {
    if (wide) {
        lanes x;
        memcpy(&x, (const double *)from + i, sizeof x);
        return x;
    }
    floats4 f;
    memcpy(&f, (const float *)from + i, sizeof f);
    return __builtin_convertvector(f, lanes);
}

INLINE void store(double *to, lanes x) {
    memcpy(to, &x, sizeof x);
}

/* All bits of a lane where its byte isn't 0. */
INLINE masks load_mask(const void *from, int64_t i) {
    int32_t b;
    memcpy(&b, (const uint8_t *)from + i, sizeof b);
    return (masks)_mm256_cvtepu8_epi64(_mm_cvtsi32_si128(b)) != 0;
}

/* Natural logarithm of positive normal numbers, to 2 units in the last place: x = m 2^e with m in [sqrt(1/2), sqrt(2)),
 * ln m = 2 atanh(s), s = (m - 1) / (m + 1), |s| < 0.1716, by its series. Other arguments give nonsense. */
INLINE lanes natural_log(lanes x) {
    const uint64_t root_half = 0x3fe6a09e667f3bcdULL;
    words biased = ((words)x - root_half + (1024ULL << 52)) >> 52;
    /* in the low bits of a double between 2^52 and 2^53 an integer is converted without an instruction of its own */
    lanes exponent = (lanes)(biased | 0x4330000000000000ULL) - (4503599627370496.0 + 1024.0);
    lanes m = (lanes)((words)x - ((biased - 1024ULL) << 52));
    lanes s = (m - 1.0) / (m + 1.0), z = s * s, zz = z * z;
    /* 1/3 + z/5 + z^2/7 + ... in two chains that run side by side */
    lanes even = same(1.0 / 19), odd = same(1.0 / 17);
    even = fused(even, zz, same(1.0 / 15));
    odd = fused(odd, zz, same(1.0 / 13));
    even = fused(even, zz, same(1.0 / 11));
    odd = fused(odd, zz, same(1.0 / 9));
    even = fused(even, zz, same(1.0 / 7));
    odd = fused(odd, zz, same(1.0 / 5));
    even = fused(even, zz, same(1.0 / 3));
    lanes series = fused(odd, z, even);
    /* ln 2 in two parts: the first, of few bits, times an exponent is exact */
    const lanes high = same(6.93147180369123816490e-01), low = same(1.90821492927058770002e-10);
    return fused(exponent, high, fused(exponent, low, fused(s + s, z * series, s + s)));
}

/* Arc cosine in radians of numbers in [-1, 1], to 2 units in the last place; exact at -1, 0 and 1.
 * From |x| = 1/2 on by acos x = 2 asin sqrt((1 - x) / 2). The polynomial is the Chebyshev interpolant of
 * (asin(sqrt z) / sqrt z - 1) / z on [0, 1/4], with an error of 2.4e-16. */
INLINE lanes arc_cosine(lanes x) {
    lanes size = absolute(x);
    masks central = size < 0.5;
    lanes z = select_lanes(central, x * x, 0.5 - 0.5 * size), s = select_lanes(central, size, root(z));
    lanes even = same(0.028169218060881414), odd = same(-0.010749050339697808), zz = z * z;
    even = fused(even, zz, same(0.01603551434914882));
    odd = fused(odd, zz, same(0.0078029494773533175));
    even = fused(even, zz, same(0.011875494382636922));
    odd = fused(odd, zz, same(0.013929652902326633));
    even = fused(even, zz, same(0.017355259955786323));
    odd = fused(odd, zz, same(0.02237204763174451));
    even = fused(even, zz, same(0.03038194736709848));
    odd = fused(odd, zz, same(0.044642857103423646));
    even = fused(even, zz, same(0.07500000000020764));
    odd = fused(odd, zz, same(0.1666666666666665));
    lanes polynomial = fused(even, z, odd);
    lanes angle = fused(s, z * polynomial, s);
    masks negative = x < 0.0;
    lanes signed_angle = select_lanes(negative, -angle, angle);
    lanes twice = angle + angle;
    return select_lanes(central, M_PI_2 - signed_angle, select_lanes(negative, M_PI - twice, twice));
}

#endif
