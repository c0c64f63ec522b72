/* SPDX-License-Identifier: Apache-2.0
 *
 * What a port is asked for, and what it grants.
 */
#include "dpdk_capture/port.h"

#include <errno.h>
#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mbuf_dyn.h>
#include <rte_mbuf_pool_ops.h>
#include <stdio.h>
#include <string.h>

#include "tickpath/event.h"

#define CACHE_BUFFERS 256
#define KEY_BYTES 64
/* Ethernet header, two VLAN tags, check sequence. */
#define LINK_BYTES 26
#define WANTED                                                                                                         \
    (RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM |                     \
     RTE_ETH_RX_OFFLOAD_SCATTER)

void tp_dpdk_port_names(char *out, size_t bytes) {
    uint16_t id;
    size_t used = 0;
    out[0] = '\0';
    RTE_ETH_FOREACH_DEV(id) {
        char name[RTE_ETH_NAME_MAX_LEN];
        if (rte_eth_dev_get_name_by_port(id, name) == 0 && used < bytes)
            used += (size_t)snprintf(out + used, bytes - used, "%s%s", used ? " " : "", name);
    }
}

/* A number for a port that has no interface in the kernel, the same for the same name; far above any ifindex. */
static uint32_t number_of(const char *name) {
    uint32_t hash = 2166136261u;
    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * 16777619u;
    return hash | 0x80000000u;
}

static int failed(int error, const char *what, char *why, size_t why_bytes) {
    error = error < 0 ? error : -EIO;
    snprintf(why, why_bytes, "%s: %s", what, strerror(-error));
    return error;
}

static int configure(struct tp_dpdk_port *port, const struct tp_dpdk_port_config *config,
                     const struct rte_eth_dev_info *info, char *why, size_t why_bytes) {
    struct rte_eth_conf conf = {0};
    uint8_t key[KEY_BYTES];
    conf.rxmode.mtu = config->mtu;
    port->offloads_asked = WANTED | (config->stamps ? RTE_ETH_RX_OFFLOAD_TIMESTAMP : 0);
    conf.rxmode.offloads = port->offloads_asked & info->rx_offload_capa;
    if (config->rx_queues > 1 && info->flow_type_rss_offloads) {
        /* This key, 0x6d5a over and over, gives both directions of a connection the same hash (Woo and Park, 2012). */
        for (unsigned i = 0; i < KEY_BYTES; i++)
            key[i] = i % 2 ? 0x5a : 0x6d;
        conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
        if (info->hash_key_size && info->hash_key_size <= KEY_BYTES) {
            conf.rx_adv_conf.rss_conf.rss_key = key;
            conf.rx_adv_conf.rss_conf.rss_key_len = info->hash_key_size;
        }
        conf.rx_adv_conf.rss_conf.rss_hf = (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP) & info->flow_type_rss_offloads;
        port->rss = true;
    }
    conf.txmode.offloads = config->tx_offloads & info->tx_offload_capa;
    int error = rte_eth_dev_configure(port->id, config->rx_queues, config->tx_queues, &conf);
    if (error)
        return failed(error, "the driver refuses the configuration", why, why_bytes);
    port->offloads = conf.rxmode.offloads;
    port->tx_offloads = conf.txmode.offloads;
    return 0;
}

static int make_queues(struct tp_dpdk_port *port, const struct tp_dpdk_port_config *config,
                       const struct rte_eth_dev_info *info, char *why, size_t why_bytes) {
    uint16_t rx = config->descriptors, tx = config->descriptors;
    int error = rte_eth_dev_adjust_nb_rx_tx_desc(port->id, &rx, &tx);
    if (error)
        return failed(error, "descriptors", why, why_bytes);
    port->descriptors = rx;
    struct rte_eth_rxconf rxconf = info->default_rxconf;
    rxconf.offloads = port->offloads;
    for (uint16_t queue = 0; queue < config->rx_queues; queue++) {
        error =
            rte_eth_rx_queue_setup(port->id, queue, rx, (unsigned)rte_eth_dev_socket_id(port->id), &rxconf, port->pool);
        if (error)
            return failed(error, "receive queue", why, why_bytes);
    }
    struct rte_eth_txconf txconf = info->default_txconf;
    txconf.offloads = port->tx_offloads;
    for (uint16_t queue = 0; queue < config->tx_queues; queue++) {
        error = rte_eth_tx_queue_setup(port->id, queue, tx, (unsigned)rte_eth_dev_socket_id(port->id), &txconf);
        if (error)
            return failed(error, "transmit queue", why, why_bytes);
    }
    return 0;
}

