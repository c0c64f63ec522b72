# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3
"""Python face of packet.h; the public name is tickpath.packet."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport UINT32_MAX, uint8_t, uint16_t, uint32_t


cdef extern from "tickpath/packet.h" nogil:
    enum:
        TP_PACKET_TRUNCATED_ETHERNET
        TP_PACKET_TRUNCATED_VLAN
        TP_PACKET_TRUNCATED_IP
        TP_PACKET_TRUNCATED_TCP
        TP_PACKET_NOT_IP
        TP_PACKET_NOT_TCP
        TP_PACKET_FRAGMENT
        TP_PACKET_MALFORMED_IP
        TP_PACKET_MALFORMED_TCP
        TP_PACKET_TOO_DEEP
        TP_CHECKSUM_UNKNOWN
        TP_CHECKSUM_GOOD
        TP_CHECKSUM_BAD

    struct tp_packet:
        uint8_t source[16]
        uint8_t destination[16]
        uint16_t source_port
        uint16_t destination_port
        uint32_t seq
        uint32_t ack
        uint16_t window
        uint8_t tcp_flags
        uint8_t version
        uint32_t ip_offset
        uint32_t tcp_offset
        uint32_t payload_offset
        uint32_t payload_length
        uint32_t payload_captured
        uint16_t vlan_ids[2]
        uint8_t vlans
        bint cut
        bint big
        bint routed

    int tp_packet_parse_ethertype(const uint8_t *bytes, uint32_t captured, uint32_t original, uint16_t ethertype,
                                  tp_packet *packet)
    int tp_packet_parse_ethernet(const uint8_t *bytes, uint32_t captured, uint32_t original, tp_packet *packet)
    int tp_packet_ip_checksum(const uint8_t *bytes, const tp_packet *packet)
    int tp_packet_tcp_checksum(const uint8_t *bytes, const tp_packet *packet)


TRUNCATED_ETHERNET = TP_PACKET_TRUNCATED_ETHERNET
TRUNCATED_VLAN = TP_PACKET_TRUNCATED_VLAN
TRUNCATED_IP = TP_PACKET_TRUNCATED_IP
TRUNCATED_TCP = TP_PACKET_TRUNCATED_TCP
NOT_IP = TP_PACKET_NOT_IP
NOT_TCP = TP_PACKET_NOT_TCP
FRAGMENT = TP_PACKET_FRAGMENT
MALFORMED_IP = TP_PACKET_MALFORMED_IP
MALFORMED_TCP = TP_PACKET_MALFORMED_TCP
TOO_DEEP = TP_PACKET_TOO_DEEP
CHECKSUM_UNKNOWN = TP_CHECKSUM_UNKNOWN
CHECKSUM_GOOD = TP_CHECKSUM_GOOD
CHECKSUM_BAD = TP_CHECKSUM_BAD


def parse(const uint8_t[::1] frame not None, ethertype, original_bytes):
    """Return the error code, or the fields of tickpath.packet.Packet in their order.

    `ethertype` None: an Ethernet frame; else `frame` begins behind that ethertype. Raises ValueError when
    `original_bytes` is below what was captured or beyond 32 bits.
    """
    cdef uint8_t nothing = 0
    cdef Py_ssize_t captured = frame.shape[0]
    cdef const uint8_t *bytes = &frame[0] if captured else &nothing
    if not captured <= original_bytes <= UINT32_MAX:
        raise ValueError(f"original_bytes {original_bytes} is not within the {captured} captured and 2^32 - 1")
    cdef tp_packet packet
    cdef int error
    if ethertype is None:
        error = tp_packet_parse_ethernet(bytes, <uint32_t>captured, original_bytes, &packet)
    else:
        error = tp_packet_parse_ethertype(bytes, <uint32_t>captured, original_bytes, ethertype, &packet)
    if error:
        return error
    return (
        PyBytes_FromStringAndSize(<const char *>packet.source, 16),
        PyBytes_FromStringAndSize(<const char *>packet.destination, 16),
        packet.source_port,
        packet.destination_port,
        packet.seq,
        packet.ack,
        packet.window,
        packet.tcp_flags,
        packet.version,
        packet.ip_offset,
        packet.tcp_offset,
        packet.payload_offset,
        packet.payload_length,
        packet.payload_captured,
        tuple([packet.vlan_ids[i] for i in range(packet.vlans)]),
        packet.cut,
        packet.big,
        packet.routed,
        tp_packet_ip_checksum(bytes, &packet),
        tp_packet_tcp_checksum(bytes, &packet),
    )
