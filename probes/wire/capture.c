/* SPDX-License-Identifier: Apache-2.0
 *
 * The socket's ring on one side, the product's on the other.
 */
#include "capture.h"

#include <errno.h>

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/net_tstamp.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <arpa/inet.h>
#include <unistd.h>

#include "merging.h"
#include "tickpath/clock.h"
#include "tickpath/packet.h"

#define CLOCK_EVERY_NS INT64_C(250000000)
#define CLOCK_TRIES 8
#define EXPIRE_EVERY_NS INT64_C(1000000000)
/* How long the answer to "does this interface merge" is believed. */
#define MERGING_FOR_NS INT64_C(1000000000)
/* FIN, SYN, RST, PSH, URG */
#define GRO_PASSES 0x2fu

static int failed(const char *what, char *why, size_t why_bytes) {
    int error = -errno;
    snprintf(why, why_bytes, "%s: %s", what, strerror(-error));
    return error;
}

static int interface_state(int fd, const char *name, struct tp_wire_socket *wire, char *why, size_t why_bytes) {
    struct ifreq request = {0};
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (ioctl(fd, SIOCGIFINDEX, &request))
        return failed("SIOCGIFINDEX", why, why_bytes);
    wire->ifindex = (uint32_t)request.ifr_ifindex;
    if (ioctl(fd, SIOCGIFHWADDR, &request))
        return failed("SIOCGIFHWADDR", why, why_bytes);
    unsigned type = request.ifr_hwaddr.sa_family;
    wire->ethernet = type == ARPHRD_ETHER || type == ARPHRD_LOOPBACK;
    if (!wire->ethernet && type != ARPHRD_NONE && type != ARPHRD_RAWIP) {
        snprintf(why, why_bytes, "link type %u is neither Ethernet nor bare IP", type);
        return -EPROTONOSUPPORT;
    }
    if (ioctl(fd, SIOCGIFFLAGS, &request))
        return failed("SIOCGIFFLAGS", why, why_bytes);
    if (!(request.ifr_flags & IFF_UP)) {
        snprintf(why, why_bytes, "it is down");
        return -ENETDOWN;
    }
    return 0;
}

int tp_wire_state(const struct tp_wire_socket *wire) {
    struct tp_wire_socket now = *wire;
    char why[64];
    if (wire->fd < 0)
        return -EBADF;
    int error = interface_state(wire->fd, wire->interface, &now, why, sizeof(why));
    return now.ifindex == wire->ifindex ? error : -ENODEV;
}

static int set(int fd, int level, int option, int value) {
    return setsockopt(fd, level, option, &value, sizeof(value));
}

