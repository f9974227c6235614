/* Depth: the moments of a least-squares fit and the sums of all metrics, each in one pass over two maps.
 *
 * Sums of a piece of a row are taken about the mean so far and merged, so that neither an offset nor a good fit costs
 * digits. An input or a ratio that isn't finite, positive where it must be, and a normal number ends the pass.
 */
#pragma GCC target("avx2,fma")

#include "lanes.h"
#include "maps.h"

/* Depths between these have products and ratios that are normal numbers. */
#define SMALL 1e-150
#define LARGE 1e150
/* Pixels between two merges: a lane counts fewer than fit the 16 bits that `depth_lanes.counts` has for each count. */
#define PIECE 1024

/* A piece of a row: values from index 0 on, of `n` pixels; the last pixels of a map that aren't four are padded. */
typedef struct {
    const char *pred, *target, *valid;
    int64_t n;
} piece;

/* The pixels left over from a row's last four, with invalid ones to fill up. */
typedef struct {
    double pred[LANES], target[LANES];
    uint8_t valid[LANES];
} rest;

INLINE piece piece_of(const pair_of_maps *maps, int pred_wide, int target_wide, int64_t row, int64_t start) {
    int64_t n = maps->width - start < PIECE ? maps->width - start : PIECE;
    return (piece){maps->pred.data + row * maps->pred.stride + start * (pred_wide ? 8 : 4),
                   maps->target.data + row * maps->target.stride + start * (target_wide ? 8 : 4),
                   maps->valid + row * maps->valid_stride + start, n};
}

INLINE rest rest_of(const piece *at, int pred_wide, int target_wide) {
    rest r = {{1, 1, 1, 1}, {1, 1, 1, 1}, {0, 0, 0, 0}};
    for (int64_t i = at->n / LANES * LANES, k = 0; i < at->n; i++, k++) {
        r.pred[k] = value(at->pred, pred_wide, i);
        r.target[k] = value(at->target, target_wide, i);
        r.valid[k] = (uint8_t)at->valid[i];
    }
    return r;
}

typedef struct {
    lanes p, g, pp, pg;
    masks count, bad;
} moment_lanes;

INLINE void add_moments(moment_lanes *s, lanes p, lanes g, masks valid, int disparity, double about_p, double about_g) {
    s->bad |= valid & (outside(p, -DBL_MAX, DBL_MAX) | outside(g, DBL_MIN, DBL_MAX));
    if (disparity) {
        /* a disparity that isn't positive has no depth */
        valid &= p > 0.0;
        g = 1.0 / g;
    }
    p = where_valid(valid, p - about_p);
    g = where_valid(valid, g - about_g);
    s->p += p;
    s->g += g;
    s->pp += p * p;
    s->pg += p * g;
    s->count -= valid;
}

/* Merge the moments of two sets (Chan, Golub, LeVeque 1979); those of the second are about the means of the first. */
INLINE void merge_moments(moments *m, const moment_lanes *s) {
    int64_t n = (s->count[0] + s->count[2]) + (s->count[1] + s->count[3]);
    if (n == 0) return;
    double all = (double)(m->n + n), p = total(s->p), g = total(s->g);
    m->pred_square += total(s->pp) - p * p / all;
    m->product += total(s->pg) - p * g / all;
    m->pred_mean += p / all;
    m->target_mean += g / all;
    m->n += n;
}

INLINE int moments_of(const pair_of_maps *maps, int pred_wide, int target_wide, int disparity, moments *out) {
    for (int64_t row = 0; row < maps->height; row++)
        for (int64_t start = 0; start < maps->width; start += PIECE) {
            piece at = piece_of(maps, pred_wide, target_wide, row, start);
            if (out->n == 0) {
                /* about its first value a constant is exactly 0 everywhere */
                int64_t i = 0;
                while (i < at.n && !(at.valid[i] && (!disparity || value(at.pred, pred_wide, i) > 0))) i++;
                if (i < at.n) out->pred_mean = value(at.pred, pred_wide, i);
            }
            moment_lanes s = {0};
            for (int64_t i = 0; i + LANES <= at.n; i += LANES)
                add_moments(&s, load(at.pred, pred_wide, i), load(at.target, target_wide, i), load_mask(at.valid, i),
                            disparity, out->pred_mean, out->target_mean);
            if (at.n % LANES) {
                rest r = rest_of(&at, pred_wide, target_wide);
                add_moments(&s, load(r.pred, 1, 0), load(r.target, 1, 0), load_mask(r.valid, 0), disparity,
                            out->pred_mean, out->target_mean);
            }
            if (any_lane(s.bad)) return UNUSUAL;
            merge_moments(out, &s);
        }
    return CLEAN;
}

/* A least-squares fit's moments; `out` starts at 0. */
int depth_moments(const pair_of_maps *maps, int disparity, moments *out) {
    if (maps->pred.wide)
        return maps->target.wide ? moments_of(maps, 1, 1, disparity, out) : moments_of(maps, 1, 0, disparity, out);
    return maps->target.wide ? moments_of(maps, 0, 1, disparity, out) : moments_of(maps, 0, 0, disparity, out);
}

