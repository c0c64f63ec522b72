/* SPDX-License-Identifier: Apache-2.0
 *
 * The wire probe's capture: an AF_PACKET socket's memory-mapped ring, read into SEGMENT records.
 *
 * TPACKET_V3, because of what the measured application would feel: packet taps run before TCP does, and a V2 ring wakes
 * its sleeping reader from there for every frame, which then waits (a 300-byte ping-pong on loopback, 8 us a round: 0.9
 * us more with this ring, 4 to 7 us more with a V2 ring whose reader sleeps). V3 wakes when a block is full or
 * TP_WIRE_RETIRE_MS have passed, from a timer. The stamps are taken before either and do not know of it.
 *
 * Functions return 0 or a negative errno unless they say otherwise.
 */
#ifndef TICKPATH_WIRE_CAPTURE_H
#define TICKPATH_WIRE_CAPTURE_H

#include <linux/filter.h>
#include <stdbool.h>

#include "hardware.h"
#include "tickpath/ring.h"
#include "tickpath/wire_flows.h"

/* A frame waits at most so long for the probe; the correlator waits a second for it. */
#define TP_WIRE_RETIRE_MS 4
/* Ethernet with two tags 22, IPv4 with options 60 (or IPv6 and extension headers 110), TCP with options 60. */
#define TP_WIRE_SNAP_BYTES 192

#define TP_WIRE_NAME_BYTES 16
#define TP_WIRE_NO_BLOCK UINT32_MAX

struct tp_wire_socket {
    int fd;
    uint8_t *map;
    size_t map_bytes;
    uint32_t block_bytes;
    uint32_t blocks;
    uint32_t next; /* the block that the kernel hands over next */
    uint32_t ifindex;
    char interface[TP_WIRE_NAME_BYTES];
    bool ethernet; /* frames start with an Ethernet header; else with IP */
    /* At the last reading of the NICs' clocks: the block that was being filled, and whether it held frames already. */
    uint32_t filling;
    bool filling_held;
    uint32_t straddling; /* a block that was being filled over two readings; TP_WIRE_NO_BLOCK: none */
};

struct tp_wire {
    struct tp_ring_writer *ring;
    struct tp_wire_flows flows;
    const struct tp_wire_selector *selectors;
    uint32_t selector_count;
    uint64_t frames;
    int64_t offset_ns; /* realtime - monotonic, by the last reading */
    bool merging;      /* what tp_wire_merging said, believed until then: */
    int64_t merging_until_ns;
    struct tp_wire_hardware hardware; /* NICs that stamp; none: the kernel does */
    bool given_up;                    /* they turned out to stamp nothing */
};

/* Opens a socket on `interface`, its filter the one for how frames start there (`ethernet`, or `bare` IP), with a ring
 * of `buffer_bytes` in blocks of `block_bytes` (a multiple of the page size). `hardware`: a NIC's stamp is taken before
 * the kernel's where a frame has one, and each frame tells by which NIC it came. -EPERM: CAP_NET_RAW is missing;
 * -ENODEV; -ENETDOWN; -EPROTONOSUPPORT: the interface carries neither Ethernet nor bare IP; -ENOMEM. `why` names the
 * call that failed. */
int tp_wire_open(struct tp_wire_socket *, const char *interface, const struct sock_fprog *ethernet,
                 const struct sock_fprog *bare, uint32_t buffer_bytes, uint32_t block_bytes, bool hardware, char *why,
                 size_t why_bytes);
void tp_wire_close(struct tp_wire_socket *);

/* 0: its interface is up, tp_wire_run captures. -ENETDOWN: it is down, and the kernel hooks the socket in again when it
 * comes up. -ENODEV: it is gone, whether or not another has its name; -EBADF: the socket is not open. */
int tp_wire_state(const struct tp_wire_socket *);

/* From now on the kernel's stamps are taken. */
int tp_wire_soften(struct tp_wire *, struct tp_wire_socket *);

/* Captures until `stop_fd` is readable (0; what the ring held by then is recorded), or the interface goes (-ENETDOWN,
 * -ENODEV), or something fails. -ENODATA: the NICs stamp nothing; go on after tp_wire_soften.
 *
 * While NICs stamp, their clocks are read before the frames of each turn are, and only frames are taken that had come
 * by then: every stamp lies before a reading that is already in the ring. What a turn finds waits for the clocks'
 * pace. `clock_fd`: from tp_clock_watch_open. */
int tp_wire_run(struct tp_wire *, struct tp_wire_socket *, int stop_fd, int clock_fd);

#endif
