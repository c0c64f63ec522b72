/* SPDX-License-Identifier: Apache-2.0
 *
 * The thread that polls.
 */
#define _GNU_SOURCE /* names of threads */
#include "exporter/correlator/drain.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

struct tp_drain {
    struct tp_correlator *correlator;
    struct tp_drain_pace pace;
    pthread_t thread;
    atomic_bool stopping;
    pthread_mutex_t lock; /* of the state */
    struct tp_drain_state state;
};

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void note(struct tp_drain *d) {
    int64_t now = now_ns();
    pthread_mutex_lock(&d->lock);
    if (d->state.last_ns)
        tp_histogram_observe(&d->state.intervals, now - d->state.last_ns);
    d->state.last_ns = now;
    pthread_mutex_unlock(&d->lock);
}

static void *run(void *argument) {
    struct tp_drain *d = argument;
    int64_t rest_ns = d->pace.busy_ns;
    while (!atomic_load_explicit(&d->stopping, memory_order_relaxed)) {
        note(d);
        uint64_t taken = tp_correlator_poll(d->correlator, -1);
        if (taken >= d->pace.behind_records)
            continue;
        rest_ns = taken ? d->pace.busy_ns : rest_ns * 2 < d->pace.idle_ns ? rest_ns * 2 : d->pace.idle_ns;
        const struct timespec rest = {rest_ns / INT64_C(1000000000), rest_ns % INT64_C(1000000000)};
        clock_nanosleep(CLOCK_MONOTONIC, 0, &rest, NULL);
    }
    return NULL;
}

int tp_drain_start(struct tp_correlator *correlator, const struct tp_drain_pace *pace, struct tp_drain **out) {
    struct tp_drain *d = calloc(1, sizeof *d);
    if (!d)
        return -ENOMEM;
    d->correlator = correlator;
    d->pace = *pace;
    tp_histogram_reset(&d->state.intervals);
    pthread_mutex_init(&d->lock, NULL);
    /* Signals are for the threads of the program that started this one. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&d->thread, NULL, run, d);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        pthread_mutex_destroy(&d->lock);
        free(d);
        return -error;
    }
    pthread_setname_np(d->thread, "tp-drain");
    *out = d;
    return 0;
}

void tp_drain_stop(struct tp_drain *d) {
    atomic_store_explicit(&d->stopping, true, memory_order_relaxed);
    pthread_join(d->thread, NULL);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

void tp_drain_look(struct tp_drain *d, struct tp_drain_state *out) {
    pthread_mutex_lock(&d->lock);
    *out = d->state;
    pthread_mutex_unlock(&d->lock);
}
