/* SPDX-License-Identifier: Apache-2.0
 *
 * Any sightings of a few connections in the wire probe's table: it stays bounded, a row is named only while it is open,
 * and in the end every row is given back.
 */
#include "fuzz.h"
#include "tickpath/wire_flows.h"

#include <unistd.h>

#define ROWS 4

static char path[64];

static void forget(void) {
    unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    static struct tp_ring_writer ring;
    struct input input = {bytes, size};
    struct tp_wire_flows flows;
    int64_t now_ns = 1;
    char why[256];
    if (!path[0]) {
        snprintf(path, sizeof(path), "/dev/shm/tickpath-fuzz-wire-%d.ring", (int)getpid());
        atexit(forget);
        must(tp_ring_create(&ring, path, "wire", 16, ROWS, why, sizeof(why)) == 0, "a ring is made");
    }
    must(tp_wire_flows_create(&flows, &ring, ROWS, 1) == 0, "a table is made");
    while (input.left) {
        struct tp_wire_sighting seen;
        memset(&seen, 0, sizeof(seen));
        seen.tuple.remote[15] = (uint8_t)take_number(&input, 1) & 15;
        seen.tuple.remote_port = 443;
        seen.tcp_flags = (uint8_t)take_number(&input, 1);
        seen.seq = (uint32_t)take_number(&input, 4);
        seen.length = (uint32_t)take_number(&input, 2);
        uint64_t pause = take_number(&input, 2);
        now_ns += (int64_t)(pause & 0x8000 ? pause * 100000000 : pause * 1000);
        seen.at_ns = now_ns - (int64_t)(pause & 0xff);
        uint32_t row = tp_wire_flow_row(tp_wire_flows_see(&flows, &seen));
        must(row == TP_ROW_NONE || (tp_row_index(row) < ROWS && ring.row_table[tp_row_index(row)].state == TP_ROW_OPEN),
             "a row that is named is open");
        must(tp_wire_flows_row(&flows, &seen.tuple) == row, "and found again");
        if (pause & 1)
            tp_wire_flows_expire(&flows, now_ns);
        must(flows.used <= flows.limit, "the table is bounded");
    }
    tp_wire_flows_expire(&flows, now_ns + 2 * TP_WIRE_IDLE_NS);
    must(flows.used == 0, "everything ends");
    for (uint32_t row = 0; row < ROWS; row++)
        must(ring.row_table[row].state != TP_ROW_OPEN, "and gives its row back");
    tp_wire_flows_destroy(&flows);
    return 0;
}
