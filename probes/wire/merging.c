/* SPDX-License-Identifier: Apache-2.0
 *
 * The three features, asked by ethtool's ioctl.
 */
#include "merging.h"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#define FEATURES_MOST 256u

static bool ask(int fd, const char *interface, void *command) {
    struct ifreq request = {0};
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", interface);
    request.ifr_data = command;
    return ioctl(fd, SIOCETHTOOL, &request) == 0;
}

/* The NIC's GRO has no flag of its own: it is found by name among the features. */
static bool merges_in_hardware(int fd, const char *interface) {
    struct {
        struct ethtool_sset_info info;
        uint32_t count;
    } sset = {.info = {.cmd = ETHTOOL_GSSET_INFO, .sset_mask = 1ull << ETH_SS_FEATURES}};
    struct {
        struct ethtool_gstrings head;
        char names[FEATURES_MOST][ETH_GSTRING_LEN];
    } strings = {.head = {.cmd = ETHTOOL_GSTRINGS, .string_set = ETH_SS_FEATURES}};
    struct {
        struct ethtool_gfeatures head;
        struct ethtool_get_features_block blocks[FEATURES_MOST / 32];
    } features = {.head = {.cmd = ETHTOOL_GFEATURES, .size = FEATURES_MOST / 32}};

    if (!ask(fd, interface, &sset) || sset.count > FEATURES_MOST)
        return true;
    strings.head.len = sset.count;
    if (!ask(fd, interface, &strings) || !ask(fd, interface, &features))
        return true;
    for (uint32_t i = 0; i < sset.count; i++)
        if (strncmp(strings.names[i], "rx-gro-hw", ETH_GSTRING_LEN) == 0)
            return features.blocks[i / 32].active >> (i % 32) & 1;
    return false; /* a kernel before 4.16: there is none */
}

bool tp_wire_merging(int fd, const char *interface) {
    struct ethtool_value gro = {.cmd = ETHTOOL_GGRO}, flags = {.cmd = ETHTOOL_GFLAGS};
    struct ifreq request = {0};
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", interface);
    /* Loopback shows GRO as on, but its frames go to the stack by netif_rx, past it (read in 6.18). */
    if (ioctl(fd, SIOCGIFFLAGS, &request) == 0 && request.ifr_flags & IFF_LOOPBACK)
        return false;
    if (!ask(fd, interface, &gro) || !ask(fd, interface, &flags))
        return true;
    return gro.data || flags.data & ETH_FLAG_LRO || merges_in_hardware(fd, interface);
}
