/* SPDX-License-Identifier: Apache-2.0
 *
 * An RTT taken apart: out, at the far end, and back. What both ways took together needs no two clocks to agree; each of
 * them alone is known no better than the two clocks are.
 */
#ifndef TICKPATH_PROBES_PING_SPLIT_H
#define TICKPATH_PROBES_PING_SPLIT_H

#include "probes/ping/times.h"

/* This end of a round trip. */
struct tp_ping_near {
    int64_t sent_ns; /* realtime */
    int64_t received_ns;
    int64_t before_ns; /* monotonic, before it was sent */
    int64_t after_ns;  /* monotonic, after the answer was read */
    int64_t bound_ns;  /* of realtime, on UTC; INT64_MAX: not known */
    uint32_t host;     /* tp_ping_host */
};

/* Between any two clocks of hosts, NICs' included, while one is being steered: 1 in 512, and a little for reading them.
 */
static inline int64_t tp_ping_slack(int64_t span_ns) {
    return (span_ns >> 9) + 1000;
}

/* Fills path, out, turn, bound and `why` of `out`. One clock at both ends: the far host is this one, by its name and by
 * its monotonic clock, which it read while the ping was on its way. Two: their bounds on UTC, added up. */
void tp_ping_split(const struct tp_ping_near *, const struct tp_ping_far *, struct tp_ping_split *out);

#endif
