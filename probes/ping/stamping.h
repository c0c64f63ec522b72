/* SPDX-License-Identifier: Apache-2.0
 *
 * Asking a socket for stamps of what it sends and receives. Asking for hardware stamps changes nothing on the NIC.
 */
#ifndef TICKPATH_PROBES_PING_STAMPING_H
#define TICKPATH_PROBES_PING_STAMPING_H

#include "tickpath/stamps.h"

#include <stdbool.h>

#include <linux/net_tstamp.h>

#define TP_PING_STAMP_SENT (SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_TX_HARDWARE)

/* Without OPT_CMSG, which together with OPT_TSONLY loses stamps; with OPT_TX_SWHW, so that a NIC which takes the order
 * and does not deliver costs nothing. */
#define TP_PING_STAMPS_SOFTWARE                                                                                        \
    (SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE | SOF_TIMESTAMPING_OPT_ID | SOF_TIMESTAMPING_OPT_TSONLY)
#define TP_PING_STAMPS_ALL                                                                                             \
    (TP_PING_STAMPS_SOFTWARE | SOF_TIMESTAMPING_RX_HARDWARE | SOF_TIMESTAMPING_RAW_HARDWARE |                          \
     SOF_TIMESTAMPING_OPT_TX_SWHW | SOF_TIMESTAMPING_OPT_PKTINFO)

static inline bool tp_ping_set_stamps(int fd, int flags) {
    return setsockopt(fd, SOL_SOCKET, TP_SO_TIMESTAMPING_NEW, &flags, sizeof flags) == 0 ||
           setsockopt(fd, SOL_SOCKET, TP_SO_TIMESTAMPING_OLD, &flags, sizeof flags) == 0;
}

/* Of what comes; of what is sent too when `sent`, else of that alone whose call asks for it.
 * @return whether the kernel took the order */
static inline bool tp_ping_ask_stamps(int fd, bool sent) {
    return tp_ping_set_stamps(fd, TP_PING_STAMPS_ALL | (sent ? TP_PING_STAMP_SENT : 0)) ||
           tp_ping_set_stamps(fd, TP_PING_STAMPS_SOFTWARE | (sent ? SOF_TIMESTAMPING_TX_SOFTWARE : 0));
}

/* The kernel numbers what it stamps from 0 again. Numbers still on their way would name others: what they say is then
 * before the call that sent those. */
static inline void tp_ping_restart_stamps(int fd, bool sent) {
    tp_ping_set_stamps(fd, 0);
    tp_ping_ask_stamps(fd, sent);
}

#endif
