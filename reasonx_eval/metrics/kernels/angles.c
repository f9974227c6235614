/* Surface normals: angles between two maps of vectors, and their sums. */
#pragma GCC target("avx2,fma")

#include "lanes.h"
#include "maps.h"

#if defined(__clang__)
#define SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, (masks){i, j, k, l})
#endif

/* Angles between two additions to the totals: few enough for the 12 bits of each count. */
#define PIECE 1024

typedef struct {
    lanes x, y, z;
} vectors;

/* Four vectors that lie one after the other from pixel i on. */
INLINE vectors load_vectors(const char *from, int wide, int64_t i) {
    lanes a = load(from, wide, 3 * i), b = load(from, wide, 3 * i + 4), c = load(from, wide, 3 * i + 8);
    /* a: x0 y0 z0 x1, b: y1 z1 x2 y2, c: z2 x3 y3 z3 */
    lanes ab = SHUFFLE(a, b, 0, 3, 6, 1), bc = SHUFFLE(b, c, 0, 3, 6, 1);
    lanes za = SHUFFLE(a, b, 2, 5, 2, 5);
    return (vectors){SHUFFLE(ab, c, 0, 1, 2, 5), SHUFFLE(ab, bc, 3, 4, 5, 6), SHUFFLE(za, c, 0, 1, 4, 7)};
}

/* The last vectors of a row that aren't four, and some of length 1. */
INLINE vectors rest_of(const char *from, int wide, int64_t i, int64_t width) {
    vectors v = {same(1.0), same(0.0), same(0.0)};
    for (int64_t k = 0; i + k < width; k++) {
        v.x[k] = value(from, wide, 3 * (i + k));
        v.y[k] = value(from, wide, 3 * (i + k) + 1);
        v.z[k] = value(from, wide, 3 * (i + k) + 2);
    }
    return v;
}

INLINE lanes product(const vectors *a, const vectors *b) {
    return a->x * b->x + a->y * b->y + a->z * b->z;
}

/* Cosines of the angles between pairs of vectors; adds to `bad` the valid lanes where there is no such angle. */
INLINE lanes cosine_of(const vectors *p, const vectors *g, masks valid, masks *bad) {
    lanes pp = product(p, p), gg = product(g, g);
    /* one root of the product: of equal vectors it is exactly their dot product */
    lanes square = pp * gg;
    *bad |= valid & (outside(gg, 1e-150, 1e150) | (outside(pp, 1e-150, 1e150) & (pp != 0.0)));
    /* a predicted vector of length 0 has no direction and counts 90 degrees */
    lanes cosine = product(p, g) / root(select_lanes(square == 0.0, same(1.0), square));
    return smaller(larger(cosine, same(-1.0)), same(1.0));
}

/* In place. A loop of its own has few steps in a row: the processor then works on several turns of it at once. */
INLINE void to_degrees(double *cosines, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) store(cosines + i, arc_cosine(load(cosines, 1, i)) * (180 / M_PI));
    for (; i < n; i++) cosines[i] = arc_cosine(same(cosines[i]))[0] * (180 / M_PI);
}

/* For each set of valid lanes, in the bits of the index, the halves of doubles that move to the front. */
#define HALVES(a, b, c, d) {2 * a, 2 * a + 1, 2 * b, 2 * b + 1, 2 * c, 2 * c + 1, 2 * d, 2 * d + 1}
static const int32_t front[16][8] = {
    HALVES(0, 1, 2, 3), HALVES(0, 1, 2, 3), HALVES(1, 0, 2, 3), HALVES(0, 1, 2, 3),
    HALVES(2, 0, 1, 3), HALVES(0, 2, 1, 3), HALVES(1, 2, 0, 3), HALVES(0, 1, 2, 3),
    HALVES(3, 0, 1, 2), HALVES(0, 3, 1, 2), HALVES(1, 3, 0, 2), HALVES(0, 1, 3, 2),
    HALVES(2, 3, 0, 1), HALVES(0, 2, 3, 1), HALVES(1, 2, 3, 0), HALVES(0, 1, 2, 3),
};

