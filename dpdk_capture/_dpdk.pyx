# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3
"""The poll loops for Python: EAL, one port, one object per queue, which runs in a thread of its own without the GIL."""

from libc.stdint cimport int16_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from tickpath._ring cimport RingWriter, tp_ring_writer
from tickpath._wire_flows cimport (
    fill_selectors, tp_wire_flows, tp_wire_flows_create, tp_wire_flows_destroy, tp_wire_selector
)

import os

from tickpath.event import Source


cdef extern from "dpdk_capture/eal.h" nogil:
    int tp_dpdk_start(int argc, char **argv)
    size_t tp_dpdk_log(char *out, size_t bytes)
    int tp_dpdk_thread_join()
    void tp_dpdk_thread_leave()


cdef extern from "dpdk_capture/drivers.h" nogil:
    enum:
        TP_DPDK_READ_NONE
        TP_DPDK_READ_CLOCK
        TP_DPDK_READ_TIMESYNC
        TP_DPDK_READ_HOST

    struct tp_dpdk_driver:
        const char *name
        const char *unit
        const char *verified
        uint8_t bits
        uint8_t reading
        uint8_t source
        uint8_t advertised

    const tp_dpdk_driver *tp_dpdk_driver_at(size_t index)


cdef extern from "rte_mempool.h" nogil:
    struct rte_mempool:
        pass


cdef extern from "dpdk_capture/tap.h" nogil:
    struct tp_tap_settings:
        char name[16]
        uint8_t mac[6]
        uint32_t mtu_bytes
        bint multi_queue

    int tp_tap_attach(const tp_tap_settings *settings, int *fd, const char **what)


cdef extern from "dpdk_capture/exception.h" nogil:
    enum:
        TP_EXCEPTION_TX_OFFLOADS

    struct tp_exception:
        int error

    int tp_exception_open(tp_exception *exception, int fd, uint32_t mtu_bytes, uint64_t tx_offloads, rte_mempool *pool)
    void tp_exception_close(tp_exception *exception)


cdef extern from "dpdk_capture/port.h" nogil:
    struct tp_dpdk_port_config:
        uint16_t rx_queues
        uint16_t tx_queues
        uint16_t descriptors
        uint32_t buffers
        uint16_t mtu
        bint promiscuous
        bint stamps
        uint64_t tx_offloads
        uint8_t told_reading
        uint8_t told_bits

    struct tp_dpdk_port:
        uint16_t id
        uint16_t rx_queues
        uint16_t descriptors
        uint16_t mtu
        int16_t node
        uint32_t device
        uint64_t offloads_asked
        uint64_t offloads
        uint64_t tx_offloads
        uint8_t mac[6]
        rte_mempool *pool
        bint rss
        bint promiscuous
        char driver_name[64]

    struct tp_dpdk_port_counts:
        uint64_t received
        uint64_t missed
        uint64_t errors
        uint64_t no_buffers
        uint64_t sent
        uint64_t unsent
        bint up

    int tp_dpdk_port_open(tp_dpdk_port *port, const char *name, const tp_dpdk_port_config *config, char *why,
                          size_t why_bytes)
    void tp_dpdk_port_close(tp_dpdk_port *port)
    int tp_dpdk_port_count(const tp_dpdk_port *port, tp_dpdk_port_counts *out)


cdef extern from "dpdk_capture/stamps.h" nogil:
    struct tp_dpdk_stamps:
        const tp_dpdk_driver *driver
        uint64_t tsc_hz

    int tp_dpdk_stamps_open(tp_dpdk_stamps *stamps, const tp_dpdk_port *port, char *why, size_t why_bytes)


cdef extern from "dpdk_capture/loop.h" nogil:
    struct tp_dpdk_losses:
        uint64_t missed
        uint64_t errors
        uint64_t unsent

    struct tp_dpdk_loop:
        const tp_dpdk_port *port
        tp_dpdk_stamps *stamps
        tp_dpdk_losses *losses
        tp_ring_writer *ring
        tp_wire_flows flows
        const tp_wire_selector *selectors
        uint32_t selector_count
        uint16_t queue
        uint16_t burst
        uint32_t idle_sleep_us
        bint first
        tp_exception *exception
        bint stop

    void tp_dpdk_loop_prepare(tp_dpdk_loop *loop)
    int tp_dpdk_loop_run(tp_dpdk_loop *loop)


