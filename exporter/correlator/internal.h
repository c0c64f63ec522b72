/* SPDX-License-Identifier: Apache-2.0
 *
 * What the correlator's files share: connections, flows, and what is known of each.
 */
#ifndef TICKPATH_CORRELATOR_INTERNAL_H
#define TICKPATH_CORRELATOR_INTERNAL_H

#include "exporter/correlator/correlator.h"
#include "exporter/correlator/queue.h"
#include "exporter/correlator/timeline.h"
#include "tickpath/flow.h"

#define TP_INPUTS 64
#define TP_OBSERVERS 4
#define TP_BUCKETS 1024u /* of the hash tables */
#define TP_BIND_RETRY_NS INT64_C(10000000)
#define TP_HOUSEKEEPING_NS INT64_C(100000000)
/* How far the kernel's own reading of the monotonic clock (ktime_get_mono_fast_ns) may be behind a process's. */
#define TP_KERNEL_SKEW_NS INT64_C(10000)
/* How long after a message the successor of the last wire producer may still come into sight. */
#define TP_SUCCESSION_NS (5 * TP_HOUSEKEEPING_NS)
#define TP_BOUNDS_NS INT64_C(30000000000) /* how long a bound is told at least, and half of how long at most */
#define TP_NEAR_NS INT64_C(10000000)      /* how old a segment may be that a lesser method takes */
/* NAT: how far a flow may be from where the connection stands; the largest receive buffer that Linux grants by default.
 */
#define TP_RECEIVE_WINDOW_BYTES (INT64_C(16) << 20)

struct tp_tuple {
    uint8_t local[16];
    uint8_t remote[16];
    uint16_t local_port;
    uint16_t remote_port;
};

struct tp_flow;
struct tp_conn;

/* One wire producer's view of a flow. */
struct tp_observer {
    struct tp_flow *flow; /* NULL: free */
    int64_t position;     /* behind the last byte it showed */
    int64_t mark_ns;      /* it has shown everything that arrived before */
    uint32_t input;
    uint32_t handle;
};

/* What the wire shows of one TCP connection, in positions. */
struct tp_flow {
    struct tp_flow *next_hashed;
    struct tp_flow *next, **link; /* in the list of all */
    struct tp_tuple tuple;
    struct tp_conn *conn; /* bound to; NULL */
    struct tp_span_map map;
    struct tp_observer observers[TP_OBSERVERS];
    int64_t opened_ns;
    int64_t closed_ns; /* 0: open */
    int64_t used_ns;   /* last record */
    int64_t position;  /* last known */
    int64_t base;      /* position of stream offset 0 */
    uint32_t irs;
    bool has_irs;
    bool has_position;
    bool has_base;
    /* In-order arrival, settled up to a position: all before it is told by the latest known arrival and the latest
     * moment by which all uncaptured bytes had come. */
    int64_t settled;
    int64_t settled_ns;
    int64_t unknown_ns;
    uint8_t settled_source;
};

struct tp_read_item {
    int64_t from;
    int64_t to;
    int64_t asked_ns;
    int64_t returned_ns;
    int64_t sw_ns;
    bool drained;
};

struct tp_pending {
    int64_t received_ns;
    int64_t exchange_ns;
    int64_t end;
    int64_t decode_ns;
    int64_t parsed_ns;
    int64_t published_ns;
    int64_t transaction_ns;
    uint32_t ordinal;
    uint32_t length;
    uint8_t flags;
    uint8_t tier;
    bool wide_lost;
};

/* A TCP connection as the host knows it: the feed's half, the kernel probe's half, or both. */
struct tp_conn {
    struct tp_conn *next_by_cookie;
    struct tp_conn *next, **link;                 /* in the list of all */
    struct tp_conn *next_waiting, **waiting_link; /* while messages wait */
    struct tp_tuple tuple;
    uint64_t cookie;
    int64_t opened_ns;
    int64_t closed_ns;
    int64_t used_ns;
    struct tp_label *label; /* of the feed's half; NULL: none */
    uint32_t input;
    uint32_t handle;
    uint32_t irs;
    bool has_irs;
    bool has_feed;
    bool has_kernel;
    bool ambiguous;
    bool has_ordinal;
    uint32_t next_ordinal;
    struct tp_flow *flow;
    int64_t reached; /* furthest stream offset that anyone spoke of */
    int64_t last_end;
    int64_t bind_retry_ns;
    uint64_t bind_version;
    struct tp_span_map readable;
    struct tp_span_map copied;
    struct tp_queue reads;
    int64_t
        emptied_ns; /* the read before those was asked for, and left nothing; INT64_MIN: it left something, or none */
    struct tp_queue pending;
};

enum tp_input_kind { TP_INPUT_FREE = 0, TP_INPUT_FEED, TP_INPUT_WIRE, TP_INPUT_KERNEL, TP_INPUT_PING, TP_INPUT_OTHER };

