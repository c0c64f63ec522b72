/* SPDX-License-Identifier: Apache-2.0
 *
 * The loop: several targets, one thread, no clock but the monotonic one.
 */
#ifndef TICKPATH_PROBES_PING_PINGER_H
#define TICKPATH_PROBES_PING_PINGER_H

#include "probes/ping/target.h"

/* Pings until `stop_fd` is readable, or every target has had its count.
 * @return 0; -ESTALE: the ring's file was cut short; -errno of a failed call */
int tp_pinger_run(struct tp_ping_target *targets, uint32_t count, int stop_fd);

#endif
