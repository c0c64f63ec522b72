/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* struct in6_pktinfo */
#include "probes/ping/echo.h"

#include "probes/ping/packet.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <unistd.h>

#define MOST_BYTES 65536
#define BATCH 64

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
    int error = prepare(e->fd, address);
    if (error)
        tp_ping_echo_close(e);
    return error;
}

void tp_ping_echo_close(struct tp_ping_echo *e) {
    if (e->fd >= 0)
        close(e->fd);
    e->fd = -1;
}

/* Keeps of the control messages the local address, which is what a sender may say, and drops the interface unless the
 * address means nothing without it. */
static void answer_from(struct msghdr *message) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            info.ipi_ifindex = 0;
            memcpy(CMSG_DATA(c), &info, sizeof info);
        } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            if (!IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
                info.ipi6_ifindex = 0;
            memcpy(CMSG_DATA(c), &info, sizeof info);
        }
    }
}

static bool is_request(const uint8_t *at, size_t bytes) {
    struct tp_ping_payload head;
    if (bytes < sizeof head)
        return false;
    memcpy(&head, at, sizeof head);
    return head.magic == TP_PING_MAGIC && head.version == 1 && head.type == TP_PING_REQUEST;
}

/* @return 1; 0: nothing is there; -errno */
static int answer_one(struct tp_ping_echo *e, uint8_t *buffer) {
    struct sockaddr_storage peer;
    uint8_t control[256] __attribute__((aligned(sizeof(struct cmsghdr))));
    struct iovec into = {buffer, MOST_BYTES};
    struct msghdr message = {.msg_name = &peer,
                             .msg_namelen = sizeof peer,
                             .msg_iov = &into,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    ssize_t bytes = recvmsg(e->fd, &message, MSG_DONTWAIT);
    if (bytes < 0)
        return errno == EAGAIN ? 0 : errno == EINTR || errno == ECONNREFUSED ? 1 : -errno;
    if (!is_request(buffer, (size_t)bytes)) {
        e->ignored++;
        return 1;
    }
    buffer[offsetof(struct tp_ping_payload, type)] = TP_PING_ANSWER;
    into.iov_len = (size_t)bytes;
    message.msg_flags = 0;
    answer_from(&message);
    if (sendmsg(e->fd, &message, MSG_DONTWAIT) == bytes)
        e->answered++;
    else
        e->unsent++;
    return 1;
}

int tp_ping_echo_run(struct tp_ping_echo *e, int stop_fd) {
    static _Thread_local uint8_t buffer[MOST_BYTES];
    struct pollfd polled[] = {{.fd = e->fd, .events = POLLIN}, {.fd = stop_fd, .events = POLLIN}};
    for (;;) {
        if (poll(polled, 2, -1) < 0 && errno != EINTR)
            return -errno;
        if (polled[1].revents)
            return 0;
        int more = 1;
        for (int i = 0; i < BATCH && more > 0; i++)
            more = answer_one(e, buffer);
        if (more < 0)
            return more;
    }
}
