/* SPDX-License-Identifier: Apache-2.0
 *
 * Whether an interface merges received segments into larger frames: GRO, LRO, or the NIC's own GRO.
 */
#ifndef TICKPATH_WIRE_MERGING_H
#define TICKPATH_WIRE_MERGING_H

#include <stdbool.h>

/* `fd`: any socket. True also where the interface does not say. Takes the kernel's network lock: not for every frame.
 */
bool tp_wire_merging(int fd, const char *interface);

#endif
