/* SPDX-License-Identifier: Apache-2.0
 *
 * The other end of a UDP ping: sends a request back to where it came from, and answers nothing else.
 */
#ifndef TICKPATH_PROBES_PING_ECHO_H
#define TICKPATH_PROBES_PING_ECHO_H

#include <stdint.h>
#include <sys/socket.h>

struct tp_ping_echo {
    int fd;
    uint64_t answered;
    uint64_t ignored; /* not a request of ours: an answer, too, so that two of these never keep each other busy */
    uint64_t unsent;  /* answers that the kernel would not send */
};

/* Bound to `address`; port 0: any. @return 0 or -errno */
int tp_ping_echo_open(struct tp_ping_echo *, const struct sockaddr_storage *address);
/* Answers until `stop_fd` is readable. @return 0 or -errno */
int tp_ping_echo_run(struct tp_ping_echo *, int stop_fd);
void tp_ping_echo_close(struct tp_ping_echo *);

#endif
