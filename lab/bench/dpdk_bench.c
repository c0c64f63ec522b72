/* SPDX-License-Identifier: Apache-2.0 */
#include "lab/bench/dpdk_bench.h"

#include <errno.h>
#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include "lab/bench/loops.h"
#include "tickpath/clock.h"
#include "tickpath/packet.h"

#define BURST 32
#define LOOKS 1024 /* polls between looks at the time */

struct content {
    const uint8_t *frames;
    size_t bytes;
    unsigned count;
};

static void fill_one(struct rte_mempool *pool, void *user, void *object, unsigned index) {
    const struct content *content = user;
    struct rte_mbuf *buffer = object;
    (void)pool;
    memcpy((uint8_t *)buffer->buf_addr + RTE_PKTMBUF_HEADROOM,
           content->frames + index % content->count * content->bytes, content->bytes);
}

int tp_bench_dpdk_fill(const char *name, const uint8_t *frames, size_t bytes, unsigned count) {
    struct rte_mempool *pool = rte_mempool_lookup(name);
    struct content content = {frames, bytes, count};
    if (!pool)
        return -ENOENT;
    rte_mempool_obj_iter(pool, fill_one, &content);
    return 0;
}

int tp_bench_dpdk_run(const char *name, enum tp_bench_dpdk_step step, int64_t duration_ns, uint64_t *frames,
                      int64_t *cpu_ns) {
    struct rte_mbuf *burst[BURST];
    struct tp_packet packet;
    volatile uint64_t sink;
    uint64_t sum = 0;
    uint16_t port;
    int error = rte_eth_dev_get_port_by_name(name, &port);
    if (error)
        return error;
    bool joined = rte_thread_register() == 0; /* for its cache of buffers */
    uint64_t until = rte_rdtsc() + (uint64_t)((double)duration_ns * (double)rte_get_tsc_hz() / 1e9);
    int64_t before_ns = tp_bench_cpu_ns();
    *frames = 0;
    while (rte_rdtsc() < until) {
        for (int look = 0; look < LOOKS; look++) {
            uint16_t got = rte_eth_rx_burst(port, 0, burst, BURST);
            if (step >= TP_BENCH_DPDK_STAMP)
                sum += rte_rdtsc() + (uint64_t)tp_monotonic_ns();
            for (uint16_t i = 0; step >= TP_BENCH_DPDK_PARSE && i < got; i++) {
                const uint8_t *bytes = rte_pktmbuf_mtod(burst[i], const uint8_t *);
                if (tp_packet_parse_ethernet(bytes, burst[i]->data_len, burst[i]->pkt_len, &packet) == 0)
                    sum += packet.seq + packet.source[15] + packet.payload_length;
            }
            rte_pktmbuf_free_bulk(burst, got);
            *frames += got;
        }
    }
    *cpu_ns = tp_bench_cpu_ns() - before_ns;
    sink = sum;
    (void)sink;
    if (joined)
        rte_thread_unregister();
    return 0;
}

static uint16_t hold_back(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count, uint16_t room,
                          void *user) {
    struct tp_bench_dpdk_pace *pace = user;
    (void)port, (void)queue;
    double now = (double)(rte_rdtsc() - pace->began_tsc);
    if (pace->oldest < pace->given) {
        double due = (double)pace->oldest / pace->frames_per_tsc;
        tp_histogram_observe(&pace->residence, (int64_t)((now - due) * pace->ns_per_tsc));
        pace->oldest = pace->given;
    }
    uint64_t due = (uint64_t)(now * pace->frames_per_tsc);
    uint64_t waiting = due > pace->given ? due - pace->given : 0;
    uint16_t give = waiting < count ? (uint16_t)waiting : count;
    pace->late += waiting > room;
    pace->oldest = pace->given;
    pace->given += give;
    rte_pktmbuf_free_bulk(frames + give, count - give);
    return give;
}

int tp_bench_dpdk_pace(struct tp_bench_dpdk_pace *pace, const char *name, double frames_per_s) {
    static const struct rte_eth_rxtx_callback *installed;
    uint16_t port;
    int error = rte_eth_dev_get_port_by_name(name, &port);
    if (error)
        return error;
    if (installed)
        rte_eth_remove_rx_callback(port, 0, installed);
    installed = NULL;
    if (frames_per_s <= 0)
        return 0;
    *pace = (struct tp_bench_dpdk_pace){
        .frames_per_tsc = frames_per_s / (double)rte_get_tsc_hz(),
        .ns_per_tsc = 1e9 / (double)rte_get_tsc_hz(),
        .began_tsc = rte_rdtsc(),
    };
    tp_histogram_reset(&pace->residence);
    installed = rte_eth_add_first_rx_callback(port, 0, hold_back, pace);
    return installed ? 0 : -rte_errno;
}
