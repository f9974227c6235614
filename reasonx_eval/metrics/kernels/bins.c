/* Which of many equal bins values lie in: the passes of an exact median over values that come in pieces. */
#pragma GCC target("avx2,fma")

#include "lanes.h"
#include "maps.h"

/* Values whose bin numbers stay in the first-level cache. */
#define PIECE 512

/* Bin numbers, which never fall as the value grows, before they are cut to integers; `count` for what lies outside. */
INLINE lanes positions(lanes values, const bin_range *bins) {
    return select_lanes(outside(values, bins->low, bins->high), same((double)bins->count),
                        (values - bins->low) * bins->factor);
}

void count_bins(const double *values, int64_t n, const bin_range *bins, int64_t *counts) {
    int32_t bin[PIECE];
    for (int64_t start = 0; start < n; start += PIECE) {
        const double *from = values + start;
        int64_t step = n - start < PIECE ? n - start : PIECE, i = 0;
        for (; i + LANES <= step; i += LANES) {
            __m128i four = _mm256_cvttpd_epi32(positions(load(from, 1, i), bins));
            memcpy(bin + i, &four, sizeof four);
        }
        for (; i < step; i++) bin[i] = (int32_t)positions(same(from[i]), bins)[0];
        for (i = 0; i < step; i++) counts[bin[i]]++;
    }
}

int64_t take_bins(const double *values, int64_t n, const bin_range *bins, int64_t first, int64_t last, double *out,
                  int64_t room) {
    const lanes low = same((double)first), high = same((double)last + 1.0);
    int64_t taken = 0;
    for (int64_t i = 0; i < n; i += LANES) {
        ahead(values + i);
        int64_t some = n - i < LANES ? n - i : LANES;
        lanes x = some == LANES ? load(values, 1, i) : (lanes){values[i], some > 1 ? values[i + 1] : 0,
                                                               some > 2 ? values[i + 2] : 0, 0};
        lanes position = positions(x, bins);
        masks found = (position >= low) & (position < high);
        /* few have any: that is quicker to see than to copy by */
        if (!any_lane(found)) continue;
        for (int64_t k = 0; k < some; k++) {
            if (!found[k]) continue;
            if (taken == room) return -1;
            out[taken++] = x[k];
        }
    }
    return taken;
}
