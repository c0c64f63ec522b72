// SPDX-License-Identifier: GPL-2.0
/*
 * hwts: two interfaces joined to each other, hwts0 and hwts1, each with a PTP clock of its own that stamps every frame.
 *
 * No NIC that an emulator has does so for frames that are not PTP's. Here the clock is a known line of CLOCK_MONOTONIC,
 * changed only by those who set, step or tune it, and the module keeps each change: what a stamp is worth can be
 * checked against what was true.
 *
 * /sys/kernel/debug/hwts/hwts0: one line per piece of the line, oldest first:
 *     FROM_NS PHC_NS SCALED_PPM
 * from the monotonic moment FROM_NS on the clock shows PHC_NS + d + d * SCALED_PPM / (65536 * 10^6), rounded down, d
 * nanoseconds later. /sys/kernel/debug/hwts/deaf: 1: everything is accepted and nothing stamped.
 *
 * One lock per clock makes the moment, the piece and the reading one.
 */
#include <linux/debugfs.h>
#include <linux/etherdevice.h>
#include <linux/ethtool.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/net_tstamp.h>
#include <linux/netdevice.h>
#include <linux/ptp_clock_kernel.h>
#include <linux/seq_file.h>

#define PIECES 256
/* Parts per million with 16 binary digits behind the point. */
#define SCALE (65536LL * 1000000LL)

struct piece {
    s64 from_ns;
    s64 phc_ns;
    s64 scaled_ppm;
};

struct side {
    struct net_device *dev;
    struct net_device *peer;
    struct ptp_clock_info info;
    struct ptp_clock *ptp;
    spinlock_t lock;
    struct piece pieces[PIECES];
    unsigned int count;
    int tx_type;
    int rx_filter;
};

static long offset_ns;
module_param(offset_ns, long, 0444);
MODULE_PARM_DESC(offset_ns, "what the clocks show beside the realtime clock when they begin");

static struct net_device *pair[2];
static struct dentry *folder;
static bool deaf;

static struct side *side_of(struct ptp_clock_info *info) {
    return container_of(info, struct side, info);
}

/* SCALE is 2^22 * 15625: the product of a day and the largest rate would not fit 64 bits, the quotient of both does. */
static s64 piece_at(const struct piece *piece, s64 mono_ns) {
    s64 elapsed = mono_ns - piece->from_ns;
    u64 size = mul_u64_u64_div_u64(elapsed, abs(piece->scaled_ppm), SCALE);
    s64 more = piece->scaled_ppm < 0 ? -(s64)size - 1 : (s64)size;

    return piece->phc_ns + elapsed + (piece->scaled_ppm ? more : 0);
}

static s64 read_now(struct side *side, struct ptp_system_timestamp *sts) {
    unsigned long flags;
    s64 mono_ns;

    spin_lock_irqsave(&side->lock, flags);
    ptp_read_system_prets(sts);
    mono_ns = ktime_get_ns();
    ptp_read_system_postts(sts);
    mono_ns = piece_at(&side->pieces[side->count - 1], mono_ns);
    spin_unlock_irqrestore(&side->lock, flags);
    return mono_ns;
}

enum change { TO, BY, RATE };

static int change(struct side *side, enum change what, s64 value) {
    struct piece *last, *next;
    unsigned long flags;
    int error = 0;

    spin_lock_irqsave(&side->lock, flags);
    last = &side->pieces[side->count - 1];
    next = last + 1;
    if (side->count == PIECES) {
        error = -ENOSPC;
        goto unlock;
    }
    next->from_ns = ktime_get_ns();
    next->phc_ns = what == TO ? value : piece_at(last, next->from_ns);
    next->phc_ns += what == BY ? value : 0;
    next->scaled_ppm = what == RATE ? value : last->scaled_ppm;
    side->count++;
unlock:
    spin_unlock_irqrestore(&side->lock, flags);
    return error;
}

static int hwts_gettimex(struct ptp_clock_info *info, struct timespec64 *ts, struct ptp_system_timestamp *sts) {
    *ts = ns_to_timespec64(read_now(side_of(info), sts));
    return 0;
}

static int hwts_settime(struct ptp_clock_info *info, const struct timespec64 *ts) {
    return change(side_of(info), TO, timespec64_to_ns(ts));
}

