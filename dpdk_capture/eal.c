/* SPDX-License-Identifier: Apache-2.0
 *
 * EAL is one per process by its own design, and so is the state here.
 */
#define _GNU_SOURCE
#include "dpdk_capture/eal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LOG_BYTES 8192

static struct {
    pthread_mutex_t lock;
    size_t used;
    char text[LOG_BYTES];
} kept = {.lock = PTHREAD_MUTEX_INITIALIZER};

static ssize_t keep(void *cookie, const char *text, size_t bytes) {
    (void)cookie;
    size_t take = bytes > LOG_BYTES ? LOG_BYTES : bytes;
    pthread_mutex_lock(&kept.lock);
    if (kept.used + take > LOG_BYTES) { /* the older half goes */
        size_t drop = kept.used + take - LOG_BYTES;
        drop = drop < LOG_BYTES / 2 && kept.used > LOG_BYTES / 2 ? LOG_BYTES / 2 : drop;
        memmove(kept.text, kept.text + drop, kept.used - drop);
        kept.used -= drop;
    }
    memcpy(kept.text + kept.used, text + bytes - take, take);
    kept.used += take;
    pthread_mutex_unlock(&kept.lock);
    return (ssize_t)bytes;
}

size_t tp_dpdk_log(char *out, size_t bytes) {
    if (bytes == 0)
        return 0;
    pthread_mutex_lock(&kept.lock);
    size_t length = kept.used < bytes - 1 ? kept.used : bytes - 1;
    memcpy(out, kept.text + kept.used - length, length);
    pthread_mutex_unlock(&kept.lock);
    out[length] = '\0';
    return length;
}

/* A standard stream belongs to whoever runs the command: what EAL prints there goes to a file in memory meanwhile. */
struct diverted {
    int stream;
    int saved;
    int into;
};

static struct diverted divert(int stream) {
    struct diverted d = {.stream = stream, .saved = fcntl(stream, F_DUPFD_CLOEXEC, 3), .into = -1};
    d.into = memfd_create("tickpath-eal", MFD_CLOEXEC);
    if (d.saved >= 0 && d.into >= 0)
        dup2(d.into, stream);
    return d;
}

static void restore(const struct diverted *d) {
    char text[1024];
    ssize_t bytes;
    if (d->saved >= 0) {
        dup2(d->saved, d->stream);
        close(d->saved);
    }
    if (d->into < 0)
        return;
    /* Its usage, hundreds of lines of standard output, is of no use to the operator of another command. */
    lseek(d->into, 0, SEEK_SET);
    while (d->stream == STDERR_FILENO && (bytes = read(d->into, text, sizeof(text))) > 0)
        keep(NULL, text, (size_t)bytes);
    close(d->into);
}

int tp_dpdk_start(int argc, char *const *argv) {
    static bool tried;
    if (tried)
        return -EALREADY;
    /* EAL keeps and permutes them. */
    char **copies = calloc((size_t)argc + 1, sizeof(*copies));
    if (!copies)
        return -ENOMEM;
    for (int i = 0; i < argc; i++) {
        copies[i] = strdup(argv[i]);
        if (!copies[i])
            return -ENOMEM;
    }
    const cookie_io_functions_t functions = {.write = keep};
    FILE *stream = fopencookie(NULL, "w", functions);
    if (!stream)
        return -ENOMEM;
    setvbuf(stream, NULL, _IOLBF, 1024);
    rte_openlog_stream(stream);

    cpu_set_t before;
    bool known = sched_getaffinity(0, sizeof(before), &before) == 0;
    tried = true;
    fflush(NULL);
    struct diverted out = divert(STDOUT_FILENO), err = divert(STDERR_FILENO);
    rte_errno = 0;
    int taken = rte_eal_init(argc, copies);
    int error = taken >= 0 ? 0 : rte_errno ? -rte_errno : -EINVAL;
    fflush(NULL);
    restore(&out);
    restore(&err);
    if (known)
        sched_setaffinity(0, sizeof(before), &before);
    return error;
}

int tp_dpdk_thread_join(void) {
    return rte_thread_register() == 0 ? 0 : -rte_errno;
}

void tp_dpdk_thread_leave(void) {
    rte_thread_unregister();
}