int tp_wire_open(struct tp_wire_socket *wire, const char *interface, const struct sock_fprog *ethernet,
                 const struct sock_fprog *bare, uint32_t buffer_bytes, uint32_t block_bytes, bool hardware, char *why,
                 size_t why_bytes) {
    int error;

    *wire = (struct tp_wire_socket){.fd = -1,
                                    .block_bytes = block_bytes,
                                    .blocks = buffer_bytes / block_bytes,
                                    .filling = TP_WIRE_NO_BLOCK,
                                    .straddling = TP_WIRE_NO_BLOCK};
    snprintf(wire->interface, sizeof(wire->interface), "%s", interface);
    /* Protocol 0: nothing comes in until bind, when filter and ring stand. */
    wire->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (wire->fd < 0)
        return failed("socket(AF_PACKET)", why, why_bytes);
    error = interface_state(wire->fd, interface, wire, why, why_bytes);
    if (error)
        goto cleanup;
    if (setsockopt(wire->fd, SOL_SOCKET, SO_ATTACH_FILTER, wire->ethernet ? ethernet : bare, sizeof(*ethernet))) {
        error = failed("SO_ATTACH_FILTER", why, why_bytes);
        goto cleanup;
    }
    /* Linux 4.20; before it the filter alone keeps outgoing frames out, a little later. */
    if (set(wire->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1) && errno != ENOPROTOOPT) {
        error = failed("PACKET_IGNORE_OUTGOING", why, why_bytes);
        goto cleanup;
    }
    /* This switches the stamping of received frames on, for the whole host; PACKET_TIMESTAMP only chooses among stamps.
     */
    if (set(wire->fd, SOL_SOCKET, SO_TIMESTAMPING,
            SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE |
                (hardware ? SOF_TIMESTAMPING_RX_HARDWARE | SOF_TIMESTAMPING_RAW_HARDWARE : 0))) {
        error = failed("SO_TIMESTAMPING", why, why_bytes);
        goto cleanup;
    }
    if (set(wire->fd, SOL_PACKET, PACKET_TIMESTAMP,
            SOF_TIMESTAMPING_SOFTWARE | (hardware ? SOF_TIMESTAMPING_RAW_HARDWARE : 0))) {
        error = failed("PACKET_TIMESTAMP", why, why_bytes);
        goto cleanup;
    }
    /* Under a bond or a VLAN, the NIC: its clock took the stamp. */
    if (hardware && set(wire->fd, SOL_PACKET, PACKET_ORIGDEV, 1)) {
        error = failed("PACKET_ORIGDEV", why, why_bytes);
        goto cleanup;
    }
    if (set(wire->fd, SOL_PACKET, PACKET_VERSION, TPACKET_V3)) {
        error = failed("PACKET_VERSION", why, why_bytes);
        goto cleanup;
    }
    /* Tells of a large frame how large its segments were. Only before the ring is made. */
    if (set(wire->fd, SOL_PACKET, PACKET_VNET_HDR, 1)) {
        error = failed("PACKET_VNET_HDR", why, why_bytes);
        goto cleanup;
    }
    const struct tpacket_req3 ring = {
        .tp_block_size = block_bytes,
        .tp_block_nr = wire->blocks,
        .tp_frame_size = 2048, /* V3 packs frames of any size; this only has to divide the block */
        .tp_frame_nr = block_bytes / 2048 * wire->blocks,
        .tp_retire_blk_tov = TP_WIRE_RETIRE_MS,
    };
    if (setsockopt(wire->fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof(ring))) {
        error = failed("PACKET_RX_RING", why, why_bytes);
        goto cleanup;
    }
    wire->map_bytes = (size_t)block_bytes * wire->blocks;
    void *map = mmap(NULL, wire->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, wire->fd, 0);
    if (map == MAP_FAILED) {
        error = failed("mmap", why, why_bytes);
        goto cleanup;
    }
    wire->map = map;
    const struct sockaddr_ll address = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)wire->ifindex};
    if (bind(wire->fd, (const struct sockaddr *)&address, sizeof(address))) {
        error = failed("bind", why, why_bytes);
        goto cleanup;
    }
    return 0;

cleanup:
    tp_wire_close(wire);
    return error;
}

void tp_wire_close(struct tp_wire_socket *wire) {
    if (wire->map)
        munmap(wire->map, wire->map_bytes);
    if (wire->fd >= 0)
        close(wire->fd);
    *wire = (struct tp_wire_socket){.fd = -1};
}

int tp_wire_soften(struct tp_wire *wire, struct tp_wire_socket *socket) {
    tp_wire_hardware_clear(&wire->hardware);
    wire->given_up = false;
    return set(socket->fd, SOL_PACKET, PACKET_TIMESTAMP, SOF_TIMESTAMPING_SOFTWARE) ? -errno : 0;
}

static const struct sockaddr_ll *link_of(const struct tpacket3_hdr *header) {
    return (const struct sockaddr_ll *)((const uint8_t *)header + TPACKET_ALIGN(sizeof(*header)));
}

/* What the stamp is, as the kernel says of this frame.
 *
 * tpacket_rcv (read in 6.18, the same since 4.x) flags a NIC's stamp and the kernel's own, taken at netif_receive_skb
 * or netif_rx; without either it reads the realtime clock itself and flags nothing. That happens to the first frames
 * after stamping was switched on, and to every TCP frame on loopback and veth: their skb still carries the sender's
 * pacing time, on another clock, which keeps the receive stamp out (6.x: skb_tstamp() is 0 where tstamp_type is not
 * realtime). The tap runs at stack entry, before IP, where sysctl netdev_tstamp_prequeue=0 would have stamped: that
 * reading is a software stamp by our definition, if a later one. It is used as such, and counted.
 *
 * `offset_ns`: of the stamp's clock to the monotonic one, about; left alone where it is not known. */