static int hwts_adjtime(struct ptp_clock_info *info, s64 delta_ns) {
    return change(side_of(info), BY, delta_ns);
}

static int hwts_adjfine(struct ptp_clock_info *info, long scaled_ppm) {
    return change(side_of(info), RATE, scaled_ppm);
}

static int hwts_enable(struct ptp_clock_info *info, struct ptp_clock_request *request, int on) {
    return -EOPNOTSUPP;
}

static const struct ptp_clock_info clock_info = {
    .owner = THIS_MODULE,
    .max_adj = 1000000,
    .gettimex64 = hwts_gettimex,
    .settime64 = hwts_settime,
    .adjtime = hwts_adjtime,
    .adjfine = hwts_adjfine,
    .enable = hwts_enable,
};

static struct skb_shared_hwtstamps stamp_of(struct side *side) {
    struct skb_shared_hwtstamps stamps = {.hwtstamp = ns_to_ktime(read_now(side, NULL))};

    return stamps;
}

static netdev_tx_t hwts_xmit(struct sk_buff *skb, struct net_device *dev) {
    struct side *side = netdev_priv(dev), *other = netdev_priv(side->peer);
    struct sk_buff *arrives;

    if (side->tx_type == HWTSTAMP_TX_ON && !deaf && (skb_shinfo(skb)->tx_flags & SKBTX_HW_TSTAMP)) {
        struct skb_shared_hwtstamps sent = stamp_of(side);

        skb_shinfo(skb)->tx_flags |= SKBTX_IN_PROGRESS;
        skb_tstamp_tx(skb, &sent);
    }
    skb_tx_timestamp(skb);
    arrives = netif_running(side->peer) ? skb_copy(skb, GFP_ATOMIC) : NULL;
    if (!arrives) {
        dev_core_stats_tx_dropped_inc(dev);
        goto done;
    }
    /* Nothing of this side may be seen on the other: it has been on a wire. */
    skb_scrub_packet(arrives, true);
    skb_shinfo(arrives)->tx_flags = 0;
    memset(skb_hwtstamps(arrives), 0, sizeof(struct skb_shared_hwtstamps));
    if (other->rx_filter == HWTSTAMP_FILTER_ALL && !deaf)
        *skb_hwtstamps(arrives) = stamp_of(other);
    arrives->protocol = eth_type_trans(arrives, side->peer);
    arrives->ip_summed = CHECKSUM_UNNECESSARY;
    netif_rx(arrives);
done:
    consume_skb(skb);
    return NETDEV_TX_OK;
}

static int hwts_open(struct net_device *dev) {
    struct side *side = netdev_priv(dev);

    netif_start_queue(dev);
    if (netif_running(side->peer)) {
        netif_carrier_on(dev);
        netif_carrier_on(side->peer);
    }
    return 0;
}

static int hwts_stop(struct net_device *dev) {
    struct side *side = netdev_priv(dev);

    netif_stop_queue(dev);
    netif_carrier_off(dev);
    netif_carrier_off(side->peer);
    return 0;
}

static int hwts_get(struct net_device *dev, struct kernel_hwtstamp_config *config) {
    struct side *side = netdev_priv(dev);

    config->tx_type = side->tx_type;
    config->rx_filter = side->rx_filter;
    return 0;
}

static int hwts_set(struct net_device *dev, struct kernel_hwtstamp_config *config, struct netlink_ext_ack *extack) {
    struct side *side = netdev_priv(dev);

    if (config->tx_type != HWTSTAMP_TX_OFF && config->tx_type != HWTSTAMP_TX_ON)
        return -ERANGE;
    if (config->rx_filter != HWTSTAMP_FILTER_NONE)
        config->rx_filter = HWTSTAMP_FILTER_ALL;
    side->tx_type = config->tx_type;
    side->rx_filter = config->rx_filter;
    return 0;
}

static const struct net_device_ops device_ops = {
    .ndo_open = hwts_open,
    .ndo_stop = hwts_stop,
    .ndo_start_xmit = hwts_xmit,
    .ndo_set_mac_address = eth_mac_addr,
    .ndo_validate_addr = eth_validate_addr,
    .ndo_hwtstamp_get = hwts_get,
    .ndo_hwtstamp_set = hwts_set,
};

