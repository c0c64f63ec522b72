/* SPDX-License-Identifier: Apache-2.0
 *
 * DPDK's environment layer in this process: started once, its log kept, the calling thread left where it ran.
 */
#ifndef TICKPATH_DPDK_EAL_H
#define TICKPATH_DPDK_EAL_H

#include <stddef.h>

/* Starts it with these arguments (argv[0] is the program's name; all are copied, for it keeps them). EAL pins the
 * calling thread and prints its usage to standard output when it understands nothing: both are undone here,
 * and what it says to standard error joins its log.
 *
 * @return 0; -EALREADY: it was started before, and cannot be twice in a process; -errno of what failed, and
 *         tp_dpdk_log says what. */
int tp_dpdk_start(int argc, char *const *argv);

/* Copies the last of what EAL and the drivers logged, zero-terminated. @return its length. */
size_t tp_dpdk_log(char *out, size_t bytes);

/* Makes the calling thread known to DPDK, so that it has a cache of buffers of its own; nothing is lost but speed when
 * there is no room for it. @return 0 or -errno. Each thread that did so calls tp_dpdk_thread_leave. */
int tp_dpdk_thread_join(void);
void tp_dpdk_thread_leave(void);

#endif
