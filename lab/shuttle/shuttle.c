/* SPDX-License-Identifier: Apache-2.0
 *
 * The truth wire's shuttle: makes two namespaces with a TAP in each, moves frames between them and logs every one.
 *
 * Standard output says "ready SERVER_NAMESPACE_FD CLIENT_NAMESPACE_FD" once both exist. Standard input takes single
 * bytes, 'a' to arm the faults and 'd' to disarm them, each answered by the same byte, and 'q' to end. It also ends
 * with its input, and with the process that started it; for any other reason it ends with one line on standard error.
 */
#define _GNU_SOURCE
#include "lab/shuttle/line.h"
#include "lab/shuttle/options.h"
#include "lab/shuttle/tap.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ETHERNET_BYTES 18u /* with one VLAN tag */
/* Frames of one direction before the other has its turn: short, so that neither waits long for the other. */
#define TURN_FRAMES 16

enum { SERVER, CLIENT, SIDES };
enum { POLL_INPUT = SIDES, POLL_PARENT, POLLS };

struct tp_shuttle {
    struct tp_options options;
    struct tp_log log;
    struct tp_tap taps[SIDES];
    struct tp_line lines[SIDES]; /* by the side where frames come from, which is enum tp_direction */
    int parent;
};

_Static_assert((int)TP_TO_CLIENT == (int)SERVER && (int)TP_TO_SERVER == (int)CLIENT, "a line starts at its index");

static int fail(const char *what, int error) {
    fprintf(stderr, "%s: %s\n", what, strerror(-error));
    return error;
}

static int start(struct tp_shuttle *shuttle) {
    const struct tp_options *options = &shuttle->options;
    /* A handle of the process, not PR_SET_PDEATHSIG: that one fires when the thread ends that started us. */
    shuttle->parent = (int)syscall(SYS_pidfd_open, (pid_t)options->parent_pid, 0);
    if (shuttle->parent < 0)
        return fail("cannot watch the parent process", -errno);
    if (prctl(PR_SET_TIMERSLACK, 1)) /* else every delay is 50 us longer */
        return fail("cannot set the timer slack", -errno);
    int error = tp_log_open(&shuttle->log, (int)options->log_fd);
    if (error)
        return fail("cannot map the log", error);

    static const char *const devices[SIDES] = {"tpserver", "tpclient"};
    for (int side = SERVER; side < SIDES; side++) {
        const char *what;
        error = tp_tap_open(&shuttle->taps[side], devices[side], options->gro, &what);
        if (error)
            return fail(what, error);
    }
    for (int side = SERVER; side < SIDES; side++) {
        struct tp_line *line = &shuttle->lines[side];
        line->from = shuttle->taps[side].fd;
        line->to = shuttle->taps[!side].fd;
        line->direction = (enum tp_direction)side;
        line->seed = options->seed;
        line->faults = &options->faults[side];
        line->log = &shuttle->log;
        error = tp_line_open(line, (uint32_t)options->mtu_bytes + ETHERNET_BYTES);
        if (error)
            return fail("cannot allocate room for frames", error);
    }
    printf("ready %d %d\n", shuttle->taps[SERVER].namespace_fd, shuttle->taps[CLIENT].namespace_fd);
    return fflush(stdout) ? fail("cannot say that it is ready", -errno) : 0;
}

/* @return 1 to go on, 0 to end, or a negative errno. */
static int control(struct tp_shuttle *shuttle) {
    char command;
    ssize_t got = read(STDIN_FILENO, &command, 1);
    if (got <= 0)
        return got < 0 ? fail("cannot read standard input", -errno) : 0;
    if (command == 'q')
        return 0;
    if (command != 'a' && command != 'd')
        return fail("an unknown command on standard input", -EINVAL);
    for (int side = SERVER; side < SIDES; side++)
        shuttle->lines[side].armed = command == 'a';
    return write(STDOUT_FILENO, &command, 1) == 1 ? 1 : fail("cannot answer", -errno);
}

static int take_turns(struct tp_shuttle *shuttle, const struct pollfd *polls) {
    for (int side = SERVER; side < SIDES; side++) {
        struct tp_line *line = &shuttle->lines[side];
        if (!polls[side].revents)
            continue;
        int got = 1;
        for (int n = 0; n < TURN_FRAMES && got > 0 && tp_line_has_room(line); n++)
            got = tp_line_receive(line);
        if (got < 0)
            return fail("cannot go on with a frame", got);
    }
    return 0;
}

/* @return 0 when it was ended, else a negative errno. */
static int run(struct tp_shuttle *shuttle) {
    struct pollfd polls[POLLS] = {
        [POLL_INPUT] = {.fd = STDIN_FILENO, .events = POLLIN},
        [POLL_PARENT] = {.fd = shuttle->parent, .events = POLLIN},
    };
    for (;;) {
        int64_t next_ns = INT64_MAX;
        for (int side = SERVER; side < SIDES; side++) {
            struct tp_line *line = &shuttle->lines[side];
            int error = tp_line_release(line, &next_ns);
            if (error)
                return fail("cannot release a frame", error);
            polls[side] = (struct pollfd){.fd = tp_line_has_room(line) ? line->from : -1, .events = POLLIN};
        }
        int64_t wait_ns = next_ns - tp_now_ns(CLOCK_MONOTONIC);
        if (wait_ns < 0)
            wait_ns = 0;
        struct timespec wait = {.tv_sec = wait_ns / 1000000000, .tv_nsec = wait_ns % 1000000000};
        if (ppoll(polls, POLLS, next_ns == INT64_MAX ? NULL : &wait, NULL) < 0)
            return fail("cannot wait", -errno);
        if (polls[POLL_PARENT].revents)
            return 0;
        if (polls[POLL_INPUT].revents) {
            int going = control(shuttle);
            if (going <= 0)
                return going;
        }
        int error = take_turns(shuttle, polls);
        if (error)
            return error;
    }
}

static int finish(struct tp_shuttle *shuttle) {
    int first_error = 0;
    for (int side = SERVER; side < SIDES; side++) {
        if (!shuttle->lines[side].memory)
            continue;
        int error = tp_line_close(&shuttle->lines[side]);
        if (error && !first_error)
            first_error = fail("cannot log the frames that still waited", error);
    }
    tp_log_close(&shuttle->log);
    return first_error;
}

int main(int count, char **words) {
    static struct tp_shuttle shuttle;
    const char *wrong = "";
    int error = count ? tp_options_parse(&shuttle.options, words + 1, &wrong) : -EINVAL;
    if (error)
        return fail(wrong, error), 2;
    error = start(&shuttle);
    if (!error)
        error = run(&shuttle);
    int unlogged = finish(&shuttle);
    return error || unlogged;
}
