/* SPDX-License-Identifier: Apache-2.0 */
#include "probes/ping/target.h"

#include "probes/ping/packet.h"
#include "probes/ping/stamping.h"
#include "tickpath/clock.h"

#include <errno.h>
#include <netinet/icmp6.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define CONTROL_BYTES 512
#define HOLD_NS INT64_C(10000000)
/* What fell further behind its plan is not sent any more, so that a stall is not followed by a flood. */
#define BEHIND_MOST_NS INT64_C(1000000000)
/* For what comes after all; TCP gives an attempt up by then. */
#define LATE_NS INT64_C(3000000000)
#define ICMP_FILTER_OPTION 1
/* So long times that an answer has announced are waited for at the end. They follow it at once, but for a far host that
 * waits for its processor. */
#define OWED_NS INT64_C(1000000000)

static int failed(const char *what, char *why, size_t why_bytes) {
    int error = -errno;
    snprintf(why, why_bytes, "%s", what);
    return error;
}

static int on(int fd, int level, int option) {
    int yes = 1;
    return setsockopt(fd, level, option, &yes, sizeof yes);
}

static socklen_t address_bytes(const struct sockaddr_storage *address) {
    return address->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

/* Where packets leave, for any kind of socket. */
static int bind_to(int fd, const struct tp_ping_plan *plan) {
    if (plan->interface[0] &&
        setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, plan->interface, (socklen_t)strlen(plan->interface)))
        return -1;
    return plan->from.ss_family ? bind(fd, (const struct sockaddr *)&plan->from, address_bytes(&plan->from)) : 0;
}

