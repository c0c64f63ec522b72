/* SPDX-License-Identifier: Apache-2.0
 *
 * Control messages of recvmsg: timestamps in every form that a kernel hands out, and what comes of the error queue.
 *
 * The payload is three timestamps: [0] software, [1] unused since 2.6.38, [2] raw hardware (Documentation/networking/
 * timestamping.rst, 2.1). SO_TIMESTAMPING_OLD carries three `struct timespec` of the caller's word size, _NEW always
 * three pairs of 64 bits. The length tells the two apart, whatever word size this was compiled for.
 */
#ifndef TICKPATH_STAMPS_H
#define TICKPATH_STAMPS_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

/* Debian 12's headers know both; named here so that older ones build. The numbers are those of asm-generic/socket.h,
 * which every architecture that tickpath runs on shares. */
#define TP_SO_TIMESTAMPING_OLD 37
#define TP_SO_TIMESTAMPING_NEW 65

/* A control buffer of this size takes what a TCP socket with SO_TIMESTAMPING hands out, with room to spare. */
#define TP_STAMPS_CONTROL_BYTES 256

struct tp_stamps {
    int64_t sw_ns; /* realtime; 0: none came */
    int64_t hw_ns; /* the NIC's raw clock; 0: none came */
};

static inline int64_t tp_stamps_pair(const uint8_t *at, int wide) {
    if (wide) {
        int64_t pair[2];
        memcpy(pair, at, sizeof(pair));
        /* Seconds beyond 292 years would overflow: no clock says that, so such a stamp is none. */
        if (pair[0] < 0 || pair[0] >= INT64_MAX / 1000000000 || pair[1] < 0 || pair[1] >= 1000000000)
            return 0;
        return pair[0] * 1000000000 + pair[1];
    }
    int32_t pair[2];
    memcpy(pair, at, sizeof(pair));
    if (pair[0] < 0 || pair[1] < 0 || pair[1] >= 1000000000)
        return 0;
    return (int64_t)pair[0] * 1000000000 + pair[1];
}

/* One control message: its header, and its payload inside the caller's bytes. */
struct tp_control_message {
    int level;
    int type;
    const uint8_t *payload;
    size_t bytes;
};

/* Takes the next message from `*at`, of which `*left` bytes are left, and moves both behind it.
 * @return 1; 0 when there is none; -EBADMSG when it is shorter than its header or longer than what is left */
static inline int tp_control_next(const uint8_t **at, size_t *left, struct tp_control_message *out) {
    struct cmsghdr header;
    if (*left < sizeof(header))
        return 0;
    memcpy(&header, *at, sizeof(header));
    if (header.cmsg_len < CMSG_LEN(0) || header.cmsg_len > *left)
        return -EBADMSG;
    out->level = header.cmsg_level;
    out->type = header.cmsg_type;
    out->payload = *at + CMSG_LEN(0);
    out->bytes = header.cmsg_len - CMSG_LEN(0);
    size_t step = CMSG_SPACE(out->bytes);
    if (step > *left)
        step = *left;
    *at += step;
    *left -= step;
    return 1;
}

/* The stamps of one message, where it is one that has some. Those that it has overwrite what was there.
 * @return 1; 0 when it is of another kind; -EBADMSG when its length cannot be */
static inline int tp_stamps_take(const struct tp_control_message *message, struct tp_stamps *out) {
    int type = message->type;
    if (message->level != SOL_SOCKET || (type != TP_SO_TIMESTAMPING_OLD && type != TP_SO_TIMESTAMPING_NEW))
        return 0;
    int wide = message->bytes == 48;
    if (!wide && (message->bytes != 24 || type == TP_SO_TIMESTAMPING_NEW))
        return -EBADMSG;
    size_t pair = wide ? 16 : 8;
    int64_t software = tp_stamps_pair(message->payload, wide);
    int64_t hardware = tp_stamps_pair(message->payload + 2 * pair, wide);
    if (software)
        out->sw_ns = software;
    if (hardware)
        out->hw_ns = hardware;
    return 1;
}

/* Reads the stamps out of `bytes` of control messages. A later message overwrites an earlier one's stamps where it
 * has any. Nothing past `bytes` is read; no alignment is asked of `control`.
 * @return how many timestamp messages were read, or -EBADMSG when a message is shorter or longer than it can be */
static inline int tp_stamps_parse(const void *control, size_t bytes, struct tp_stamps *out) {
    const uint8_t *at = control;
    struct tp_control_message message;
    int found = 0, more;

    out->sw_ns = 0;
    out->hw_ns = 0;
    while ((more = tp_control_next(&at, &bytes, &message)) > 0) {
        int taken = tp_stamps_take(&message, out);
        if (taken < 0)
            return taken;
        found += taken;
    }
    return more < 0 ? more : found;
}

/* Of linux/in.h, in6.h, errqueue.h and socket.h, under names of ours: those headers and libc's cannot be had at once.
 */
