/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* struct in6_pktinfo */
#include "probes/ping/echo.h"

#include "probes/ping/split.h"
#include "probes/ping/stamping.h"

#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

#define MOST_BYTES 65536
#define BATCH 64
/* A NIC's stamp of leaving comes a moment after the kernel's; so long it is waited for, or whichever is missing. */
#define HOLD_NS INT64_C(10000000)
#define CONTROL_BYTES 512

static int prepare(int fd, const struct sockaddr_storage *address) {
    int yes = 1, no = 0;
    bool v4 = address->ss_family == AF_INET;
    /* An answer leaves by the address that was asked. */
    if (setsockopt(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_PKTINFO : IPV6_RECVPKTINFO, &yes, sizeof yes))
        return -errno;
    if (!v4 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no))
        return -errno;
    socklen_t bytes = v4 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    return bind(fd, (const struct sockaddr *)address, bytes) ? -errno : 0;
}

int tp_ping_echo_open(struct tp_ping_echo *e, const struct sockaddr_storage *address) {
    *e = (struct tp_ping_echo){.fd = socket(address->ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (e->fd < 0)
        return -errno;
    e->host = tp_ping_host();
    int error = prepare(e->fd, address);
    if (error)
        tp_ping_echo_close(e);
    else
        e->stamped = tp_ping_ask_stamps(e->fd, false);
    return error;
}

void tp_ping_echo_close(struct tp_ping_echo *e) {
    if (e->fd >= 0)
        close(e->fd);
    e->fd = -1;
}

static int64_t realtime_ns(void) {
    return tp_clock_ns(CLOCK_REALTIME);
}

static int64_t bound_ns(void) {
    struct tp_clock_status status;
    (void)tp_clock_status_read(&status); /* a failure says: not known */
    return status.max_error_ns;
}

static void add_control(uint8_t *at, uint32_t *used, int level, int type, const void *payload, uint32_t bytes) {
    const struct cmsghdr head = {.cmsg_len = CMSG_LEN(bytes), .cmsg_level = level, .cmsg_type = type};
    memset(at + *used, 0, CMSG_SPACE(bytes));
    memcpy(at + *used, &head, sizeof head);
    memcpy(at + *used + CMSG_LEN(0), payload, bytes);
    *used += (uint32_t)CMSG_SPACE(bytes);
}

/* Of the control messages that came the local address, which is what a sender may say, without the interface unless the
 * address means nothing without it. */
static void answer_from(struct tp_ping_answer *a, const uint8_t *control, size_t bytes) {
    struct tp_control_message message;
    a->from_bytes = 0;
    while (tp_control_next(&control, &bytes, &message) > 0) {
        if (a->from_bytes)
            return;
        if (message.level == IPPROTO_IP && message.type == IP_PKTINFO && message.bytes == sizeof(struct in_pktinfo)) {
            struct in_pktinfo info;
            memcpy(&info, message.payload, sizeof info);
            info.ipi_ifindex = 0;
            add_control(a->from, &a->from_bytes, message.level, message.type, &info, sizeof info);
        } else if (message.level == IPPROTO_IPV6 && message.type == IPV6_PKTINFO &&
                   message.bytes == sizeof(struct in6_pktinfo)) {
            struct in6_pktinfo info;
            memcpy(&info, message.payload, sizeof info);
            if (!IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
                info.ipi6_ifindex = 0;
            add_control(a->from, &a->from_bytes, message.level, message.type, &info, sizeof info);
        }
    }
}

static bool send_to(int fd, struct tp_ping_answer *a, void *bytes, size_t size, bool stamp) {
    uint8_t control[TP_PING_FROM_BYTES + CMSG_SPACE(sizeof(uint32_t))] __attribute__((aligned(sizeof(size_t))));
    uint32_t used = a->from_bytes;
    const uint32_t flags = TP_PING_STAMP_SENT;
    memcpy(control, a->from, used);
    if (stamp)
        add_control(control, &used, SOL_SOCKET, TP_SO_TIMESTAMPING_OLD, &flags, sizeof flags);
    struct iovec from = {bytes, size};
    const struct msghdr message = {.msg_name = &a->peer,
                                   .msg_namelen = a->peer_bytes,
                                   .msg_iov = &from,
                                   .msg_iovlen = 1,
                                   .msg_control = used ? control : NULL,
                                   .msg_controllen = used};
    return sendmsg(fd, &message, MSG_DONTWAIT) == (ssize_t)size;
}

/* The oldest of those that wait: says of it what is known by now. */
static void tell_first(struct tp_ping_echo *e) {
    struct tp_ping_answer *a = &e->later[e->first++ % TP_PING_TOLD_LATER];
    int64_t from_ns = tp_monotonic_ns(), now_real_ns = realtime_ns(), to_ns = tp_monotonic_ns();
    int64_t bound_now_ns = bound_ns();
    struct tp_ping_far far = {.received_ns = a->received.sw_ns,
                              .monotonic_ns = a->before_ns,
                              .nic_turn_ns = -1,
                              .bound_ns = bound_now_ns > a->bound_ns ? bound_now_ns : a->bound_ns,
                              .host = e->host,
                              .serial = a->serial,
                              .source = TP_PING_SOURCE_SW};
    int64_t sent_ns = a->sent.sw_ns;
    if (sent_ns < a->before_real_ns || sent_ns > now_real_ns) {
        sent_ns = a->before_real_ns;
        far.source = TP_PING_SOURCE_SOCK;
    }
    if (!far.received_ns || far.received_ns > a->read_real_ns) {
        far.received_ns = a->read_real_ns;
        sent_ns = a->before_real_ns;
        far.source = TP_PING_SOURCE_APP;
    }
    far.turn_ns = sent_ns - far.received_ns;
    /* A clock that was set in between by more than it is steered says nothing of the turn. What passed is known as well
     * as nobody came between the readings of the two clocks. */
    int64_t least_ns = from_ns - a->read_to_ns, most_ns = to_ns - a->read_from_ns;
    int64_t shown_ns = now_real_ns - a->read_real_ns, slack_ns = tp_ping_slack(most_ns);
    if (shown_ns < least_ns - slack_ns || shown_ns > most_ns + slack_ns)
        far.turn_ns = -1;
    if (a->received.hw_ns && a->sent.hw_ns)
        far.nic_turn_ns = a->sent.hw_ns - a->received.hw_ns;
    struct tp_ping_times times;
    tp_ping_times_fill(&times, a->nonce, a->ordinal, &far);
    e->told += send_to(e->fd, a, &times, sizeof times, false);
}

/* Those that nothing more is to come of, and where the room is wanted or its patience is over, the others before them.
 */
static void tell(struct tp_ping_echo *e, int64_t now_ns) {
    while (e->first != e->next) {
        const struct tp_ping_answer *a = &e->later[e->first % TP_PING_TOLD_LATER];
        bool whole = !e->stamped || (a->sent.sw_ns && (a->sent.hw_ns || !a->received.hw_ns));
        if (!whole && now_ns - a->before_ns < HOLD_NS && e->next - e->first < TP_PING_TOLD_LATER)
            return;
        tell_first(e);
    }
}

static void take_sent(struct tp_ping_echo *e, const struct tp_control *control) {
    if (!control->has_error || control->origin != TP_ORIGIN_TIMESTAMPING || control->info)
        return;
    for (uint64_t i = e->first; i != e->next; i++) {
        struct tp_ping_answer *a = &e->later[i % TP_PING_TOLD_LATER];
        if (a->key != control->data)
            continue;
        if (control->stamps.sw_ns)
            a->sent.sw_ns = control->stamps.sw_ns;
        if (control->stamps.hw_ns)
            a->sent.hw_ns = control->stamps.hw_ns;
    }
}

static void drain_stamps(struct tp_ping_echo *e) {
    uint8_t control_bytes[CONTROL_BYTES], nothing[1];
    for (;;) {
        struct iovec into = {nothing, sizeof nothing};
        struct msghdr message = {
            .msg_iov = &into, .msg_iovlen = 1, .msg_control = control_bytes, .msg_controllen = sizeof control_bytes};
        struct tp_control control;
        if (recvmsg(e->fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
            return;
        if (tp_control_parse(control_bytes, message.msg_controllen, &control) == 0)
            take_sent(e, &control);
    }
}

static bool is_request(const uint8_t *at, size_t bytes) {
    struct tp_ping_payload head;
    if (bytes < sizeof head)
        return false;
    memcpy(&head, at, sizeof head);
    return head.magic == TP_PING_MAGIC && head.version == 1 && head.type == TP_PING_REQUEST;
}

/* Makes an answer of the request in `buffer`, and sends it. */
static void answer(struct tp_ping_echo *e, struct tp_ping_answer *a, uint8_t *buffer, size_t bytes) {
    struct tp_ping_payload head;
    memcpy(&head, buffer, sizeof head);
    bool asks = head.times == TP_PING_ASKS_TIMES && bytes >= TP_PING_TIMES_BYTES;
    head.type = TP_PING_ANSWER;
    if (asks) {
        a->nonce = head.nonce;
        a->ordinal = head.ordinal;
        a->serial = e->serial = (uint16_t)(e->serial % (TP_PING_ASKS_TIMES - 1) + 1);
        a->bound_ns = bound_ns();
        a->key = e->keys;
        head.times |= a->serial;
    }
    memcpy(buffer, &head, sizeof head);
    a->before_real_ns = realtime_ns();
    a->before_ns = tp_monotonic_ns();
    if (send_to(e->fd, a, buffer, bytes, asks && e->stamped)) {
        e->answered++;
        e->next += asks;
        e->keys += asks && e->stamped;
        return;
    }
    e->unsent++;
    if (asks && e->stamped) {
        /* Whether the kernel gave it a number cannot be known: those that wait are told as they are. */
        while (e->first != e->next)
            tell_first(e);
        e->keys = 0;
        tp_ping_restart_stamps(e->fd, false);
    }
}

/* @return 1; 0: nothing is there; -errno */
static int answer_one(struct tp_ping_echo *e, uint8_t *buffer) {
    struct tp_ping_answer *a = &e->later[e->next % TP_PING_TOLD_LATER];
    uint8_t control_bytes[CONTROL_BYTES];
    struct iovec into = {buffer, MOST_BYTES};
    struct msghdr message = {.msg_name = &a->peer,
                             .msg_namelen = sizeof a->peer,
                             .msg_iov = &into,
                             .msg_iovlen = 1,
                             .msg_control = control_bytes,
                             .msg_controllen = sizeof control_bytes};
    struct tp_control control;
    int64_t before_ns = realtime_ns();
    ssize_t bytes = recvmsg(e->fd, &message, MSG_DONTWAIT);
    if (bytes < 0)
        return errno == EAGAIN ? 0 : errno == EINTR || errno == ECONNREFUSED ? 1 : -errno;
    a->read_from_ns = tp_monotonic_ns();
    a->read_real_ns = realtime_ns();
    a->read_to_ns = tp_monotonic_ns();
    if (!is_request(buffer, (size_t)bytes) || tp_control_parse(control_bytes, message.msg_controllen, &control) != 0) {
        e->ignored++;
        return 1;
    }
    a->peer_bytes = message.msg_namelen;
    a->received = control.stamps;
    a->sent = (struct tp_stamps){0};
    /* Until the kernel has begun to stamp arrivals, a moment after it was asked to, it stamps what is read. */
    e->live |= a->received.sw_ns && a->received.sw_ns < before_ns;
    if (!e->live)
        a->received.sw_ns = 0;
    answer_from(a, control_bytes, message.msg_controllen);
    answer(e, a, buffer, (size_t)bytes);
    return 1;
}

int tp_ping_echo_run(struct tp_ping_echo *e, int stop_fd) {
    static _Thread_local uint8_t buffer[MOST_BYTES];
    struct pollfd polled[] = {{.fd = e->fd, .events = POLLIN}, {.fd = stop_fd, .events = POLLIN}};
    for (;;) {
        if (poll(polled, 2, e->first == e->next ? -1 : (int)(HOLD_NS / 1000000)) < 0 && errno != EINTR)
            return -errno;
        if (polled[1].revents)
            return 0;
        int more = 1;
        for (int i = 0; i < BATCH && more > 0; i++) {
            more = answer_one(e, buffer);
            drain_stamps(e);
            tell(e, tp_monotonic_ns());
        }
        if (more < 0)
            return more;
    }
}
