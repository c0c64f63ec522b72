/* SPDX-License-Identifier: Apache-2.0
 *
 * A histogram of signed nanoseconds with the buckets of a Prometheus native histogram of schema 4, in constant memory.
 *
 * Bucket `index` holds the magnitudes in (2^((index-1)/16), 2^(index/16)] seconds, upper bound inclusive, once for
 * positive and once for negative values; 0 alone is in the zero bucket. A magnitude is a whole number of nanoseconds,
 * and a whole number exceeds a bound exactly when it exceeds the bound's integer part, so the integer bounds
 * floor(2^(index/16) * 10^9) sort every int64 as the irrational ones would: nothing is rounded, nothing is clamped.
 * Below 23 ns a bucket is narrower than a nanosecond, and some stay empty for ever.
 *
 * A struct may be embedded by value; tp_histogram_reset makes it usable. One writer; who reads while it writes must
 * hold the owner's lock (and may copy the struct under it). No function allocates.
 */
#ifndef TICKPATH_HISTOGRAM_H
#define TICKPATH_HISTOGRAM_H

#include <errno.h>
#include <stdint.h>
#include <string.h>

#define TP_HISTOGRAM_SCHEMA 4
#define TP_HISTOGRAM_MIN_INDEX (-478) /* holds 1 ns */
#define TP_HISTOGRAM_MAX_INDEX 530    /* holds 2^63 ns, the magnitude of INT64_MIN */
#define TP_HISTOGRAM_BUCKETS 1009     /* per sign */

/* Slots run in ascending order of value: negative buckets from the largest magnitude down, zero, positive ones up. */
#define TP_HISTOGRAM_ZERO_SLOT TP_HISTOGRAM_BUCKETS
#define TP_HISTOGRAM_SLOTS (2 * TP_HISTOGRAM_BUCKETS + 1)

struct tp_histogram {
    uint64_t sum_low; /* the sum, two's complement in 128 bits: 2^64 observations of any int64 cannot overflow it */
    int64_t sum_high;
    uint64_t negative_low; /* the same of the values below zero alone: the classic format shows the two sides apart */
    int64_t negative_high;
    int64_t min_ns; /* INT64_MAX while empty */
    int64_t max_ns; /* INT64_MIN while empty */
    uint64_t counts[TP_HISTOGRAM_SLOTS];
};

/* The sixteen bounds of one octave, floor(2^((j-14)/16) * 10^9 * 2^34). All other bounds are these, shifted: bounds
 * sixteen apart differ by a factor of two. The last entry is above every magnitude. */
static const uint64_t tp_histogram_octave[17] = {
    UINT64_C(0x81ffa7a9549ca6e3),
    UINT64_C(0x87c11235836d16a3),
    UINT64_C(0x8dc3b8960164a7d9),
    UINT64_C(0x940a7e28259fb382),
    UINT64_C(0x9a9867054d512391),
    UINT64_C(0xa1709975dfb06757),
    UINT64_C(0xa8965f74bf065071),
    UINT64_C(0xb00d2843e1060dc2),
    UINT64_C(0xb7d88a12d0dd9ea0),
    UINT64_C(0xbffc43b7e604a922),
    UINT64_C(0xc87c3e7d03cdbec3),
    UINT64_C(0xd15c9000bf211c1f),
    UINT64_C(0xdaa17c2cd19555db),
    UINT64_C(0xe44f7742cb56e3dd),
    UINT64_C(0xee6b280000000000),
    UINT64_C(0xf8f969d9b5abf948),
    UINT64_MAX,
};

/* How many bounds lie below each 32nd of an octave. Bounds are 4.4 % apart and a 32nd is at most 3.1 % wide, so it
 * holds one bound at most: one compare settles the bucket. */
static const uint8_t tp_histogram_below[32] = {
    0, 1, 2, 2, 3, 3, 4, 5, 5, 6, 6, 7, 7, 8, 9, 9, 10, 10, 10, 11, 11, 12, 12, 13, 13, 13, 14, 14, 15, 15, 15, 16,
};

static inline void tp_histogram_reset(struct tp_histogram *h) {
    memset(h, 0, sizeof *h);
    h->min_ns = INT64_MAX;
    h->max_ns = INT64_MIN;
}

static inline uint64_t tp_histogram_magnitude(int64_t ns) {
    return ns < 0 ? -(uint64_t)ns : (uint64_t)ns;
}

/* Index of the bucket that holds a magnitude of 1 to 2^63 ns. 0 has none, and larger ones do not occur. */
static inline int tp_histogram_index(uint64_t magnitude_ns) {
    int octave = 63 - __builtin_clzll(magnitude_ns);
    uint64_t scaled = magnitude_ns << (63 - octave);
    int below = tp_histogram_below[(scaled >> 58) & 31];
    return TP_HISTOGRAM_MIN_INDEX + 16 * octave + below + (scaled > tp_histogram_octave[below]);
}

/* The largest magnitude that bucket `index` holds: floor(2^(index/16) * 10^9). The index must be within
 * TP_HISTOGRAM_MIN_INDEX - 1 (whose bound is 0) and TP_HISTOGRAM_MAX_INDEX (whose bound is above INT64_MAX). */
static inline uint64_t tp_histogram_upper_bound_ns(int index) {
    int n = index - TP_HISTOGRAM_MIN_INDEX;
    return n < 0 ? 0 : tp_histogram_octave[n % 16] >> (63 - n / 16);
}