#define TP_SO_TIMESTAMPNS_OLD 35
#define TP_SO_TIMESTAMPNS_NEW 64
#define TP_SCM_TIMESTAMPING_PKTINFO 58
#define TP_SOL_IP 0
#define TP_SOL_IPV6 41
#define TP_IP_TTL 2
#define TP_IP_RECVERR 11
#define TP_IPV6_RECVERR 25
#define TP_IPV6_HOPLIMIT 52
#define TP_ORIGIN_LOCAL 1
#define TP_ORIGIN_ICMP 2
#define TP_ORIGIN_ICMP6 3
#define TP_ORIGIN_TIMESTAMPING 4

/* What a datagram socket says beside the bytes, of a packet received or out of its error queue. */
struct tp_control {
    struct tp_stamps stamps;
    uint32_t ifindex;     /* of the NIC that stamped the packet (SOF_TIMESTAMPING_OPT_PKTINFO); 0: not said */
    int hops;             /* TTL or hop limit; -1: not said */
    int has_error;        /* what follows is there: struct sock_extended_err */
    uint32_t error;       /* ee_errno; ENOMSG with a stamp of sending */
    uint8_t origin;       /* TP_ORIGIN_… */
    uint8_t type;         /* ICMP's */
    uint8_t code;         /* ICMP's */
    uint32_t info;        /* with a stamp: which moment it is of (SCM_TSTAMP_SND: 0); else the path's MTU */
    uint32_t data;        /* with a stamp: the packet's number (SOF_TIMESTAMPING_OPT_ID) */
    uint8_t offender[16]; /* who sent the ICMP message, IPv4 as ::ffff:a.b.c.d; zeros: not said */
};

static inline int tp_control_int(const struct tp_control_message *message, int *out) {
    if (message->bytes != sizeof(int))
        return -EBADMSG;
    memcpy(out, message->payload, sizeof(int));
    return 0;
}

/* struct sock_extended_err (16 bytes), and behind it the address of who said so, if that is known. */
static inline int tp_control_error(const struct tp_control_message *message, int wide, struct tp_control *out) {
    const uint8_t *at = message->payload;
    uint16_t family = AF_UNSPEC;
    if (message->bytes < 16)
        return -EBADMSG;
    memcpy(&out->error, at, 4);
    out->origin = at[4];
    out->type = at[5];
    out->code = at[6];
    memcpy(&out->info, at + 8, 4);
    memcpy(&out->data, at + 12, 4);
    out->has_error = 1;
    if (message->bytes >= 18)
        memcpy(&family, at + 16, 2);
    if (family == AF_INET && message->bytes >= 16 + 8) {
        memset(out->offender, 0, 10);
        memset(out->offender + 10, 0xff, 2);
        memcpy(out->offender + 12, at + 16 + 4, 4);
    } else if (wide && family == AF_INET6 && message->bytes >= 16 + 24) {
        memcpy(out->offender, at + 16 + 8, 16);
    }
    return 0;
}

/* Reads `bytes` of control messages whole; what else there is among them is stepped over.
 * @return 0, or -EBADMSG when a message is shorter or longer than it can be */
static inline int tp_control_parse(const void *control, size_t bytes, struct tp_control *out) {
    const uint8_t *at = control;
    struct tp_control_message message;
    int more;

    memset(out, 0, sizeof(*out));
    out->hops = -1;
    while ((more = tp_control_next(&at, &bytes, &message)) > 0) {
        int level = message.level, type = message.type;
        int error = tp_stamps_take(&message, &out->stamps);
        if (error < 0)
            return error;
        error = 0;
        if (level == SOL_SOCKET && (type == TP_SO_TIMESTAMPNS_OLD || type == TP_SO_TIMESTAMPNS_NEW)) {
            if (message.bytes != 16 && (message.bytes != 8 || type == TP_SO_TIMESTAMPNS_NEW))
                return -EBADMSG;
            int64_t stamp = tp_stamps_pair(message.payload, message.bytes == 16);
            if (stamp)
                out->stamps.sw_ns = stamp;
        } else if (level == SOL_SOCKET && type == TP_SCM_TIMESTAMPING_PKTINFO) {
            if (message.bytes != 16)
                return -EBADMSG;
            memcpy(&out->ifindex, message.payload, 4);
        } else if ((level == TP_SOL_IP && type == TP_IP_TTL) || (level == TP_SOL_IPV6 && type == TP_IPV6_HOPLIMIT)) {
            error = tp_control_int(&message, &out->hops);
        } else if (level == TP_SOL_IP && type == TP_IP_RECVERR) {
            error = tp_control_error(&message, 0, out);
        } else if (level == TP_SOL_IPV6 && type == TP_IPV6_RECVERR) {
            error = tp_control_error(&message, 1, out);
        }
        if (error)
            return error;
    }
    return more;
}

#endif