static bool stamp(const struct tp_wire *wire, const struct tpacket3_hdr *header, bool straddling,
                  struct tp_event *event, int64_t *offset_ns) {
    event->time_ns = (int64_t)header->tp_sec * INT64_C(1000000000) + header->tp_nsec;
    if (header->tp_status & TP_STATUS_TS_RAW_HARDWARE) {
        uint32_t ifindex = (uint32_t)link_of(header)->sll_ifindex;
        /* One that may be older than the reading before the last could hide a step: nobody is to convert it. */
        uint8_t clock = tp_wire_hardware_clock(&wire->hardware, ifindex, offset_ns);
        event->clock = straddling ? TP_CLOCK_NIC : clock;
        event->source = TP_SOURCE_HW;
        event->segment.ifindex = ifindex;
        return true;
    }
    *offset_ns = wire->offset_ns;
    event->clock = TP_CLOCK_REALTIME;
    event->source = TP_SOURCE_SW;
    return header->tp_status & TP_STATUS_TS_SOFTWARE;
}

static bool merges_now(struct tp_wire *wire, const struct tp_wire_socket *socket, int64_t now_ns) {
    if (now_ns > wire->merging_until_ns) {
        wire->merging = tp_wire_merging(socket->fd, socket->interface);
        wire->merging_until_ns = now_ns + MERGING_FOR_NS;
    }
    return wire->merging;
}

/* A large frame came in several where the interface merges. Where it does not (loopback; veth and tunnels with GRO off)
 * it is the sender's own: all its bytes were there at that one moment. Where it does, both look alike, and it is
 * flagged. A single segment may have waited for others as well, until GRO's flush, unless one of its flags sends it on
 * at once (tcp_gro_receive in net/ipv4/tcp_offload.c): the kernel's stamp of it is then the flush's too. */
static void merged(struct tp_wire *wire, const struct tp_wire_socket *socket, const struct tpacket3_hdr *header,
                   struct tp_event *event) {
    struct virtio_net_hdr offload;
    event->segment.segments = 1;
    memcpy(&offload, (const uint8_t *)header + header->tp_mac - sizeof(offload), sizeof(offload));
    bool large = offload.gso_type != VIRTIO_NET_HDR_GSO_NONE && offload.gso_size != 0;
    bool held = event->segment.length && !(event->segment.tcp_flags & GRO_PASSES) && event->source == TP_SOURCE_SW;
    if (!(large || held) || !merges_now(wire, socket, (int64_t)event->segment.seen_ns))
        return;
    if (!large) {
        event->source = TP_SOURCE_SW_GRO;
        return;
    }
    event->flags |= TP_SEGMENT_MERGED;
    event->source = event->source == TP_SOURCE_HW ? TP_SOURCE_HW_GRO : TP_SOURCE_SW_GRO;
    uint32_t segments = (event->segment.length + offload.gso_size - 1) / offload.gso_size;
    event->segment.segments = segments <= UINT16_MAX ? (uint16_t)segments : 0;
}

static int parse(const struct tp_wire_socket *socket, const struct tpacket3_hdr *header, struct tp_packet *packet) {
    const uint8_t *bytes = (const uint8_t *)header + header->tp_mac;
    if (socket->ethernet)
        return tp_packet_parse_ethernet(bytes, header->tp_snaplen, header->tp_len, packet);
    uint16_t protocol = ntohs(link_of(header)->sll_protocol);
    return tp_packet_parse_ethertype(bytes, header->tp_snaplen, header->tp_len, protocol, packet);
}

/* The card or the stack may have verified it already; what they leave to the socket is verified here where it was
 * captured whole. Merged frames, and those that never saw a wire, carry no checksum to verify (CSUMNOTREADY). */
static bool spoiled(const struct tpacket3_hdr *header, const struct tp_packet *packet) {
    if (header->tp_status & (TP_STATUS_CSUM_VALID | TP_STATUS_CSUMNOTREADY))
        return false;
    return tp_packet_tcp_checksum((const uint8_t *)header + header->tp_mac, packet) == TP_CHECKSUM_BAD;
}

