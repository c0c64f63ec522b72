/* SPDX-License-Identifier: Apache-2.0
 *
 * The pings that are remembered: what is known of each, and what a reply, a stamp or the passing of time makes of it.
 * Nothing here asks a clock or a socket.
 *
 * Every ping that was sent comes to exactly one of REPLY, LOST and ERROR. A reply after that is LATE when the ping was
 * LOST, and else a DUPLICATE. In time is what the RTT says by the best stamps there are, whenever it is read.
 */
#ifndef TICKPATH_PROBES_PING_WINDOW_H
#define TICKPATH_PROBES_PING_WINDOW_H

#include "probes/ping/times.h"
#include "tickpath/event.h"
#include "tickpath/stamps.h"

#include <stdbool.h>

enum tp_ping_state {
    TP_PING_FREE = 0,
    TP_PING_WAITING,  /* for its reply */
    TP_PING_HELD,     /* answered; a stamp of its sending may still come */
    TP_PING_ANSWERED, /* in time */
    TP_PING_GIVEN_UP, /* LOST */
    TP_PING_LATELY,   /* LOST and answered */
    TP_PING_FAILED,   /* ERROR */
};

/* When a packet reached this host, by each clock that says so; 0: it does not. */
struct tp_ping_arrival {
    int64_t app_ns;   /* monotonic, after it was read */
    int64_t bound_ns; /* of realtime, on UTC; INT64_MAX: not known. Meaningless without `serial` */
    struct tp_stamps stamps;
    uint32_t length;
    uint16_t serial; /* of the far end's times, which follow; 0: none do */
    uint8_t hops;
};

struct tp_ping_slot {
    uint64_t ordinal;
    int64_t planned_ns;           /* monotonic */
    int64_t before_ns;            /* monotonic, before the call that sent it */
    int64_t before_real_ns;       /* realtime, likewise */
    int64_t bound_ns;             /* then, of realtime on UTC; INT64_MAX: not known */
    struct tp_stamps sent;        /* as they come out of the error queue */
    struct tp_ping_arrival reply; /* HELD, ANSWERED, LATELY: the first */
    struct tp_ping_far far;       /* what the far end said of an answer; serial 0: nothing */
    uint32_t key;                 /* by which the kernel names its stamps */
    int fd;                       /* TCP: of the attempt; -1: none */
    uint8_t state;
    bool owed;  /* the far end's times of `reply` are still to come */
    bool split; /* was told */
};

struct tp_ping_window {
    struct tp_ping_slot *slots;
    uint64_t mask;
    uint64_t next;   /* ordinal of the next ping */
    uint64_t oldest; /* the first that may be WAITING or HELD */
    uint64_t held;
    uint64_t owed; /* slots that are */
    uint32_t host; /* tp_ping_host */
    int64_t allowed_ns;
    int64_t hold_ns;
    bool stamped;  /* stamps of both ends were asked for */
    uint8_t proto; /* enum tp_ping_proto */
    /* What became of a ping, and where its time went: header fields and body, but for the row. */
    void (*tell)(void *context, const struct tp_event *event);
    void *context;
};

/* `slots`: a power of two. @return 0 or -ENOMEM. */
int tp_ping_window_init(struct tp_ping_window *, uint64_t slots);
void tp_ping_window_free(struct tp_ping_window *);

/* The slot for the next ping; NULL while the one that it would take the place of is still waited for. */
struct tp_ping_slot *tp_ping_window_next(struct tp_ping_window *);
/* It was sent, `slot` is filled in: tells SENT. */
void tp_ping_window_sent(struct tp_ping_window *, struct tp_ping_slot *slot);
/* NULL: not remembered (any more). */
struct tp_ping_slot *tp_ping_window_find(struct tp_ping_window *, uint64_t ordinal);

void tp_ping_window_reply(struct tp_ping_window *, struct tp_ping_slot *, const struct tp_ping_arrival *);
/* More of when it was sent. */
void tp_ping_window_stamp(struct tp_ping_window *, struct tp_ping_slot *, const struct tp_stamps *);
/* What the far end says of one of its answers. */
void tp_ping_window_times(struct tp_ping_window *, struct tp_ping_slot *, const struct tp_ping_far *);
/* It failed; `body` says how. What came to something before is left alone. */
void tp_ping_window_error(struct tp_ping_window *, struct tp_ping_slot *, int64_t now_ns, const struct tp_ping *body);
/* TCP: opened, after `rtt_ns` by its own account; 0: it has none. `again`: the first SYN was lost, or its answer. */
void tp_ping_window_opened(struct tp_ping_window *, struct tp_ping_slot *, int64_t now_ns, int64_t rtt_ns, bool again);
/* Gives up what has waited long enough, and ends what is HELD. */
void tp_ping_window_expire(struct tp_ping_window *, int64_t now_ns);
/* When expire has something to do next; INT64_MAX: nothing waits. */
int64_t tp_ping_window_due(const struct tp_ping_window *);

/* The RTT by the best pair of stamps that can be: never one clock's sending with another's arrival. */
int64_t tp_ping_rtt(const struct tp_ping_slot *, const struct tp_ping_arrival *, uint8_t *source, bool *disbelieved);

#endif