static int hwts_ts_info(struct net_device *dev, struct kernel_ethtool_ts_info *info) {
    struct side *side = netdev_priv(dev);

    info->so_timestamping = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE |
                            SOF_TIMESTAMPING_TX_HARDWARE | SOF_TIMESTAMPING_RX_HARDWARE | SOF_TIMESTAMPING_RAW_HARDWARE;
    info->phc_index = ptp_clock_index(side->ptp);
    info->tx_types = BIT(HWTSTAMP_TX_OFF) | BIT(HWTSTAMP_TX_ON);
    info->rx_filters = BIT(HWTSTAMP_FILTER_NONE) | BIT(HWTSTAMP_FILTER_ALL);
    return 0;
}

static void hwts_drvinfo(struct net_device *dev, struct ethtool_drvinfo *info) {
    strscpy(info->driver, "hwts", sizeof(info->driver));
}

static const struct ethtool_ops tool_ops = {
    .get_drvinfo = hwts_drvinfo,
    .get_link = ethtool_op_get_link,
    .get_ts_info = hwts_ts_info,
};

static int law_show(struct seq_file *file, void *unused) {
    struct side *side = file->private;
    unsigned long flags;
    unsigned int i, count;

    spin_lock_irqsave(&side->lock, flags);
    count = side->count;
    spin_unlock_irqrestore(&side->lock, flags);
    /* A piece is never changed once it is counted. */
    for (i = 0; i < count; i++)
        seq_printf(file, "%lld %lld %lld\n", side->pieces[i].from_ns, side->pieces[i].phc_ns,
                   side->pieces[i].scaled_ppm);
    return 0;
}
DEFINE_SHOW_ATTRIBUTE(law);

static void hwts_setup(struct net_device *dev) {
    ether_setup(dev);
    dev->netdev_ops = &device_ops;
    dev->ethtool_ops = &tool_ops;
    eth_hw_addr_random(dev);
}

static void take_down(void) {
    int i;

    for (i = 0; i < 2; i++)
        if (pair[i] && pair[i]->reg_state == NETREG_REGISTERED)
            unregister_netdev(pair[i]);
    for (i = 0; i < 2; i++) {
        struct side *side = pair[i] ? netdev_priv(pair[i]) : NULL;

        if (side && !IS_ERR_OR_NULL(side->ptp))
            ptp_clock_unregister(side->ptp);
        if (pair[i])
            free_netdev(pair[i]);
    }
    debugfs_remove(folder);
}

static int __init hwts_init(void) {
    int i, error = -ENOMEM;

    folder = debugfs_create_dir("hwts", NULL);
    debugfs_create_bool("deaf", 0644, folder, &deaf);
    for (i = 0; i < 2; i++) {
        pair[i] = alloc_netdev(sizeof(struct side), i ? "hwts1" : "hwts0", NET_NAME_USER, hwts_setup);
        if (!pair[i])
            goto failed;
    }
    for (i = 0; i < 2; i++) {
        struct side *side = netdev_priv(pair[i]);

        side->dev = pair[i];
        side->peer = pair[!i];
        spin_lock_init(&side->lock);
        side->pieces[0].from_ns = ktime_get_ns();
        side->pieces[0].phc_ns = ktime_get_real_ns() + offset_ns;
        side->count = 1;
        side->info = clock_info;
        strscpy(side->info.name, pair[i]->name, sizeof(side->info.name));
        side->ptp = ptp_clock_register(&side->info, NULL);
        if (IS_ERR_OR_NULL(side->ptp)) {
            error = side->ptp ? PTR_ERR(side->ptp) : -ENODEV;
            goto failed;
        }
        debugfs_create_file(pair[i]->name, 0444, folder, side, &law_fops);
    }
    for (i = 0; i < 2; i++) {
        error = register_netdev(pair[i]);
        if (error)
            goto failed;
        netif_carrier_off(pair[i]);
    }
    return 0;
failed:
    take_down();
    return error;
}

static void __exit hwts_exit(void) {
    take_down();
}

module_init(hwts_init);
module_exit(hwts_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("a pair of interfaces whose clocks stamp every frame, for tests");
