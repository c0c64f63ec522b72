/* SPDX-License-Identifier: Apache-2.0
 *
 * The device by which the kernel has a port that DPDK owns: a persistent TAP, which keeps its addresses, routes and
 * connections while nobody forwards.
 *
 * Functions return 0 or a negative errno.
 */
#ifndef TICKPATH_DPDK_TAP_H
#define TICKPATH_DPDK_TAP_H

#include <stdbool.h>
#include <stdint.h>

#define TP_TAP_NAME_BYTES 16

struct tp_tap_settings {
    char name[TP_TAP_NAME_BYTES];
    uint8_t mac[6];
    uint32_t mtu_bytes;
    bool multi_queue; /* several loops, each with a descriptor of its own */
    bool keep_down;   /* somebody else sets it up */
};

/* A descriptor of the device (`*fd`), non-blocking, each frame behind a struct virtio_net_hdr. The device is made, if
 * it is not there, in the calling thread's network namespace; MAC and MTU are set where they differ. The kernel may
 * leave checksums to us, and segments itself. `*what` says which step failed. -EBUSY: another process has it; -EINVAL
 * from the attaching step: it is there and is no such TAP. */
int tp_tap_attach(const struct tp_tap_settings *, int *fd, const char **what);

/* Removes the device that the descriptor is attached to, once that is closed. */
int tp_tap_forget(int fd);

#endif
