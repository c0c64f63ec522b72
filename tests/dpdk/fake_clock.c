/* SPDX-License-Identifier: Apache-2.0
 *
 * Simulated: a port with a clock of its own that stamps what it receives, below DPDK's real API. Loaded before librte
 * (LD_PRELOAD), it wraps the calls that a real driver would serve: the port says that it stamps, its driver is the one
 * that FAKE_DRIVER names, a callback behind rte_eth_rx_burst writes the stamp field, rte_eth_read_clock reads the
 * clock.
 *
 * The clock shows FAKE_FIRST + elapsed * FAKE_HZ ticks, cut to FAKE_BITS, and jumps by FAKE_STEP ticks with the first
 * frame after the file FAKE_STEP_FILE is there. FAKE_LOG gets the true moment (CLOCK_MONOTONIC) of each frame's stamp
 * by its TCP sequence number. FAKE_SILENT: nothing is stamped; FAKE_MUTE: the clock cannot be read.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mbuf_dyn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
    double hz;
    uint64_t first;
    unsigned bits;
    int64_t began_ns;
    int64_t step;
    const char *step_file;
    bool stepped;
    int offset;
    uint64_t flag;
    FILE *log;
} fake;

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static uint64_t ticks_at(int64_t at_ns) {
    uint64_t ticks = fake.first + (uint64_t)((double)(at_ns - fake.began_ns) * fake.hz / 1e9);
    if (fake.stepped)
        ticks += (uint64_t)fake.step;
    return fake.bits < 64 ? ticks & ((UINT64_C(1) << fake.bits) - 1) : ticks;
}

static double number(const char *name, double otherwise) {
    const char *text = getenv(name);
    return text ? strtod(text, NULL) : otherwise;
}

static void set_up(void) {
    if (fake.hz > 0)
        return;
    fake.hz = number("FAKE_HZ", 1e9);
    fake.first = (uint64_t)number("FAKE_FIRST", 1e6);
    fake.bits = (unsigned)number("FAKE_BITS", 64);
    fake.step = (int64_t)number("FAKE_STEP", 0);
    fake.step_file = getenv("FAKE_STEP_FILE");
    fake.log = fopen(getenv("FAKE_LOG"), "we");
    fake.began_ns = now_ns();
}

/* Each frame was received a little before its burst: by so many nanoseconds as its place says. */
static uint16_t stamp(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count, uint16_t room,
                      void *user) {
    (void)port, (void)queue, (void)room, (void)user;
    if (count == 0)
        return 0;
    if (!fake.stepped && fake.step_file && access(fake.step_file, F_OK) == 0)
        fake.stepped = true;
    int64_t burst_ns = now_ns();
    for (uint16_t i = 0; i < count; i++) {
        int64_t true_ns = burst_ns - 50 * (count - i);
        uint32_t seq = 0;
        if (frames[i]->data_len >= 42)
            memcpy(&seq, rte_pktmbuf_mtod_offset(frames[i], const uint8_t *, 38), 4);
        *RTE_MBUF_DYNFIELD(frames[i], fake.offset, rte_mbuf_timestamp_t *) = ticks_at(true_ns);
        if (!getenv("FAKE_SILENT"))
            frames[i]->ol_flags |= fake.flag;
        fprintf(fake.log, "%u %lld\n", rte_be_to_cpu_32(seq), (long long)true_ns);
    }
    fflush(fake.log);
    return count;
}

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

int rte_eth_dev_info_get(uint16_t port, struct rte_eth_dev_info *info) {
    int error = REAL(rte_eth_dev_info_get)(port, info);
    const char *driver = getenv("FAKE_DRIVER");
    set_up();
    info->driver_name = driver ? driver : info->driver_name;
    info->rx_offload_capa |= RTE_ETH_RX_OFFLOAD_TIMESTAMP;
    return error;
}

int rte_eth_dev_configure(uint16_t port, uint16_t rx, uint16_t tx, const struct rte_eth_conf *conf) {
    struct rte_eth_conf without = *conf;
    without.rxmode.offloads &= ~RTE_ETH_RX_OFFLOAD_TIMESTAMP;
    return REAL(rte_eth_dev_configure)(port, rx, tx, &without);
}

int rte_eth_rx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors, unsigned socket,
                           const struct rte_eth_rxconf *conf, struct rte_mempool *pool) {
    struct rte_eth_rxconf without = *conf;
    without.offloads &= ~RTE_ETH_RX_OFFLOAD_TIMESTAMP;
    return REAL(rte_eth_rx_queue_setup)(port, queue, descriptors, socket, &without, pool);
}

int rte_eth_dev_start(uint16_t port) {
    if (rte_mbuf_dyn_rx_timestamp_register(&fake.offset, &fake.flag))
        return -EIO;
    if (!rte_eth_add_rx_callback(port, 0, stamp, NULL))
        return -EIO;
    return REAL(rte_eth_dev_start)(port);
}

int rte_eth_read_clock(uint16_t port, uint64_t *clock) {
    (void)port;
    if (getenv("FAKE_MUTE"))
        return -ENOTSUP;
    *clock = ticks_at(now_ns());
    return 0;
}