/* Without huge pages DPDK starts each buffer on a page of its own, so that none lies across two that a device might
 * find apart. All of them then fall on the same few lines of the nearest cache, which holds eight: of the cost of a
 * frame that was a third. Where no device reads them they lie one behind the other. */
static unsigned pool_flags(const struct rte_eth_dev_info *info) {
    bool read_by_programs = strcmp(rte_bus_name(rte_dev_bus(info->device)), "vdev") == 0;
    return read_by_programs && !rte_eal_has_hugepages() ? RTE_MEMPOOL_F_NO_IOVA_CONTIG : 0;
}

/* rte_pktmbuf_pool_create, which takes no flags. NULL: rte_errno says why. */
static struct rte_mempool *create_pool(const char *name, unsigned buffers, uint16_t room, int node, unsigned flags) {
    struct rte_pktmbuf_pool_private content = {.mbuf_data_room_size = room};
    struct rte_mempool *pool = rte_mempool_create_empty(name, buffers, (unsigned)sizeof(struct rte_mbuf) + room,
                                                        CACHE_BUFFERS, sizeof(content), node, flags);
    if (!pool)
        return NULL;
    int error = rte_mempool_set_ops_byname(pool, rte_mbuf_best_mempool_ops(), NULL);
    if (error == 0) {
        rte_pktmbuf_pool_init(pool, &content);
        error = rte_mempool_populate_default(pool);
    }
    if (error < 0) {
        rte_mempool_free(pool);
        rte_errno = -error;
        return NULL;
    }
    rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
    return pool;
}

static int make_pool(struct tp_dpdk_port *port, const struct tp_dpdk_port_config *config,
                     const struct rte_eth_dev_info *info, char *why, size_t why_bytes) {
    uint32_t room = config->mtu + LINK_BYTES;
    room = room < RTE_MBUF_DEFAULT_DATAROOM ? RTE_MBUF_DEFAULT_DATAROOM : room;
    room = room < info->min_rx_bufsize ? info->min_rx_bufsize : room;
    char name[RTE_MEMPOOL_NAMESIZE];
    snprintf(name, sizeof(name), "tickpath-%u", port->id);
    uint32_t least = ((uint32_t)config->rx_queues + config->tx_queues) * config->descriptors + CACHE_BUFFERS;
    port->pool =
        create_pool(name, config->buffers < least ? least : config->buffers, (uint16_t)(room + RTE_PKTMBUF_HEADROOM),
                    rte_eth_dev_socket_id(port->id), pool_flags(info));
    if (!port->pool) {
        snprintf(why, why_bytes, "no memory for %u buffers of %u bytes: %s", config->buffers, room,
                 strerror(rte_errno));
        return -ENOMEM;
    }
    return 0;
}

/* Whether the port stamps frames, and where in a buffer the stamp is. */
static int find_stamps(struct tp_dpdk_port *port) {
    if (!port->driver || (port->driver->advertised && !(port->offloads & RTE_ETH_RX_OFFLOAD_TIMESTAMP)))
        return 0;
    if (rte_mbuf_dyn_rx_timestamp_register(&port->stamp_offset, &port->stamp_flag) != 0) {
        port->stamp_offset = -1;
        return -rte_errno;
    }
    return 0;
}

