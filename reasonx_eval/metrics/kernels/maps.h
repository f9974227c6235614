/* Maps as the kernels see them: rows of contiguous values in the memory of numpy arrays. */
#ifndef REASONX_MAPS_H
#define REASONX_MAPS_H

#include <stdint.h>

typedef struct {
    const char *data;
    int64_t stride; /* bytes from row to row */
    int wide;       /* 1: float64, 0: float32 */
} map;

typedef struct {
    map pred, target;
    const char *valid; /* bytes, 0 or 1 */
    int64_t valid_stride;
    int64_t height, width;
} pair_of_maps;

/* What ends a kernel early. The caller then takes the form in numpy, which names the fault or copes with it. */
enum { CLEAN = 0, UNUSUAL = 1 };

/* Means of the valid pixels of two maps, and sums of squares and products about them. */
typedef struct {
    int64_t n;
    double pred_mean, target_mean, pred_square, product;
} moments;

typedef struct {
    double scale, shift;
    int disparity; /* 1: aligned values are inverted, after they are raised to `disparity_floor` */
    double disparity_floor;
    double low, high; /* metres, -inf and inf where nothing is clipped */
} alignment;

typedef struct {
    int64_t n;
    double abs, square, relative, relative_square, inverse_square, abs_log, log_mean, log_spread;
    int64_t within[3];
} depth_sums;

int depth_moments(const pair_of_maps *maps, int disparity, moments *out);
int depth_errors(const pair_of_maps *maps, const alignment *fit, depth_sums *out);

/* Degrees between the vectors of two [H, W, 3] maps at valid pixels, in turn, into `out`, which needs room for four more. */
int angles_between(const pair_of_maps *maps, double *out, int64_t room, int64_t *count);

typedef struct {
    double low, high, factor; /* factor: bins a unit */
    int64_t count;            /* `high` itself may round to a bin of its own, the last of these */
} bin_range;

enum { LIMITS = 5 };

typedef struct {
    double sum, square;
    int64_t within[LIMITS];
} angle_sums;

/* Sums of n angles, how many lie below each limit, and in which bins where `counts` isn't NULL. */
void sum_angles(const double *angles, int64_t n, const double *limits, const bin_range *bins, int64_t *counts,
                angle_sums *out);

/* Adds to `counts`, of bins->count + 1 numbers, the values in each bin; those outside all bins go to the last. */
void count_bins(const double *values, int64_t n, const bin_range *bins, int64_t *counts);

/* The values in bins `first` to `last`, in turn, into `out`. Returns how many, -1 if there is no room for all. */
int64_t take_bins(const double *values, int64_t n, const bin_range *bins, int64_t first, int64_t last, double *out,
                  int64_t room);

#endif