# Cython does not know C11's atomics.
cdef extern from *:
    """
    static inline void tp_dpdk_stop(struct tp_dpdk_loop *loop) {
        atomic_store_explicit(&loop->stop, true, memory_order_relaxed);
    }
    static inline void tp_dpdk_tell_losses(struct tp_dpdk_losses *losses, const struct tp_dpdk_port_counts *counts) {
        atomic_store_explicit(&losses->missed, counts->missed, memory_order_relaxed);
        atomic_store_explicit(&losses->errors, counts->errors + counts->no_buffers, memory_order_relaxed);
        atomic_store_explicit(&losses->unsent, counts->unsent, memory_order_relaxed);
    }
    """
    void tp_dpdk_stop(tp_dpdk_loop *loop) nogil
    void tp_dpdk_tell_losses(tp_dpdk_losses *losses, const tp_dpdk_port_counts *counts) nogil


cdef extern from "rte_ethdev.h" nogil:
    const char *rte_eth_dev_rx_offload_name(uint64_t offload)
    const char *rte_eth_dev_tx_offload_name(uint64_t offload)


cdef extern from "rte_version.h" nogil:
    const char *rte_version()


_READINGS = {
    TP_DPDK_READ_NONE: "",
    TP_DPDK_READ_CLOCK: "rte_eth_read_clock",
    TP_DPDK_READ_TIMESYNC: "rte_eth_timesync_read_time",
    TP_DPDK_READ_HOST: "clock_gettime",
}


_CALLS = {call: reading for reading, call in _READINGS.items()}


def version():
    return rte_version().decode()


def start(arguments):
    cdef int error
    words = [os.fsencode(word) for word in arguments]
    cdef char **argv = <char **>calloc(len(words) + 1, sizeof(char *))
    if argv == NULL:
        raise MemoryError
    try:
        for i, word in enumerate(words):
            argv[i] = word
        error = tp_dpdk_start(len(words), argv)
    finally:
        free(argv)
    if error:
        raise OSError(-error, os.strerror(-error))


def log_text():
    cdef char text[8192]
    cdef size_t length = tp_dpdk_log(text, sizeof(text))
    return text[:length].decode("utf-8", "replace")


def drivers():
    cdef const tp_dpdk_driver *driver
    found = []
    cdef size_t index = 0
    while True:
        driver = tp_dpdk_driver_at(index)
        if driver == NULL:
            return found
        found.append((
            driver.name.decode(),
            driver.unit.decode(),
            _READINGS[driver.reading],
            driver.bits,
            Source(driver.source).name.lower(),
            "" if driver.verified == NULL else driver.verified.decode(),
        ))
        index += 1


ctypedef const char *(*_namer)(uint64_t) noexcept nogil


cdef list _names(uint64_t offloads, _namer name):
    return [name(<uint64_t>1 << bit).decode().lower() for bit in range(64) if offloads >> bit & 1]


def attach_tap(str name not None, bytes mac not None, uint32_t mtu, bint multi_queue):
    cdef tp_tap_settings settings
    cdef const char *what = b""
    cdef int fd = -1
    cdef int error
    cdef bytes encoded = name.encode()
    if len(encoded) >= sizeof(settings.name) or len(mac) != 6:
        raise ValueError("a device's name has at most 15 bytes, its address 6")
    memset(&settings, 0, sizeof(settings))
    memcpy(settings.name, <const char *>encoded, len(encoded))
    memcpy(settings.mac, <const char *>mac, 6)
    settings.mtu_bytes = mtu
    settings.multi_queue = multi_queue
    with nogil:
        error = tp_tap_attach(&settings, &fd, &what)
    if error:
        raise OSError(-error, f"{what.decode()}: {os.strerror(-error)}")
    return fd


