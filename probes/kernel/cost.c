/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernel counts the runs of each program and their time; the programs' records say which runs told something.
 */
#include "cost.h"

#include <unistd.h>

#include <bpf/bpf.h>

static const struct {
    enum tp_counter ns;
    enum tp_counter runs;
    enum tp_counter told;
} counters[TP_HOOKS] = {
    [TP_HOOK_READABLE] = {TP_COUNT_COST_READABLE_NS, TP_COUNT_RUNS_READABLE, TP_COUNT_TOLD_READABLE},
    [TP_HOOK_COPIED] = {TP_COUNT_COST_COPIED_NS, TP_COUNT_RUNS_COPIED, TP_COUNT_TOLD_COPIED},
    [TP_HOOK_STATE] = {TP_COUNT_COST_STATE_NS, TP_COUNT_RUNS_STATE, TP_COUNT_TOLD_STATE},
    [TP_HOOK_ASKED] = {TP_COUNT_COST_ASKED_NS, TP_COUNT_RUNS_ASKED, TP_COUNT_TOLD_ASKED},
};

int tp_kernel_cost_open(struct tp_kernel_cost *cost) {
    int fd = bpf_enable_stats(BPF_STATS_RUN_TIME);
    if (fd < 0)
        return fd;
    cost->stats_fd = fd;
    return 0;
}

void tp_kernel_cost_close(struct tp_kernel_cost *cost) {
    if (cost->stats_fd > 0)
        close(cost->stats_fd);
    cost->stats_fd = 0;
}

void tp_kernel_cost_of(const struct tp_attached *attached, uint64_t *ns, uint64_t *runs) {
    *ns = *runs = 0;
    for (int i = 0; i < TP_HOOK_PROGRAMS; i++) {
        struct bpf_prog_info info = {0};
        uint32_t bytes = sizeof(info);
        if (attached->programs[i] < 0 || bpf_obj_get_info_by_fd(attached->programs[i], &info, &bytes) != 0)
            continue;
        *ns += info.run_time_ns;
        if (!attached->stands_in)
            *runs += info.run_cnt;
        else if (*runs < info.run_cnt)
            *runs = info.run_cnt;
    }
}

static void add(struct tp_ring_writer *ring, enum tp_counter counter, uint64_t total, uint64_t *before) {
    if (total > *before) {
        tp_ring_count(ring, counter, total - *before);
        *before = total;
    }
}

void tp_kernel_cost_count(struct tp_kernel_cost *cost, const struct tp_rungs *rungs, struct tp_ring_writer *ring) {
    if (cost->stats_fd == 0)
        return;
    for (int i = 0; i < TP_HOOKS; i++) {
        uint64_t ns, runs;
        tp_kernel_cost_of(&rungs->hooks[i], &ns, &runs);
        add(ring, counters[i].ns, ns, &cost->counted[i].ns);
        add(ring, counters[i].runs, runs, &cost->counted[i].runs);
        add(ring, counters[i].told, cost->told[i], &cost->counted[i].told);
    }
}
