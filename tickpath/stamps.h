/* SPDX-License-Identifier: Apache-2.0
 *
 * Timestamp control messages of recvmsg: SCM_TIMESTAMPING in every form that a kernel hands out.
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

/* Reads the stamps out of `bytes` of control messages. A later message overwrites an earlier one's stamps where it
 * has any. Nothing past `bytes` is read; no alignment is asked of `control`.
 * @return how many timestamp messages were read, or -EBADMSG when a message is shorter or longer than it can be */
static inline int tp_stamps_parse(const void *control, size_t bytes, struct tp_stamps *out) {
    const uint8_t *at = control;
    size_t left = bytes;
    int found = 0;

    out->sw_ns = 0;
    out->hw_ns = 0;
    while (left >= sizeof(struct cmsghdr)) {
        struct cmsghdr header;
        memcpy(&header, at, sizeof(header));
        if (header.cmsg_len < CMSG_LEN(0) || header.cmsg_len > left)
            return -EBADMSG;
        size_t payload = header.cmsg_len - CMSG_LEN(0);
        if (header.cmsg_level == SOL_SOCKET &&
            (header.cmsg_type == TP_SO_TIMESTAMPING_OLD || header.cmsg_type == TP_SO_TIMESTAMPING_NEW)) {
            int wide = payload == 48;
            if (!wide && (payload != 24 || header.cmsg_type == TP_SO_TIMESTAMPING_NEW))
                return -EBADMSG;
            size_t pair = wide ? 16 : 8;
            int64_t software = tp_stamps_pair(at + CMSG_LEN(0), wide);
            int64_t hardware = tp_stamps_pair(at + CMSG_LEN(0) + 2 * pair, wide);
            if (software)
                out->sw_ns = software;
            if (hardware)
                out->hw_ns = hardware;
            found++;
        }
        size_t step = CMSG_SPACE(payload);
        if (step >= left)
            break;
        at += step;
        left -= step;
    }
    return found;
}

#endif
