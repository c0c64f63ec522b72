/* SPDX-License-Identifier: Apache-2.0 */
#include "probes/ping/pinger.h"

#include "tickpath/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define EVENTS 64
#define STOP UINT32_MAX
#define TIMER (UINT32_MAX - 1)
/* Until the kernel has begun to stamp arrivals, which it does a moment after it was asked to. */
#define SETTLE_NS INT64_C(5000000)

static int watch(int epoll, int fd, uint32_t index) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = index};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

static int set_timer(int timer, int64_t due_ns) {
    struct itimerspec at = {.it_value = {due_ns / 1000000000, due_ns % 1000000000}};
    return timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL) ? -errno : 0;
}

static int64_t work(struct tp_ping_target *targets, uint32_t count) {
    int64_t due_ns = INT64_MAX;
    for (uint32_t i = 0; i < count; i++) {
        tp_ping_target_work(&targets[i], false);
        int64_t its_ns = tp_ping_target_due(&targets[i]);
        due_ns = its_ns < due_ns ? its_ns : due_ns;
    }
    return due_ns;
}

static int loop(struct tp_ping_target *targets, uint32_t count, int epoll, int timer) {
    struct epoll_event events[EVENTS];
    int64_t due_ns;
    while ((due_ns = work(targets, count)) != INT64_MAX) {
        int error = set_timer(timer, due_ns);
        if (error)
            return error;
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        if (ready < 0 && errno != EINTR)
            return -errno;
        for (int i = 0; i < ready; i++) {
            uint32_t index = (uint32_t)events[i].data.u64, place = (uint32_t)(events[i].data.u64 >> 32);
            if (index == STOP)
                return 0;
            if (index == TIMER)
                continue;
            if (place)
                tp_ping_target_attempt(&targets[index], place - 1);
            else
                tp_ping_target_work(&targets[index], true);
        }
        if (tp_ring_writer_truncated(targets[0].ring))
            return -ESTALE;
    }
    return 0;
}

int tp_pinger_run(struct tp_ping_target *targets, uint32_t count, int stop_fd) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    int error = epoll < 0 || timer < 0 ? -errno : 0;
    if (!error)
        error = watch(epoll, stop_fd, STOP);
    if (!error)
        error = watch(epoll, timer, TIMER);
    int64_t now_ns = tp_monotonic_ns() + SETTLE_NS;
    for (uint32_t i = 0; i < count && !error; i++) {
        tp_ping_target_begin(&targets[i], epoll, i, now_ns);
        if (targets[i].fd >= 0)
            error = watch(epoll, targets[i].fd, i);
    }
    if (!error)
        error = loop(targets, count, epoll, timer);
    for (uint32_t i = 0; i < count && !error; i++)
        tp_ping_target_finish(&targets[i]);
    if (timer >= 0)
        close(timer);
    if (epoll >= 0)
        close(epoll);
    return error;
}
