/* SPDX-License-Identifier: Apache-2.0
 *
 * The other end of a UDP ping: sends a request back to where it came from, and answers nothing else. Where it is asked
 * to, it says afterwards when it took the request and when its answer left.
 */
#ifndef TICKPATH_PROBES_PING_ECHO_H
#define TICKPATH_PROBES_PING_ECHO_H

#include "probes/ping/times.h"
#include "tickpath/stamps.h"

#include <stdbool.h>
#include <sys/socket.h>

#define TP_PING_TOLD_LATER 64u
#define TP_PING_FROM_BYTES 64u

/* An answer that has left, whose stamp of leaving is waited for. */
struct tp_ping_answer {
    struct sockaddr_storage peer;
    uint8_t from[TP_PING_FROM_BYTES] __attribute__((aligned(sizeof(size_t)))); /* control: the address that was asked */
    socklen_t peer_bytes;
    uint32_t from_bytes;
    uint64_t nonce;
    uint64_t ordinal;
    struct tp_stamps received;
    struct tp_stamps sent;
    int64_t read_real_ns; /* after the request was read */
    int64_t read_from_ns; /* monotonic, before and after that reading of the clock */
    int64_t read_to_ns;
    int64_t before_real_ns; /* before the call that sent the answer, by two clocks */
    int64_t before_ns;
    int64_t bound_ns; /* of realtime on UTC, then; INT64_MAX: not known */
    uint32_t key;     /* by which the kernel names its stamps */
    uint16_t serial;
};

struct tp_ping_echo {
    int fd;
    uint64_t answered;
    uint64_t ignored; /* not a request of ours: an answer, too, so that two of these never keep each other busy */
    uint64_t unsent;  /* answers that the kernel would not send */
    uint64_t told;    /* answers whose times were sent after them */
    uint64_t first;   /* of those in `later`, from first to next */
    uint64_t next;
    uint32_t host; /* tp_ping_host */
    uint32_t keys;
    uint16_t serial;
    bool stamped; /* the kernel took the order for stamps */
    bool live;    /* a stamp was seen that is older than its reading: from then on all are arrivals' */
    struct tp_ping_answer later[TP_PING_TOLD_LATER];
};

/* Bound to `address`; port 0: any. @return 0 or -errno */
int tp_ping_echo_open(struct tp_ping_echo *, const struct sockaddr_storage *address);
/* Answers until `stop_fd` is readable. @return 0 or -errno */
int tp_ping_echo_run(struct tp_ping_echo *, int stop_fd);
void tp_ping_echo_close(struct tp_ping_echo *);

#endif