int tp_dpdk_port_open(struct tp_dpdk_port *port, const char *name, const struct tp_dpdk_port_config *config, char *why,
                      size_t why_bytes) {
    struct rte_eth_dev_info info;
    memset(port, 0, sizeof(*port));
    port->stamp_offset = -1;
    int error = rte_eth_dev_get_port_by_name(name, &port->id);
    if (error) {
        char names[256];
        tp_dpdk_port_names(names, sizeof(names));
        snprintf(why, why_bytes, "DPDK has no port %s; it has %s", name, names[0] ? names : "none");
        return -ENODEV;
    }
    error = rte_eth_dev_info_get(port->id, &info);
    if (error)
        return failed(error, "rte_eth_dev_info_get", why, why_bytes);
    snprintf(port->name, sizeof(port->name), "%s", name);
    snprintf(port->driver_name, sizeof(port->driver_name), "%s", info.driver_name);
    port->told = (struct tp_dpdk_driver){.name = port->driver_name,
                                         .unit = "tick",
                                         .bits = config->told_bits,
                                         .reading = config->told_reading,
                                         .source = TP_SOURCE_HW,
                                         .advertised = 1};
    if (config->stamps)
        port->driver = config->told_reading ? &port->told : tp_dpdk_driver_find(info.driver_name);
    port->device = info.if_index ? info.if_index : number_of(name);
    port->node = (int16_t)rte_eth_dev_socket_id(port->id);
    struct rte_ether_addr mac;
    if (rte_eth_macaddr_get(port->id, &mac) == 0)
        memcpy(port->mac, mac.addr_bytes, sizeof(port->mac));
    port->mtu = config->mtu;
    port->rx_queues = config->rx_queues;
    port->tx_queues = config->tx_queues;
    if (config->rx_queues > info.max_rx_queues || config->tx_queues > info.max_tx_queues) {
        snprintf(why, why_bytes, "%u queues are asked for, %s has %u to receive and %u to send", config->rx_queues,
                 info.driver_name, info.max_rx_queues, info.max_tx_queues);
        return -EINVAL;
    }
    if (config->mtu < info.min_mtu || (info.max_mtu && config->mtu > info.max_mtu)) {
        snprintf(why, why_bytes, "mtu %u is not within the %u to %u of %s", config->mtu, info.min_mtu, info.max_mtu,
                 info.driver_name);
        return -EINVAL;
    }
    error = configure(port, config, &info, why, why_bytes);
    if (!error)
        error = make_pool(port, config, &info, why, why_bytes);
    if (!error)
        error = make_queues(port, config, &info, why, why_bytes);
    if (!error && find_stamps(port))
        error = failed(-rte_errno, "stamp field", why, why_bytes);
    if (!error) {
        error = rte_eth_dev_start(port->id);
        if (error)
            failed(error, "the port does not start", why, why_bytes);
    }
    if (error) {
        tp_dpdk_port_close(port);
        return error;
    }
    port->started = true;
    port->promiscuous = config->promiscuous && rte_eth_promiscuous_enable(port->id) == 0;
    return 0;
}

void tp_dpdk_port_close(struct tp_dpdk_port *port) {
    if (port->started)
        rte_eth_dev_stop(port->id);
    if (port->name[0])
        rte_eth_dev_close(port->id);
    rte_mempool_free(port->pool);
    port->started = false;
    port->name[0] = '\0';
    port->pool = NULL;
}

int tp_dpdk_port_count(const struct tp_dpdk_port *port, struct tp_dpdk_port_counts *out) {
    struct rte_eth_stats stats;
    struct rte_eth_link link = {0};
    int error = rte_eth_stats_get(port->id, &stats);
    if (error)
        return error;
    *out = (struct tp_dpdk_port_counts){
        .received = stats.ipackets,
        .missed = stats.imissed,
        .errors = stats.ierrors,
        .no_buffers = stats.rx_nombuf,
        .sent = stats.opackets,
        .unsent = stats.oerrors,
    };
    out->up = rte_eth_link_get_nowait(port->id, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
    return 0;
}