/* The values of valid lanes, in turn, with no branch to predict; what lies in the other lanes comes after them. */
INLINE double *keep(double *out, lanes x, masks valid) {
    int bits = _mm256_movemask_pd((__m256d)valid);
    __m256i order = _mm256_loadu_si256((const __m256i *)front[bits]);
    store(out, (lanes)_mm256_permutevar8x32_epi32((__m256i)x, order));
    return out + __builtin_popcount((unsigned)bits);
}

INLINE int angles_of(const pair_of_maps *maps, int pred_wide, int target_wide, double *out, int64_t room,
                     int64_t *count) {
    double *next = out;
    masks bad = {0};
    for (int64_t row = 0; row < maps->height; row++) {
        const char *pred = maps->pred.data + row * maps->pred.stride;
        const char *target = maps->target.data + row * maps->target.stride;
        const uint8_t *valid = (const uint8_t *)maps->valid + row * maps->valid_stride;
        double *first = next;
        int64_t i = 0, kept = 0;
        for (; i < maps->width; i++) kept += valid[i] != 0;
        if (next - out + kept + LANES > room) return UNUSUAL;
        for (i = 0; i + LANES <= maps->width; i += LANES) {
            vectors p = load_vectors(pred, pred_wide, i), g = load_vectors(target, target_wide, i);
            __builtin_prefetch(pred + (3 * i) * (pred_wide ? 8 : 4) + 3072);
            __builtin_prefetch(target + (3 * i) * (target_wide ? 8 : 4) + 3072);
            masks some = load_mask(valid, i);
            next = keep(next, cosine_of(&p, &g, some, &bad), some);
        }
        if (i < maps->width) {
            uint8_t some[LANES] = {0};
            memcpy(some, valid + i, (size_t)(maps->width - i));
            vectors p = rest_of(pred, pred_wide, i, maps->width), g = rest_of(target, target_wide, i, maps->width);
            next = keep(next, cosine_of(&p, &g, load_mask(some, 0), &bad), load_mask(some, 0));
        }
        to_degrees(first, next - first);
    }
    if (any_lane(bad)) return UNUSUAL;
    *count = next - out;
    return CLEAN;
}

int angles_between(const pair_of_maps *maps, double *out, int64_t room, int64_t *count) {
    if (maps->pred.wide)
        return maps->target.wide ? angles_of(maps, 1, 1, out, room, count) : angles_of(maps, 1, 0, out, room, count);
    return maps->target.wide ? angles_of(maps, 0, 1, out, room, count) : angles_of(maps, 0, 0, out, room, count);
}

INLINE void add_angles(const double *angles, int64_t n, const double *limits, angle_sums *out) {
    lanes sum = {0}, square = {0};
    masks counts = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        ahead(angles + i);
        lanes angle = load(angles, 1, i);
        sum += angle;
        square += angle * angle;
        for (int k = 0; k < LIMITS; k++) counts += (angle < same(limits[k])) & 1LL << 12 * k;
    }
    double rest = 0, rest_square = 0;
    int64_t all = (counts[0] + counts[2]) + (counts[1] + counts[3]);
    for (; i < n; i++) {
        rest += angles[i];
        rest_square += angles[i] * angles[i];
        for (int k = 0; k < LIMITS; k++) all += (int64_t)(angles[i] < limits[k]) << 12 * k;
    }
    out->sum += total(sum) + rest;
    out->square += total(square) + rest_square;
    for (int k = 0; k < LIMITS; k++) out->within[k] += all >> 12 * k & 0xfff;
}

void sum_angles(const double *angles, int64_t n, const double *limits, const bin_range *bins, int64_t *counts,
                angle_sums *out) {
    for (int64_t start = 0; start < n; start += PIECE) {
        int64_t step = n - start < PIECE ? n - start : PIECE;
        add_angles(angles + start, step, limits, out);
        if (counts) count_bins(angles + start, step, bins, counts);
    }
}
