/* Axes reversed: what MATLAB stores column by column becomes rows. */
#pragma GCC target("avx2,fma")

#include "maps.h"

#include <immintrin.h>
#include <string.h>

/* LINE: items of a cache line, which are all used while it is at hand. */
enum { WIDE = 8, HIGH = 4, LINE = 16 };

/* Four items of two columns that are four apart. */
static inline __m256 two_columns(const char *at, int64_t stride) {
    __m256 first = _mm256_castps128_ps256(_mm_loadu_ps((const float *)at));
    return _mm256_insertf128_ps(first, _mm_loadu_ps((const float *)(at + 4 * stride)), 1);
}

/* Four items of eight columns to eight items of four rows. */
static inline void turn_block(const char *at, int64_t stride, char *to, int64_t to_stride) {
    __m256 a = two_columns(at, stride), b = two_columns(at + stride, stride);
    __m256 c = two_columns(at + 2 * stride, stride), d = two_columns(at + 3 * stride, stride);
    __m256 ab_low = _mm256_unpacklo_ps(a, b), cd_low = _mm256_unpacklo_ps(c, d);
    __m256 ab_high = _mm256_unpackhi_ps(a, b), cd_high = _mm256_unpackhi_ps(c, d);
    _mm256_storeu_ps((float *)to, _mm256_shuffle_ps(ab_low, cd_low, 0x44));
    _mm256_storeu_ps((float *)(to + to_stride), _mm256_shuffle_ps(ab_low, cd_low, 0xEE));
    _mm256_storeu_ps((float *)(to + 2 * to_stride), _mm256_shuffle_ps(ab_high, cd_high, 0x44));
    _mm256_storeu_ps((float *)(to + 3 * to_stride), _mm256_shuffle_ps(ab_high, cd_high, 0xEE));
}

void turn_words(const columns *from, char *to, int64_t to_stride) {
    int64_t whole_x = from->count / WIDE * WIDE, whole_y = from->length / HIGH * HIGH;
    for (int64_t top = 0; top < whole_y; top += LINE)
        for (int64_t x = 0; x < whole_x; x += WIDE)
            for (int64_t y = top; y < top + LINE && y < whole_y; y += HIGH)
                turn_block(from->data + x * from->stride + y * 4, from->stride, to + y * to_stride + x * 4, to_stride);
    for (int64_t y = 0; y < from->length; y++)
        for (int64_t x = y < whole_y ? whole_x : 0; x < from->count; x++)
            memcpy(to + y * to_stride + x * 4, from->data + x * from->stride + y * 4, 4);
}

enum { DEEP = 16 };

/* Sixteen pixels of one column, four bytes each, the last of them 0. */
static inline void widen(const char *at, int64_t plane, __m128i out[4]) {
    __m128i r = _mm_loadu_si128((const __m128i *)at), g = _mm_loadu_si128((const __m128i *)(at + plane));
    __m128i b = _mm_loadu_si128((const __m128i *)(at + 2 * plane)), none = _mm_setzero_si128();
    __m128i low = _mm_unpacklo_epi8(r, g), high = _mm_unpackhi_epi8(r, g);
    __m128i low_b = _mm_unpacklo_epi8(b, none), high_b = _mm_unpackhi_epi8(b, none);
    out[0] = _mm_unpacklo_epi16(low, low_b);
    out[1] = _mm_unpackhi_epi16(low, low_b);
    out[2] = _mm_unpacklo_epi16(high, high_b);
    out[3] = _mm_unpackhi_epi16(high, high_b);
}

/* Four pixels of a row without their fourth bytes: twelve bytes, and not one more is written. */
static inline void store(__m128i pixels, char *to) {
    const __m128i packed = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    __m128i twelve = _mm_shuffle_epi8(pixels, packed);
    int last = _mm_extract_epi32(twelve, 2);
    _mm_storel_epi64((__m128i *)to, twelve);
    memcpy(to + 8, &last, 4);
}

void turn_colours(const columns *from, int64_t plane, char *to, int64_t to_stride) {
    int64_t whole_x = from->count / 4 * 4, whole_y = from->length / DEEP * DEEP;
    for (int64_t y = 0; y < whole_y; y += DEEP) {
        for (int64_t x = 0; x < whole_x; x += 4) {
            __m128i column[4][4];
            for (int k = 0; k < 4; k++) widen(from->data + (x + k) * from->stride + y, plane, column[k]);
            for (int four = 0; four < 4; four++) {
                __m128i a = _mm_unpacklo_epi32(column[0][four], column[1][four]);
                __m128i b = _mm_unpacklo_epi32(column[2][four], column[3][four]);
                __m128i c = _mm_unpackhi_epi32(column[0][four], column[1][four]);
                __m128i d = _mm_unpackhi_epi32(column[2][four], column[3][four]);
                char *out = to + (y + 4 * four) * to_stride + x * 3;
                store(_mm_unpacklo_epi64(a, b), out);
                store(_mm_unpackhi_epi64(a, b), out + to_stride);
                store(_mm_unpacklo_epi64(c, d), out + 2 * to_stride);
                store(_mm_unpackhi_epi64(c, d), out + 3 * to_stride);
            }
        }
    }
    for (int64_t y = 0; y < from->length; y++)
        for (int64_t x = y < whole_y ? whole_x : 0; x < from->count; x++)
            for (int64_t c = 0; c < 3; c++)
                to[y * to_stride + x * 3 + c] = from->data[c * plane + x * from->stride + y];
}