/* One frame into one record; false: it is none of the selected ones. */
static bool take(struct tp_wire *wire, const struct tp_wire_socket *socket, const struct tpacket3_hdr *header,
                 int64_t seen_ns, bool straddling) {
    struct tp_event event = {.kind = TP_KIND_SEGMENT, .row = TP_ROW_NONE};
    struct tp_packet packet;

    int error = parse(socket, header, &packet);
    if (error == TP_PACKET_NOT_TCP)
        return false; /* behind IPv6 extension headers, where the filter does not look */
    if (error) {
        wire->frames++;
        tp_ring_count(wire->ring, error == TP_PACKET_FRAGMENT ? TP_COUNT_FRAMES_FRAGMENT : TP_COUNT_FRAMES_MALFORMED,
                      1);
        return true;
    }
    struct tp_wire_sighting sighting = {
        .seq = packet.seq, .length = packet.payload_length, .tcp_flags = packet.tcp_flags, .at_ns = seen_ns};
    memcpy(sighting.tuple.remote, packet.source, 16);
    memcpy(sighting.tuple.local, packet.destination, 16);
    sighting.tuple.remote_port = packet.source_port;
    sighting.tuple.local_port = packet.destination_port;
    if (!tp_wire_selected(wire->selectors, wire->selector_count, &sighting.tuple))
        return false;

    event.segment.ifindex = socket->ifindex;
    int64_t offset_ns = INT64_MIN;
    if (!stamp(wire, header, straddling, &event, &offset_ns))
        tp_ring_count(wire->ring, TP_COUNT_FRAMES_UNSTAMPED, 1);
    if (wire->hardware.nic_count) {
        bool stamped = event.source == TP_SOURCE_HW;
        wire->given_up |= tp_wire_hardware_missed(&wire->hardware, stamped, seen_ns);
        tp_ring_count(wire->ring, TP_COUNT_HW_MISSING, !stamped);
    }
    event.segment.frame = wire->frames++;
    event.segment.seen_ns = (uint64_t)seen_ns;
    event.segment.seq = packet.seq;
    event.segment.ack = packet.ack;
    event.segment.length = packet.payload_length;
    event.segment.tcp_flags = packet.tcp_flags;
    if (packet.payload_offset > header->tp_snaplen)
        event.flags |= TP_SEGMENT_CUT;
    merged(wire, socket, header, &event);

    if (offset_ns != INT64_MIN && event.time_ns - offset_ns < seen_ns)
        sighting.at_ns = event.time_ns - offset_ns;
    if (spoiled(header, &packet)) {
        event.flags |= TP_SEGMENT_BAD_CSUM;
        event.row = tp_wire_flows_row(&wire->flows, &sighting.tuple);
    } else {
        event.row = tp_wire_flow_row(tp_wire_flows_see(&wire->flows, &sighting));
    }
    tp_ring_write(wire->ring, &event);
    return true;
}

static struct tpacket_block_desc *block_at(const struct tp_wire_socket *socket, uint32_t number) {
    return (struct tpacket_block_desc *)(socket->map + (size_t)(number % socket->blocks) * socket->block_bytes);
}

