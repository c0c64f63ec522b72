/* SPDX-License-Identifier: Apache-2.0
 *
 * Simulated: a port that has no room for what it is to send, below DPDK's real API, loaded before librte (LD_PRELOAD).
 * While the file FAKE_FULL_FILE is there it takes nothing, else three frames a call.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <rte_ethdev.h>
#include <stdlib.h>
#include <unistd.h>

static uint16_t narrow(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count, void *user) {
    (void)port, (void)queue, (void)frames, (void)user;
    if (access(getenv("FAKE_FULL_FILE"), F_OK) == 0)
        return 0;
    return count < 3 ? count : 3;
}

int rte_eth_dev_start(uint16_t port) {
    if (!rte_eth_add_tx_callback(port, 0, narrow, NULL))
        return -EIO;
    return ((__typeof__(rte_eth_dev_start) *)dlsym(RTLD_NEXT, "rte_eth_dev_start"))(port);
}