/* Where records come from, and how to read the rows that they name. */
struct tp_input {
    enum tp_input_kind kind;
    bool alive;
    int64_t last_ns; /* monotonic, of the last record */
    int64_t mark_ns; /* wire: latest arrival that it has shown, of any flow; kernel: likewise, of any connection */
    int (*row)(const void *context, uint32_t handle, struct tp_row *out); /* 0, or a negative errno */
    const void *context;
    void **by_row;     /* tp_conn (feed) or tp_observer (wire) of each row index */
    uint32_t *handles; /* with this handle */
    uint32_t rows;
    struct tp_event wide_first; /* a MESSAGE that waits for its second record */
    bool has_wide_first;
};

struct tp_join {
    struct tp_correlator_limits limits;
    struct tp_correlator_totals totals;
    struct tp_connects connects;
    struct tp_ping_account *pings; /* NULL until there is one */
    uint32_t ping_count;
    uint32_t ping_series;
    uint64_t budget;
    struct tp_timeline timeline;
    struct tp_input inputs[TP_INPUTS];
    uint32_t wires; /* living inputs of that kind */
    uint32_t kernels;
    struct tp_conn *by_cookie[TP_BUCKETS];
    struct tp_flow *by_tuple[TP_BUCKETS];
    struct tp_conn *conns;
    struct tp_conn *waiting;
    struct tp_flow *flows;
    uint64_t flows_version; /* changes whenever a binding may have become possible */
    int64_t horizon_ns;     /* records written before it have all been taken: waiting is measured against it */
    int64_t housekeeping_ns;
    struct tp_label *labels;
    uint32_t label_count;
    uint32_t series;
    int64_t bounds_ns[2][TP_SOURCES]; /* largest bound of an own arrival: in this span of time and the one before */
    int64_t bounds_until_ns;
    struct tp_joined *joined;
    uint64_t joined_written;
    uint64_t joined_fetched;
};

/* join.c */
int tp_join_init(struct tp_join *, const struct tp_correlator_limits *);
void tp_join_free(struct tp_join *);
/* Takes the free input of that number, which it returns; or -ENOMEM. */
int tp_join_input_add(struct tp_join *, uint32_t input, enum tp_input_kind, uint32_t rows,
                      int (*row)(const void *, uint32_t, struct tp_row *), const void *context);
/* A producer stopped: nothing more is waited for from it; or it came back under the same ring. */
void tp_join_input_alive(struct tp_join *, uint32_t input, bool alive, int64_t now_ns);
void tp_join_input_remove(struct tp_join *, uint32_t input, int64_t now_ns);
void tp_join_records(struct tp_join *, uint32_t input, const struct tp_event *, size_t count, int64_t now_ns);
/* Finishes the messages whose waiting is over: of those received a window before `horizon_ns`, up to which the records
 * of all rings have been taken, everything that could come has come. All of them when `flush`. */
void tp_join_advance(struct tp_join *, int64_t now_ns, int64_t horizon_ns, bool flush);

/* connections.c */
struct tp_conn *tp_conn_of_row(struct tp_join *, uint32_t input, uint32_t handle, int64_t now_ns);
struct tp_conn *tp_conn_of_cookie(struct tp_join *, uint32_t input, uint32_t handle, uint64_t cookie, int64_t now_ns);
struct tp_observer *tp_observer_of_row(struct tp_join *, uint32_t input, uint32_t handle, int64_t now_ns);
void tp_conn_refresh(struct tp_join *, struct tp_conn *, int64_t now_ns);
void tp_flow_refresh(struct tp_join *, struct tp_flow *);
/* Binds a connection to its flow, if exactly one fits, and fixes the flow's base when it can be known. */
void tp_conn_bind(struct tp_join *, struct tp_conn *, int64_t now_ns);
void tp_conn_free(struct tp_join *, struct tp_conn *);
void tp_flow_free(struct tp_join *, struct tp_flow *);
void tp_connections_keep(struct tp_join *, int64_t now_ns);
void tp_conn_set_waiting(struct tp_join *, struct tp_conn *);
void tp_conn_clear_waiting(struct tp_conn *);

/* finish.c: the head of conn's queue. True: it was finished and removed. */
bool tp_finish_head(struct tp_join *, struct tp_conn *, int64_t now_ns, bool force, enum tp_reason forced_reason);
/* A message that is finished as soon as it comes, under `reason`: its connection is not known, or there is no room to
 * let it wait. */
void tp_finish_orphan(struct tp_join *, struct tp_label *, uint32_t input, uint32_t row, const struct tp_pending *,
                      enum tp_reason reason);

/* accounting.c */
struct tp_label *tp_label_of(struct tp_join *, const struct tp_row *);
void tp_account(struct tp_join *, struct tp_label *, struct tp_joined *);
/* What was the largest of a span of time is forgotten two later. */
void tp_account_age(struct tp_join *, int64_t now_ns);
void tp_account_connect(struct tp_join *, const struct tp_connect *);
/* `row`: of its target; NULL: lost. */
void tp_account_ping(struct tp_join *, const struct tp_event *, const struct tp_row *row);
void tp_account_ping_split(struct tp_join *, const struct tp_event *, const struct tp_row *row);
void tp_account_free_pings(struct tp_join *);

#endif