static bool closed(struct tpacket_block_desc *block) {
    return __atomic_load_n(&block->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER;
}

static uint32_t closed_blocks(const struct tp_wire_socket *socket) {
    uint32_t count = 0;
    while (count < socket->blocks && closed(block_at(socket, socket->next + count)))
        count++;
    return count;
}

static void drain(struct tp_wire *wire, struct tp_wire_socket *socket, uint32_t blocks) {
    for (; blocks && closed(block_at(socket, socket->next)); blocks--) {
        struct tpacket_block_desc *block = block_at(socket, socket->next);
        /* After the kernel closed the block, so after every stamp in it. */
        int64_t seen_ns = tp_monotonic_ns();
        uint32_t count = block->hdr.bh1.num_pkts, taken = 0;
        const uint8_t *at = (const uint8_t *)block + block->hdr.bh1.offset_to_first_pkt;
        for (uint32_t i = 0; i < count; i++) {
            const struct tpacket3_hdr *header = (const struct tpacket3_hdr *)at;
            taken += take(wire, socket, header, seen_ns, socket->next == socket->straddling);
            at += header->tp_next_offset;
        }
        tp_ring_count(wire->ring, TP_COUNT_FRAMES, taken);
        __atomic_store_n(&block->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
        if (socket->next == socket->straddling)
            socket->straddling = TP_WIRE_NO_BLOCK;
        socket->next = (socket->next + 1) % socket->blocks;
    }
}

/* Reads the NICs' clocks, and then takes what had come before. A block is filled for TP_WIRE_RETIRE_MS, the pace is
 * longer: the frames of one that holds some over two readings nevertheless may be from before both. */
static void turn(struct tp_wire *wire, struct tp_wire_socket *socket, int64_t now_ns) {
    uint32_t blocks = closed_blocks(socket);
    uint32_t filling = (socket->next + blocks) % socket->blocks;
    bool held =
        blocks < socket->blocks && __atomic_load_n(&block_at(socket, filling)->hdr.bh1.num_pkts, __ATOMIC_RELAXED);
    if (held && filling == socket->filling && socket->filling_held)
        socket->straddling = filling;
    socket->filling = filling;
    socket->filling_held = held;
    tp_wire_hardware_read(&wire->hardware, wire->ring, now_ns);
    drain(wire, socket, blocks);
}

static void read_clocks(struct tp_wire *wire, int clock_fd) {
    struct tp_event events[2];
    if (tp_clock_records(clock_fd, CLOCK_TRIES, events))
        return; /* both clocks are always there */
    wire->offset_ns = events[0].time_ns - events[0].reading.before_ns / 2 - events[0].reading.after_ns / 2;
    tp_ring_write(wire->ring, &events[0]);
    tp_ring_write(wire->ring, &events[1]);
}

/* Reading them sets them to zero in the kernel. */
static void read_statistics(struct tp_wire *wire, const struct tp_wire_socket *socket) {
    struct tpacket_stats_v3 statistics;
    socklen_t bytes = sizeof(statistics);
    if (getsockopt(socket->fd, SOL_PACKET, PACKET_STATISTICS, &statistics, &bytes) == 0 && statistics.tp_drops)
        tp_ring_count(wire->ring, TP_COUNT_FRAMES_DROPPED, statistics.tp_drops);
}

static int socket_error(const struct tp_wire_socket *socket) {
    int error = 0;
    socklen_t bytes = sizeof(error);
    if (getsockopt(socket->fd, SOL_SOCKET, SO_ERROR, &error, &bytes))
        return -errno;
    return error == ENETDOWN && tp_wire_state(socket) == -ENODEV ? -ENODEV : -error;
}

int tp_wire_run(struct tp_wire *wire, struct tp_wire_socket *socket, int stop_fd, int clock_fd) {
    const struct tp_wire_hardware *hardware = &wire->hardware;
    int64_t clock_due_ns = 0, expiry_due_ns = 0;
    for (;;) {
        struct pollfd fds[3] = {{.fd = socket->fd, .events = POLLIN},
                                {.fd = stop_fd, .events = POLLIN},
                                {.fd = clock_fd, .events = POLLIN}};
        int64_t now_ns = tp_monotonic_ns();
        if (now_ns >= clock_due_ns) {
            read_clocks(wire, clock_fd);
            read_statistics(wire, socket);
            clock_due_ns = now_ns + CLOCK_EVERY_NS;
            if (tp_ring_writer_truncated(wire->ring))
                return -ESTALE;
        }
        if (now_ns >= expiry_due_ns) {
            tp_wire_flows_expire(&wire->flows, now_ns);
            expiry_due_ns = now_ns + EXPIRE_EVERY_NS;
        }
        int64_t until_ns = clock_due_ns;
        if (hardware->nic_count && now_ns < hardware->next_ns) {
            /* Frames wait until the clocks may be read again. */
            fds[0].events = 0;
            until_ns = hardware->next_ns < until_ns ? hardware->next_ns : until_ns;
        }
        if (poll(fds, 3, (int)((until_ns - now_ns) / 1000000) + 1) < 0 && errno != EINTR)
            return -errno;
        if (fds[2].revents)
            read_clocks(wire, clock_fd); /* it was set: at once, before more frames are read */
        if (!hardware->nic_count) {
            drain(wire, socket, socket->blocks);
        } else if ((now_ns = tp_monotonic_ns()) >= hardware->next_ns) {
            turn(wire, socket, now_ns);
        }
        if (wire->given_up)
            return -ENODATA;
        if (fds[0].revents & (POLLERR | POLLHUP | POLLNVAL)) {
            int error = socket_error(socket);
            if (error) {
                read_statistics(wire, socket);
                return error;
            }
        }
        if (fds[1].revents) {
            /* The block that fills now is handed over when its time is up. */
            usleep(2 * TP_WIRE_RETIRE_MS * 1000);
            if (hardware->nic_count)
                turn(wire, socket, tp_monotonic_ns());
            else
                drain(wire, socket, socket->blocks);
            read_statistics(wire, socket);
            return 0;
        }
    }
}