static inline unsigned tp_histogram_slot(int64_t ns) {
    if (ns == 0)
        return TP_HISTOGRAM_ZERO_SLOT;
    int n = tp_histogram_index(tp_histogram_magnitude(ns)) - TP_HISTOGRAM_MIN_INDEX + 1;
    return (unsigned)(TP_HISTOGRAM_ZERO_SLOT + (ns < 0 ? -n : n));
}

/* Bucket index of a slot other than the zero slot. */
static inline int tp_histogram_slot_index(unsigned slot) {
    int n = (int)slot - TP_HISTOGRAM_ZERO_SLOT;
    return TP_HISTOGRAM_MIN_INDEX - 1 + (n < 0 ? -n : n);
}

static inline void tp_histogram_add_wide(uint64_t *low, int64_t *high, uint64_t add_low, int64_t add_high) {
    *low += add_low;
    *high = (int64_t)((uint64_t)*high + (uint64_t)add_high + (*low < add_low));
}

static inline void tp_histogram_observe(struct tp_histogram *h, int64_t ns) {
    h->counts[tp_histogram_slot(ns)]++;
    tp_histogram_add_wide(&h->sum_low, &h->sum_high, (uint64_t)ns, ns >> 63);
    if (ns < 0)
        tp_histogram_add_wide(&h->negative_low, &h->negative_high, (uint64_t)ns, -1);
    if (ns < h->min_ns)
        h->min_ns = ns;
    if (ns > h->max_ns)
        h->max_ns = ns;
}

/* The next slot at or after `slot` that holds observations; TP_HISTOGRAM_SLOTS when there is none:
 *     for (s = tp_histogram_next(h, 0); s < TP_HISTOGRAM_SLOTS; s = tp_histogram_next(h, s + 1)) */
static inline unsigned tp_histogram_next(const struct tp_histogram *h, unsigned slot) {
    if (h->max_ns < h->min_ns)
        return TP_HISTOGRAM_SLOTS;
    unsigned first = tp_histogram_slot(h->min_ns);
    unsigned last = tp_histogram_slot(h->max_ns);
    for (slot = slot < first ? first : slot; slot <= last; slot++) {
        if (h->counts[slot])
            return slot;
    }
    return TP_HISTOGRAM_SLOTS;
}

/* Observations, counted from the buckets, so that both always agree. */
static inline uint64_t tp_histogram_count(const struct tp_histogram *h) {
    uint64_t count = 0;
    if (h->max_ns < h->min_ns)
        return 0;
    unsigned last = tp_histogram_slot(h->max_ns);
    for (unsigned slot = tp_histogram_slot(h->min_ns); slot <= last; slot++)
        count += h->counts[slot];
    return count;
}

/* Add all observations of `from`. */
static inline void tp_histogram_merge(struct tp_histogram *h, const struct tp_histogram *from) {
    for (unsigned slot = 0; slot < TP_HISTOGRAM_SLOTS; slot++)
        h->counts[slot] += from->counts[slot];
    tp_histogram_add_wide(&h->sum_low, &h->sum_high, from->sum_low, from->sum_high);
    tp_histogram_add_wide(&h->negative_low, &h->negative_high, from->negative_low, from->negative_high);
    if (from->min_ns < h->min_ns)
        h->min_ns = from->min_ns;
    if (from->max_ns > h->max_ns)
        h->max_ns = from->max_ns;
}

/* The smallest and the largest value that a slot can hold, cut to what was observed. */
static inline void tp_histogram_slot_range(const struct tp_histogram *h, unsigned slot, int64_t *low, int64_t *high) {
    *low = *high = 0;
    if (slot != TP_HISTOGRAM_ZERO_SLOT) {
        int index = tp_histogram_slot_index(slot);
        uint64_t outer = tp_histogram_upper_bound_ns(index);
        uint64_t inner = tp_histogram_upper_bound_ns(index - 1) + 1;
        if (slot > TP_HISTOGRAM_ZERO_SLOT) {
            *low = (int64_t)inner;
            *high = outer > INT64_MAX ? INT64_MAX : (int64_t)outer;
        } else {
            *low = outer > INT64_MAX ? INT64_MIN : -(int64_t)outer;
            *high = -(int64_t)inner;
        }
    }
    *low = *low < h->min_ns ? h->min_ns : *low;
    *high = *high > h->max_ns ? h->max_ns : *high;
}

/* Estimate of the observation of rank ceil(q * count), at least the first: always in that observation's bucket, as if
 * those of a bucket were spread evenly over it; the first and the last rank are the exact minimum and maximum.
 * @return 0; -EINVAL when q is not within 0 and 1; -ENODATA when the histogram is empty. */
static inline int tp_histogram_quantile_ns(const struct tp_histogram *h, double q, int64_t *ns) {
    if (!(q >= 0.0 && q <= 1.0))
        return -EINVAL;
    uint64_t count = tp_histogram_count(h);
    if (count == 0)
        return -ENODATA;
    double wanted = q * (double)count;
    uint64_t rank = wanted < (double)count ? (uint64_t)wanted : count;
    rank += (double)rank < wanted;
    if (rank <= 1 || rank >= count) {
        *ns = rank >= count ? h->max_ns : h->min_ns;
        return 0;
    }
    unsigned slot = tp_histogram_next(h, 0);
    for (; rank > h->counts[slot]; slot = tp_histogram_next(h, slot + 1))
        rank -= h->counts[slot];
    int64_t low, high;
    tp_histogram_slot_range(h, slot, &low, &high);
    uint64_t width = (uint64_t)high - (uint64_t)low;
    uint64_t inside = (uint64_t)((double)width * (((double)rank - 0.5) / (double)h->counts[slot]));
    *ns = (int64_t)((uint64_t)low + (inside < width ? inside : width));
    return 0;
}

#endif