cdef class Port:
    cdef tp_dpdk_port port
    cdef tp_dpdk_stamps *stamps
    cdef tp_dpdk_losses *losses
    cdef readonly str name
    cdef readonly str no_stamps
    cdef bint is_open

    def __cinit__(self, str name not None, *, uint16_t queues, uint16_t tx_queues, uint16_t descriptors,
                  uint32_t buffers, uint16_t mtu, bint promiscuous, bint stamps, str stamp_call="",
                  uint8_t stamp_bits=64):
        cdef char why[512]
        cdef int error
        cdef bytes encoded = name.encode()
        cdef const char *raw = encoded
        cdef tp_dpdk_port_config config = tp_dpdk_port_config(
            rx_queues=queues, tx_queues=tx_queues, descriptors=descriptors, buffers=buffers, mtu=mtu,
            promiscuous=promiscuous, stamps=stamps, tx_offloads=TP_EXCEPTION_TX_OFFLOADS if tx_queues else 0,
            told_reading=_CALLS[stamp_call], told_bits=stamp_bits,
        )
        self.name = name
        self.no_stamps = ""
        self.stamps = <tp_dpdk_stamps *>calloc(1, sizeof(tp_dpdk_stamps))
        self.losses = <tp_dpdk_losses *>calloc(1, sizeof(tp_dpdk_losses))
        if self.stamps == NULL or self.losses == NULL:
            raise MemoryError
        with nogil:
            error = tp_dpdk_port_open(&self.port, raw, &config, why, sizeof(why))
        if error:
            raise OSError(-error, why.decode("utf-8", "replace"))
        self.is_open = True
        tp_dpdk_stamps_open(self.stamps, &self.port, why, sizeof(why))
        if stamps:
            self.no_stamps = why.decode("utf-8", "replace")

    def __dealloc__(self):
        if self.is_open:
            tp_dpdk_port_close(&self.port)
        free(self.stamps)
        free(self.losses)

    @property
    def driver(self):
        return self.port.driver_name.decode()

    @property
    def mac(self):
        return self.port.mac[:6]

    @property
    def tx_offloads(self):
        return _names(self.port.tx_offloads, rte_eth_dev_tx_offload_name)

    @property
    def descriptors(self):
        return self.port.descriptors

    @property
    def node(self):
        return self.port.node

    @property
    def device(self):
        return self.port.device

    @property
    def rss(self):
        return self.port.rss

    @property
    def promiscuous(self):
        return self.port.promiscuous

    @property
    def stamped(self):
        return self.stamps.driver != NULL

    @property
    def offloads(self):
        return _names(self.port.offloads, rte_eth_dev_rx_offload_name)

    @property
    def refused_offloads(self):
        return _names(self.port.offloads_asked & ~self.port.offloads, rte_eth_dev_rx_offload_name)

    def count(self):
        cdef tp_dpdk_port_counts counts
        cdef int error
        with nogil:
            error = tp_dpdk_port_count(&self.port, &counts)
        if error:
            raise OSError(-error, os.strerror(-error))
        tp_dpdk_tell_losses(self.losses, &counts)
        return counts.received, counts.missed, counts.errors + counts.no_buffers, counts.sent, counts.up

    def close(self):
        if self.is_open:
            self.is_open = False
            with nogil:
                tp_dpdk_port_close(&self.port)


cdef class Loop:
    cdef tp_dpdk_loop *loop
    cdef tp_wire_selector *selectors
    cdef tp_exception *exception
    cdef RingWriter ring
    cdef Port port
    cdef readonly int queue

    def __cinit__(self, Port port not None, RingWriter ring not None, selectors, *, uint16_t queue, uint16_t burst,
                  uint32_t idle_sleep_us, uint32_t rows, int tap=-1):
        cdef int error
        self.port = port
        self.ring = ring
        self.queue = queue
        self.selectors = <tp_wire_selector *>calloc(max(len(selectors), 1), sizeof(tp_wire_selector))
        self.loop = <tp_dpdk_loop *>calloc(1, sizeof(tp_dpdk_loop))
        if self.selectors == NULL or self.loop == NULL:
            raise MemoryError
        fill_selectors(self.selectors, selectors)
        self.loop.selectors = self.selectors
        self.loop.selector_count = <uint32_t>len(selectors)
        self.loop.port = &port.port
        self.loop.stamps = port.stamps
        self.loop.losses = port.losses
        self.loop.ring = ring.raw()
        self.loop.queue = queue
        self.loop.burst = burst
        self.loop.idle_sleep_us = idle_sleep_us
        self.loop.first = queue == 0
        error = tp_wire_flows_create(&self.loop.flows, ring.raw(), rows, 0)
        if error:
            raise OSError(-error, os.strerror(-error))
        if tap >= 0:
            self.exception = <tp_exception *>calloc(1, sizeof(tp_exception))
            if self.exception == NULL:
                raise MemoryError
            error = tp_exception_open(self.exception, tap, port.port.mtu, port.port.tx_offloads, port.port.pool)
            if error:
                raise OSError(-error, os.strerror(-error))
            self.loop.exception = self.exception

    def __dealloc__(self):
        if self.loop != NULL:
            tp_wire_flows_destroy(&self.loop.flows)
        free(self.exception)
        free(self.loop)
        free(self.selectors)

    def run(self):
        cdef int error
        self.ring.raw()
        with nogil:
            tp_dpdk_thread_join()
            tp_dpdk_loop_prepare(self.loop)
            error = tp_dpdk_loop_run(self.loop)
            tp_dpdk_thread_leave()
        return -error

    def stop(self):
        tp_dpdk_stop(self.loop)

    def close(self):
        if self.loop.exception != NULL:
            tp_exception_close(self.loop.exception)
            self.loop.exception = NULL
