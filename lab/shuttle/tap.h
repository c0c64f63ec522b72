/* SPDX-License-Identifier: Apache-2.0
 *
 * A network namespace without a name, and a TAP in it. Both live as long as a process holds them, and no longer: there
 * is nothing to remove, whoever is killed.
 */
#ifndef TICKPATH_LAB_SHUTTLE_TAP_H
#define TICKPATH_LAB_SHUTTLE_TAP_H

#include <stdbool.h>

struct tp_tap {
    int namespace_fd;
    int fd; /* reads and writes whole frames, never blocks */
};

/* Moves the calling thread into the new namespace. Segmentation and checksum offload are off: frames are wire-sized and
 * complete. With `gro`, frames written pass through NAPI and are merged as a NIC's would be; else each write delivers
 * its frame to the stack before it returns.
 * @return 0, or a negative errno with *what set to the step that failed. */
int tp_tap_open(struct tp_tap *tap, const char *device, bool gro, const char **what);

#endif
