/* SPDX-License-Identifier: Apache-2.0
 *
 * One target: its socket, what is sent to it when, and what comes back.
 */
#ifndef TICKPATH_PROBES_PING_TARGET_H
#define TICKPATH_PROBES_PING_TARGET_H

#include "probes/ping/window.h"
#include "tickpath/ring.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define TP_PING_INTERFACE_BYTES 16

/* What is asked for; none of it changes. */
struct tp_ping_plan {
    struct sockaddr_storage address;
    struct sockaddr_storage from;            /* ss_family 0: the kernel chooses */
    char interface[TP_PING_INTERFACE_BYTES]; /* empty: the route says */
    uint8_t proto;                           /* enum tp_ping_proto */
    bool raw;                                /* ICMP: a raw socket even where a ping socket could be had */
    bool stamps;                             /* ask the kernel for any */
    bool split;                              /* UDP: ask the far end when it took a ping and answered */
    uint32_t bytes;                          /* of payload */
    uint64_t count;                          /* 0: for ever */
    int64_t first_ns;                        /* after the start */
    int64_t interval_ns;
    int64_t jitter_ns; /* each is planned up to so much after its turn */
    int64_t allowed_ns;
    int64_t linger_ns; /* after the last has come to something: for what is late or double */
    uint64_t nonce;
    uint64_t slots;
    uint32_t row;
};

struct tp_ping_target {
    struct tp_ping_plan plan;
    struct tp_ping_window window;
    struct tp_ring_writer *ring;
    uint8_t *buffer;
    uint64_t *by_key; /* ordinals */
    uint64_t random;
    uint64_t turns; /* planned up to now */
    int64_t began_ns;
    int64_t planned_ns;
    int64_t settled_ns; /* the last has come to something; 0: not yet */
    uint32_t buffer_bytes;
    uint32_t index; /* in epoll's words */
    uint32_t keys;
    int fd;    /* -1: TCP */
    int epoll; /* TCP: where attempts are watched */
    uint16_t id;
    uint16_t times; /* of what is sent: struct tp_ping_payload */
    bool is_raw;
    bool live; /* a stamp was seen that is older than its reading: from then on all are arrivals' */
};

/* Opens what the plan needs, sends nothing.
 * @return 0, or with what failed in `why`: -EACCES or -EPERM (neither a ping socket nor a raw one may be had), -errno
 */
int tp_ping_target_open(struct tp_ping_target *, const struct tp_ping_plan *, struct tp_ring_writer *, char *why,
                        size_t why_bytes);
void tp_ping_target_close(struct tp_ping_target *);

/* The schedule begins. `epoll` watches attempts of TCP, under `index`. */
void tp_ping_target_begin(struct tp_ping_target *, int epoll, uint32_t index, int64_t now_ns);
/* Sends what is due, reads all that came, gives up what waited too long. */
void tp_ping_target_work(struct tp_ping_target *, bool readable);
/* The end: what came up to now is read, and what waited too long by now is given up. Sends nothing. */
void tp_ping_target_finish(struct tp_ping_target *);
/* TCP: the attempt in this slot has come to something. */
void tp_ping_target_attempt(struct tp_ping_target *, uint32_t slot);
/* When there is something to do next, unless something comes; INT64_MAX: never, all is done. */
int64_t tp_ping_target_due(const struct tp_ping_target *);

#endif