typedef struct {
    lanes abs, square, relative, relative_square, inverse_square, abs_log, log, log_square;
    masks counts, bad; /* counts: valid, and within each threshold, in 16 bits each */
} depth_lanes;

INLINE lanes aligned(lanes p, const alignment *fit) {
    p = p * fit->scale + fit->shift;
    if (fit->disparity) p = 1.0 / larger(p, same(fit->disparity_floor));
    return smaller(larger(p, same(fit->low)), same(fit->high));
}

INLINE void add_errors(depth_lanes *s, lanes p, lanes g, masks valid, const alignment *fit, double about) {
    const lanes one = same(1.0);
    s->bad |= valid & ~(absolute(p) <= same(DBL_MAX));
    /* 1 metre in both maps is no error */
    p = select_lanes(valid, aligned(p, fit), one);
    g = select_lanes(valid, g, one);
    lanes error = absolute(p - g), area = p * g, inverse = error / area;
    lanes ratio = larger(p, g) / smaller(p, g);
    s->bad |= outside(p, SMALL, LARGE) | outside(g, SMALL, LARGE);
    lanes relative = inverse * p, size = natural_log(ratio);
    lanes log = where_valid(valid, select_lanes(p < g, -size, size) - about);
    s->abs += error;
    s->square += error * error;
    s->relative += relative;
    s->relative_square += relative * error;
    s->inverse_square += inverse * inverse;
    s->abs_log += size;
    s->log += log;
    s->log_square += log * log;
    s->counts += valid & (1LL + ((ratio < 1.25) & 1LL << 16) + ((ratio < 1.25 * 1.25) & 1LL << 32)
                          + ((ratio < 1.25 * 1.25 * 1.25) & 1LL << 48));
}

INLINE void merge_errors(depth_sums *sums, const depth_lanes *s) {
    int64_t counts = (s->counts[0] + s->counts[2]) + (s->counts[1] + s->counts[3]);
    int64_t n = counts & 0xffff;
    if (n == 0) return;
    sums->abs += total(s->abs);
    sums->square += total(s->square);
    sums->relative += total(s->relative);
    sums->relative_square += total(s->relative_square);
    sums->inverse_square += total(s->inverse_square);
    sums->abs_log += total(s->abs_log);
    for (int k = 0; k < 3; k++) sums->within[k] += counts >> (16 * (k + 1)) & 0xffff;
    double all = (double)(sums->n + n), log = total(s->log);
    double spread = sums->log_spread + (total(s->log_square) - log * log / all);
    sums->log_spread = spread > 0.0 ? spread : 0.0; /* rounding alone can take it below */
    sums->log_mean += log / all;
    sums->n += n;
}

/* Logarithm of the first valid ratio of a piece, about which a prediction in proportion has no spread at all. */
INLINE double first_log(const piece *at, int pred_wide, int target_wide, const alignment *fit) {
    for (int64_t i = 0; i < at->n; i++)
        if (at->valid[i]) {
            lanes p = aligned(same(value(at->pred, pred_wide, i)), fit), g = same(value(at->target, target_wide, i));
            lanes size = natural_log(larger(p, g) / smaller(p, g));
            return p[0] < g[0] ? -size[0] : size[0];
        }
    return 0.0;
}

INLINE int errors_of(const pair_of_maps *maps, int pred_wide, int target_wide, const alignment *fit, depth_sums *out) {
    for (int64_t row = 0; row < maps->height; row++)
        for (int64_t start = 0; start < maps->width; start += PIECE) {
            piece at = piece_of(maps, pred_wide, target_wide, row, start);
            if (out->n == 0) out->log_mean = first_log(&at, pred_wide, target_wide, fit);
            depth_lanes s = {0};
            for (int64_t i = 0; i + LANES <= at.n; i += LANES)
                add_errors(&s, load(at.pred, pred_wide, i), load(at.target, target_wide, i), load_mask(at.valid, i),
                           fit, out->log_mean);
            if (at.n % LANES) {
                rest r = rest_of(&at, pred_wide, target_wide);
                add_errors(&s, load(r.pred, 1, 0), load(r.target, 1, 0), load_mask(r.valid, 0), fit, out->log_mean);
            }
            if (any_lane(s.bad)) return UNUSUAL;
            merge_errors(out, &s);
        }
    return CLEAN;
}

/* Sums over valid pixels of every depth metric; `out` starts at 0. */
int depth_errors(const pair_of_maps *maps, const alignment *fit, depth_sums *out) {
    if (maps->pred.wide)
        return maps->target.wide ? errors_of(maps, 1, 1, fit, out) : errors_of(maps, 1, 0, fit, out);
    return maps->target.wide ? errors_of(maps, 0, 1, fit, out) : errors_of(maps, 0, 0, fit, out);
}
