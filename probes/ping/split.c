/* SPDX-License-Identifier: Apache-2.0 */
#include "probes/ping/split.h"

#include <stdio.h>

uint32_t tp_ping_host(void) {
    char boot[64];
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    size_t bytes = file ? fread(boot, 1, sizeof boot, file) : 0;
    if (file)
        fclose(file);
    /* FNV-1a: what goes over the network is not the name itself. */
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ (uint8_t)boot[i]) * 16777619u;
    return bytes < 32 ? 0 : hash ? hash : 1;
}

static bool one_clock(const struct tp_ping_near *near, const struct tp_ping_far *far) {
    return near->host && near->host == far->host && far->monotonic_ns >= near->before_ns &&
           far->monotonic_ns <= near->after_ns;
}

void tp_ping_split(const struct tp_ping_near *near, const struct tp_ping_far *far, struct tp_ping_split *out) {
    int64_t rtt_ns = near->received_ns - near->sent_ns;
    out->path_ns = 0;
    out->out_ns = 0;
    out->bound_ns = INT64_MAX;
    out->turn_ns = 0;
    if (far->turn_ns < 0 || far->turn_ns > rtt_ns + tp_ping_slack(rtt_ns)) {
        out->why = TP_PING_SPLIT_UNBELIEVED;
        return;
    }
    out->turn_ns = (uint32_t)far->turn_ns;
    out->path_ns = rtt_ns - far->turn_ns;
    out->why = TP_PING_SPLIT_KNOWN;
    if (one_clock(near, far))
        out->bound_ns = 0;
    else if (far->bound_ns == INT64_MAX)
        out->why = TP_PING_SPLIT_FAR_UNBOUND;
    else if (near->bound_ns == INT64_MAX)
        out->why = TP_PING_SPLIT_NEAR_UNBOUND;
    else
        out->bound_ns = near->bound_ns + far->bound_ns;
    if (out->why == TP_PING_SPLIT_KNOWN && out->bound_ns > rtt_ns)
        out->why = TP_PING_SPLIT_TOO_WIDE;
    if (out->why == TP_PING_SPLIT_KNOWN)
        out->out_ns = far->received_ns - near->sent_ns;
}
