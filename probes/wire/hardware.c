/* SPDX-License-Identifier: Apache-2.0
 *
 * Clocks of NICs, opened once each and read into the ring.
 */
#include "hardware.h"

#include <errno.h>
#include <string.h>

/* Which one it is, or a negative errno. */
static int clock_open(struct tp_wire_hardware *hardware, uint32_t phc, const char *path, uint32_t samples) {
    uint32_t i = 0;
    while (i < hardware->phc_count && hardware->phcs[i].index != phc)
        i++;
    if (i < hardware->phc_count)
        return (int)i;
    int error = tp_phc_open(&hardware->phcs[i], path, phc, samples);
    hardware->phc_count += !error;
    return error ? error : (int)i;
}

int tp_wire_hardware_add(struct tp_wire_hardware *hardware, uint32_t ifindex, uint32_t phc, const char *path,
                         uint32_t samples, int64_t every_ns) {
    if (hardware->nic_count == TP_WIRE_NICS)
        return -ENOSPC;
    int which = clock_open(hardware, phc, path, samples);
    if (which < 0)
        return which;
    hardware->nics[hardware->nic_count++] = (struct tp_wire_nic){.ifindex = ifindex, .phc = (uint32_t)which};
    if (every_ns > hardware->every_ns)
        hardware->every_ns = every_ns;
    return 0;
}

void tp_wire_hardware_clear(struct tp_wire_hardware *hardware) {
    for (uint32_t i = 0; i < hardware->phc_count; i++)
        tp_phc_close(&hardware->phcs[i]);
    memset(hardware, 0, sizeof(*hardware));
}

void tp_wire_hardware_read(struct tp_wire_hardware *hardware, struct tp_ring_writer *ring, int64_t now_ns) {
    for (uint32_t i = 0; i < hardware->phc_count; i++) {
        struct tp_event event;
        if (tp_phc_record(&hardware->phcs[i], &event)) {
            tp_ring_count(ring, TP_COUNT_PHC_READ_FAILED, 1);
            continue;
        }
        hardware->offsets_ns[i] = event.time_ns - event.reading.before_ns / 2 - event.reading.after_ns / 2;
        tp_ring_write(ring, &event);
    }
    hardware->next_ns = now_ns + hardware->every_ns;
}