static int open_icmp(struct tp_ping_target *t) {
    int family = t->plan.address.ss_family;
    int protocol = family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6;
    int fd = -1;
    if (!t->plan.raw)
        fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
    if (fd >= 0 || (errno != EACCES && errno != EPROTONOSUPPORT && !t->plan.raw))
        return fd;
    t->is_raw = true;
    fd = socket(family, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
    if (fd < 0)
        return fd;
    if (family == AF_INET) {
        uint32_t kept_out = ~(1u << TP_ICMP4_REPLY);
        if (setsockopt(fd, SOL_RAW, ICMP_FILTER_OPTION, &kept_out, sizeof kept_out) == 0)
            return fd;
    } else {
        struct icmp6_filter let_in;
        ICMP6_FILTER_SETBLOCKALL(&let_in);
        ICMP6_FILTER_SETPASS(TP_ICMP6_REPLY, &let_in);
        if (setsockopt(fd, IPPROTO_ICMPV6, ICMP6_FILTER, &let_in, sizeof let_in) == 0)
            return fd;
    }
    close(fd);
    return -1;
}

static int set_up(struct tp_ping_target *t, char *why, size_t why_bytes) {
    bool v4 = t->plan.address.ss_family == AF_INET;
    if (bind_to(t->fd, &t->plan))
        return failed("binding it", why, why_bytes);
    /* Both are of use and not needed: errors then come as errors of calls, and lines lack a TTL. */
    on(t->fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_RECVERR : IPV6_RECVERR);
    on(t->fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_RECVTTL : IPV6_RECVHOPLIMIT);
    if (connect(t->fd, (const struct sockaddr *)&t->plan.address, address_bytes(&t->plan.address)))
        return failed("looking for a route", why, why_bytes);
    if (t->plan.stamps) {
        t->window.stamped = tp_ping_ask_stamps(t->fd, true);
        if (!t->window.stamped)
            on(t->fd, SOL_SOCKET, TP_SO_TIMESTAMPNS_OLD);
    }
    return 0;
}

static void tell(void *context, const struct tp_event *told) {
    struct tp_ping_target *t = context;
    struct tp_event event = *told;
    event.row = t->plan.row;
    tp_ring_write(t->ring, &event);
}

int tp_ping_target_open(struct tp_ping_target *t, const struct tp_ping_plan *plan, struct tp_ring_writer *ring,
                        char *why, size_t why_bytes) {
    memset(t, 0, sizeof *t);
    t->plan = *plan;
    t->ring = ring;
    t->fd = -1;
    t->id = (uint16_t)plan->nonce;
    t->random = plan->nonce | 1;
    t->buffer_bytes = plan->bytes + 128;
    t->window.allowed_ns = plan->allowed_ns;
    t->window.hold_ns = HOLD_NS;
    t->window.proto = plan->proto;
    t->window.host = tp_ping_host();
    if (plan->split && plan->proto == TP_PING_PROTO_UDP && plan->bytes >= TP_PING_TIMES_BYTES)
        t->times = TP_PING_ASKS_TIMES;
    t->window.tell = tell;
    t->window.context = t;
    t->buffer = malloc(t->buffer_bytes);
    t->by_key = calloc(plan->slots, sizeof *t->by_key);
    if (!t->buffer || !t->by_key || tp_ping_window_init(&t->window, plan->slots)) {
        errno = ENOMEM;
        return failed("memory", why, why_bytes);
    }
    if (plan->proto == TP_PING_PROTO_TCP)
        return 0;
    int family = plan->address.ss_family;
    t->fd =
        plan->proto == TP_PING_PROTO_ICMP ? open_icmp(t) : socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (t->fd < 0)
        return failed("opening a socket", why, why_bytes);
    return set_up(t, why, why_bytes);
}

void tp_ping_target_close(struct tp_ping_target *t) {
    for (uint64_t i = 0; t->window.slots && i <= t->window.mask; i++) {
        if (t->window.slots[i].fd >= 0)
            close(t->window.slots[i].fd);
    }
    tp_ping_window_free(&t->window);
    free(t->buffer);
    free(t->by_key);
    t->buffer = NULL;
    t->by_key = NULL;
    if (t->fd >= 0)
        close(t->fd);
    t->fd = -1;
}

/* When it is due */

static uint64_t next_random(struct tp_ping_target *t) {
    t->random ^= t->random << 13;
    t->random ^= t->random >> 7;
    t->random ^= t->random << 17;
    return t->random;
}

/* Turns are the interval apart for ever: what was sent late, or not at all, moves none of those to come. */
static void plan_next(struct tp_ping_target *t) {
    int64_t jitter_ns = t->plan.jitter_ns ? (int64_t)(next_random(t) % (uint64_t)t->plan.jitter_ns) : 0;
    t->planned_ns = t->began_ns + (int64_t)t->turns * t->plan.interval_ns + jitter_ns;
    t->turns++;
}

void tp_ping_target_begin(struct tp_ping_target *t, int epoll, uint32_t index, int64_t now_ns) {
    t->epoll = epoll;
    t->index = index;
    t->began_ns = now_ns + t->plan.first_ns;
    plan_next(t);
}

static bool all_sent(const struct tp_ping_target *t) {
    return t->plan.count && t->turns > t->plan.count;
}

int64_t tp_ping_target_due(const struct tp_ping_target *t) {
    int64_t due_ns = tp_ping_window_due(&t->window);
    if (!all_sent(t))
        return due_ns < t->planned_ns ? due_ns : t->planned_ns;
    if (due_ns != INT64_MAX || !t->settled_ns)
        return due_ns;
    int64_t owed_ns = t->window.owed ? OWED_NS : 0;
    int64_t end_ns = t->settled_ns + (t->plan.linger_ns > owed_ns ? t->plan.linger_ns : owed_ns);
    return end_ns > tp_monotonic_ns() ? end_ns : INT64_MAX;
}

/* Sending */

static int64_t realtime_ns(void) {
    return tp_clock_ns(CLOCK_REALTIME);
}

/* Asked only where it is of use. */
static int64_t bound_ns(const struct tp_ping_target *t) {
    struct tp_clock_status status = {.max_error_ns = INT64_MAX};
    if (t->times)
        (void)tp_clock_status_read(&status); /* a failure says: not known */
    return status.max_error_ns;
}

static void fail(struct tp_ping_target *t, struct tp_ping_slot *slot, int error) {
    const struct tp_ping body = {.error = (uint16_t)error};
    tp_ping_window_error(&t->window, slot, tp_monotonic_ns(), &body);
}

static void attempt(struct tp_ping_target *t, struct tp_ping_slot *slot) {
    int family = t->plan.address.ss_family;
    unsigned patience_ms = (unsigned)((t->plan.allowed_ns + LATE_NS) / 1000000);
    if (slot->fd >= 0)
        close(slot->fd);
    slot->fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int error = slot->fd < 0 || bind_to(slot->fd, &t->plan) ? errno : 0;
    if (!error)
        setsockopt(slot->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &patience_ms, sizeof patience_ms);
    slot->before_real_ns = realtime_ns();
    slot->before_ns = tp_monotonic_ns();
    if (!error && connect(slot->fd, (const struct sockaddr *)&t->plan.address, address_bytes(&t->plan.address)) &&
        errno != EINPROGRESS)
        error = errno;
    tp_ping_window_sent(&t->window, slot);
    uint32_t place = (uint32_t)(slot - t->window.slots);
    struct epoll_event watch = {.events = EPOLLOUT, .data.u64 = (uint64_t)(place + 1) << 32 | t->index};
    if (!error && epoll_ctl(t->epoll, EPOLL_CTL_ADD, slot->fd, &watch))
        error = errno;
    if (error)
        fail(t, slot, error);
}

void tp_ping_target_attempt(struct tp_ping_target *t, uint32_t place) {
    struct tp_ping_slot *slot = &t->window.slots[place];
    if (slot->fd < 0)
        return;
    int64_t now_ns = tp_monotonic_ns();
    int error = 0;
    socklen_t bytes = sizeof error;
    getsockopt(slot->fd, SOL_SOCKET, SO_ERROR, &error, &bytes);
    if (error) {
        const struct tp_ping body = {.error = (uint16_t)error};
        tp_ping_window_error(&t->window, slot, now_ns, &body);
    } else {
        struct tcp_info info = {0};
        bytes = sizeof info;
        getsockopt(slot->fd, IPPROTO_TCP, TCP_INFO, &info, &bytes);
        tp_ping_window_opened(&t->window, slot, now_ns, (int64_t)info.tcpi_rtt * 1000, info.tcpi_total_retrans > 0);
    }
    close(slot->fd);
    slot->fd = -1;
}

static uint32_t compose(struct tp_ping_target *t, uint64_t ordinal) {
    if (t->plan.proto == TP_PING_PROTO_UDP) {
        tp_ping_fill(t->buffer, t->plan.bytes, t->plan.nonce, ordinal, t->times);
        return t->plan.bytes;
    }
    bool v4 = t->plan.address.ss_family == AF_INET;
    tp_ping_icmp(t->buffer, v4 ? TP_ICMP4_REQUEST : TP_ICMP6_REQUEST, t->id, t->plan.bytes, t->plan.nonce, ordinal,
                 v4 && t->is_raw);
    return TP_PING_ICMP_BYTES + t->plan.bytes;
}

static void send_one(struct tp_ping_target *t) {
    struct tp_ping_slot *slot = tp_ping_window_next(&t->window);
    if (!slot) {
        tp_ring_count(t->ring, TP_COUNT_PING_SKIPPED, 1);
        return;
    }
    slot->planned_ns = t->planned_ns;
    slot->sent = (struct tp_stamps){0};
    if (t->plan.proto == TP_PING_PROTO_TCP) {
        attempt(t, slot);
        return;
    }
    uint32_t bytes = compose(t, t->window.next);
    int error = 0;
    slot->bound_ns = bound_ns(t);
    /* An error of an earlier one that is still to be told keeps the kernel from sending: then once more. */
    for (int tries = 0; tries < 2; tries++) {
        slot->before_real_ns = realtime_ns();
        slot->before_ns = tp_monotonic_ns();
        error = send(t->fd, t->buffer, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? errno : 0;
        if (!error)
            break;
        if (t->window.stamped) {
            t->keys = 0;
            tp_ping_restart_stamps(t->fd, true);
        }
        int told = 0;
        socklen_t told_bytes = sizeof told;
        getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &told, &told_bytes);
    }
    slot->key = t->keys;
    t->by_key[slot->key & t->window.mask] = t->window.next;
    t->keys += !error;
    tp_ping_window_sent(&t->window, slot);
    if (error)
        fail(t, slot, error);
}

static void send_due(struct tp_ping_target *t) {
    while (!all_sent(t)) {
        int64_t now_ns = tp_monotonic_ns();
        if (t->planned_ns > now_ns)
            return;
        if (now_ns - t->planned_ns > BEHIND_MOST_NS)
            tp_ring_count(t->ring, TP_COUNT_PING_SKIPPED, 1);
        else
            send_one(t);
        plan_next(t);
    }
}

/* What came */

static void take_stamp(struct tp_ping_target *t, const struct tp_control *control) {
    struct tp_ping_slot *slot = tp_ping_window_find(&t->window, t->by_key[control->data & t->window.mask]);
    /* info 0 is SCM_TSTAMP_SND. A number that was given anew may name another: that cannot have left before its call.
     */
    if (control->info || !slot || slot->key != control->data ||
        (control->stamps.sw_ns && control->stamps.sw_ns < slot->before_real_ns)) {
        tp_ring_count(t->ring, TP_COUNT_PING_UNPAIRED, 1);
        return;
    }
    tp_ping_window_stamp(&t->window, slot, &control->stamps);
}

/* Which ping an ICMP error speaks of, by what it cites of the packet. */
static struct tp_ping_slot *cited(struct tp_ping_target *t, uint32_t bytes) {
    struct tp_ping_payload head;
    if (t->plan.proto == TP_PING_PROTO_UDP) {
        if (bytes < sizeof head)
            return NULL;
        memcpy(&head, t->buffer, sizeof head);
        return head.magic == TP_PING_MAGIC && head.nonce == t->plan.nonce
                   ? tp_ping_window_find(&t->window, head.ordinal)
                   : NULL;
    }
    if (bytes < TP_PING_ICMP_BYTES || t->window.next == 0)
        return NULL;
    if (t->is_raw && (t->buffer[4] != t->id >> 8 || t->buffer[5] != (uint8_t)t->id))
        return NULL;
    uint16_t sequence = (uint16_t)(t->buffer[6] << 8 | t->buffer[7]);
    uint16_t back = (uint16_t)((uint16_t)t->window.next - sequence);
    return back < t->window.next ? tp_ping_window_find(&t->window, t->window.next - 1 - back) : NULL;
}

static void take_error(struct tp_ping_target *t, const struct tp_control *control, uint32_t bytes) {
    struct tp_ping_slot *slot = cited(t, bytes);
    struct tp_ping body = {.error = (uint16_t)control->error};
    if (!slot) {
        tp_ring_count(t->ring, TP_COUNT_PING_STRAY, 1);
        return;
    }
    if (control->origin == TP_ORIGIN_ICMP || control->origin == TP_ORIGIN_ICMP6) {
        body.icmp_type = control->type;
        body.icmp_code = control->code;
        memcpy(body.offender, control->offender, sizeof body.offender);
    }
    tp_ping_window_error(&t->window, slot, tp_monotonic_ns(), &body);
}

/* What our own server says of its answer; false: it is no such message. */
static bool take_times(struct tp_ping_target *t, uint32_t bytes) {
    uint64_t ordinal = 0;
    struct tp_ping_far far;
    int found = t->times ? tp_ping_times_read(t->buffer, bytes, t->plan.nonce, &ordinal, &far) : -ENOENT;
    if (found == -ENOENT)
        return false;
    struct tp_ping_slot *slot = found == 0 ? tp_ping_window_find(&t->window, ordinal) : NULL;
    if (!slot) {
        tp_ring_count(t->ring, found == -EBADMSG ? TP_COUNT_PING_MALFORMED : TP_COUNT_PING_STRAY, 1);
        return true;
    }
    far.app_ns = tp_monotonic_ns();
    tp_ping_window_times(&t->window, slot, &far);
    return true;
}

static void take_reply(struct tp_ping_target *t, uint32_t bytes, bool cut, const struct tp_control *control,
                       int64_t before_read_ns) {
    const uint8_t *at = t->buffer;
    bool v4 = t->plan.address.ss_family == AF_INET;
    bool good = !cut;
    if (good && v4 && t->is_raw) {
        /* The IP header comes along, whole and checked by the kernel. */
        uint32_t head = bytes ? (at[0] & 15u) * 4u : 0;
        good = head >= 20 && head <= bytes;
        at += good ? head : 0;
        bytes -= good ? head : 0;
    }
    struct tp_ping_arrival reply = {.app_ns = tp_monotonic_ns(),
                                    .stamps = control->stamps,
                                    .length = bytes,
                                    .hops = control->hops > 0 ? (uint8_t)control->hops : 0};
    uint64_t ordinal = 0;
    int found = -EBADMSG;
    if (good && t->plan.proto == TP_PING_PROTO_ICMP) {
        good = bytes >= TP_PING_ICMP_BYTES && at[0] == (v4 ? TP_ICMP4_REPLY : TP_ICMP6_REPLY) && at[1] == 0;
        if (good && t->is_raw && (at[4] != t->id >> 8 || at[5] != (uint8_t)t->id))
            return; /* another pinger's */
        /* Raw sockets get it before ICMP has looked at it. */
        good = good && !(v4 && t->is_raw && tp_ping_checksum(at, bytes));
        at += good ? TP_PING_ICMP_BYTES : 0;
        bytes -= good ? TP_PING_ICMP_BYTES : 0;
    }
    if (good)
        found = tp_ping_check(at, bytes, t->plan.bytes, t->plan.nonce, t->times, &ordinal, &reply.serial);
    if (reply.serial)
        reply.bound_ns = bound_ns(t);
    struct tp_ping_slot *slot = found == 0 ? tp_ping_window_find(&t->window, ordinal) : NULL;
    if (!slot) {
        tp_ring_count(t->ring, found == -EBADMSG ? TP_COUNT_PING_MALFORMED : TP_COUNT_PING_STRAY, 1);
        return;
    }
    /* Until the kernel has begun to stamp arrivals, a moment after it was asked to, it stamps what is read. */
    t->live |= reply.stamps.sw_ns && reply.stamps.sw_ns < before_read_ns;
    if (!t->live)
        reply.stamps.sw_ns = 0;
    tp_ping_window_reply(&t->window, slot, &reply);
}

/* One message; false: there is none. */
static bool read_one(struct tp_ping_target *t, int flags) {
    uint8_t control_bytes[CONTROL_BYTES];
    struct iovec into = {t->buffer, t->buffer_bytes};
    struct msghdr message = {
        .msg_iov = &into, .msg_iovlen = 1, .msg_control = control_bytes, .msg_controllen = sizeof control_bytes};
    struct tp_control control;
    int64_t before_ns = realtime_ns();
    ssize_t bytes = recvmsg(t->fd, &message, flags | MSG_DONTWAIT);
    if (bytes < 0)
        return errno == EINTR || (errno != EAGAIN && !(flags & MSG_ERRQUEUE)); /* an error told here is queued too */
    if (tp_control_parse(control_bytes, message.msg_controllen, &control)) {
        tp_ring_count(t->ring, TP_COUNT_PING_MALFORMED, 1);
        return true;
    }
    bool cut = message.msg_flags & MSG_TRUNC;
    if (!(flags & MSG_ERRQUEUE)) {
        if (cut || !take_times(t, (uint32_t)bytes))
            take_reply(t, (uint32_t)bytes, cut, &control, before_ns);
    } else if (control.has_error && control.origin == TP_ORIGIN_TIMESTAMPING)
        take_stamp(t, &control);
    else if (control.has_error)
        take_error(t, &control, (uint32_t)bytes);
    return true;
}

/* Stamps of sending first, so that a reply finds them there. */
static void drain(struct tp_ping_target *t) {
    while (read_one(t, MSG_ERRQUEUE))
        ;
    while (read_one(t, 0))
        ;
    while (read_one(t, MSG_ERRQUEUE))
        ;
}

void tp_ping_target_finish(struct tp_ping_target *t) {
    if (t->fd >= 0)
        drain(t);
    tp_ping_window_expire(&t->window, tp_monotonic_ns());
}

void tp_ping_target_work(struct tp_ping_target *t, bool readable) {
    int64_t now_ns = tp_monotonic_ns();
    /* What came in time may still lie unread. */
    if (t->fd >= 0 && (readable || tp_ping_window_due(&t->window) <= now_ns))
        drain(t);
    tp_ping_window_expire(&t->window, now_ns);
    send_due(t);
    if (all_sent(t)) /* the last may have failed at once */
        tp_ping_window_expire(&t->window, now_ns);
    if (all_sent(t) && !t->settled_ns && t->window.oldest == t->window.next)
        t->settled_ns = tp_monotonic_ns();
}
