/* SPDX-License-Identifier: Apache-2.0
 *
 * The ring: how a producer hands records to any number of readers in other processes and never waits for one.
 *
 * A ring is one file on tmpfs: a header page, a table of rows, the slots. It has one producer, which overwrites the
 * oldest slot when it must; each reader keeps a cursor of its own and knows exactly how many records it lost. Records
 * are numbered from 1; a slot's `seq` tells which of them it holds, so that a reader needs no other shared word.
 *
 * The producer holds an open-file-description lock on the file as long as it lives: liveness is the lock, never a pid.
 * A successor under the same name goes on in the same file where its predecessor stopped, even if that was killed in
 * the middle of a record.
 *
 * What only happens once per ring or per connection is in ring.c; what happens per record is inline here.
 */
#ifndef TICKPATH_RING_H
#define TICKPATH_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tickpath/event.h"

#define TP_RING_MAGIC 0x485441504b434954ull /* "TICKPATH", little-endian */
#define TP_RING_HEADER_BYTES 4096u
#define TP_RING_NAME_BYTES 64
#define TP_RING_KIND_BYTES 16
#define TP_RING_SUFFIX ".ring"
#define TP_RING_MIN_CAPACITY 16u
#define TP_RING_MAX_CAPACITY (1u << 26)
#define TP_RING_MAX_ROWS 65535u

struct tp_ring_header {
    _Atomic uint64_t magic; /* stored last by the maker, so that half a header is never believed */
    uint32_t abi_version;
    uint32_t record_bytes;
    uint32_t row_bytes;
    uint32_t rows;
    uint64_t capacity; /* slots, a power of two */
    uint8_t boot_id[16];
    char name[TP_RING_NAME_BYTES];
    char kind[TP_RING_KIND_BYTES];
    _Atomic uint64_t instance;          /* how many producers this file has had */
    _Atomic int64_t started_ns;         /* monotonic, of the present one */
    _Atomic uint32_t pid;               /* of the present one in its own pid namespace: to show, not to trust */
    int64_t monotonic_offset_ns;        /* of its CLOCK_MONOTONIC against the host's: not 0 in a time namespace */
    _Alignas(64) _Atomic uint64_t head; /* number of the last record written */
    _Alignas(64) _Atomic uint64_t counters[TP_COUNTERS];
};

static_assert(sizeof(struct tp_ring_header) <= TP_RING_HEADER_BYTES, "the header fits its page");

/* A slot as both sides touch it: words that tear nowhere. */
union tp_slot {
    struct tp_event event;
    _Atomic uint64_t words[TP_RECORD_BYTES / 8];
};

static_assert(sizeof(union tp_slot) == TP_RECORD_BYTES, "a slot is a record");

struct tp_ring_writer {
    struct tp_ring_header *header;
    struct tp_row *row_table;
    union tp_slot *slots;
    uint64_t mask;
    uint64_t head; /* the producer's own copy: it reads no shared memory to write */
    uint32_t rows;
    uint32_t next_row;
    uint32_t mapping; /* place in the registry that survives truncation, ring.c */
    /* That place's mark. Not looked up by `mapping`: each module that links ring.c has a registry of its own. */
    const _Atomic bool *cut;
    size_t bytes;
    int fd;
};

struct tp_ring_reader {
    const struct tp_ring_header *header;
    const struct tp_row *row_table;
    const union tp_slot *slots;
    uint64_t mask;
    uint64_t cursor; /* number of the last record taken or given up */
    uint64_t lost;   /* records overwritten before this reader came to them */
    uint32_t rows;
    uint32_t mapping; /* place in the registry that survives truncation, ring.c */
    /* That place's mark. Not looked up by `mapping`: each module that links ring.c has a registry of its own. */
    const _Atomic bool *cut;
    size_t bytes;
    uint64_t inode;
    int fd;
};

/* Makes or takes over the ring file `path` and locks it. `kind` names what produces ("feed", "wire"). `capacity` is a
 * power of two in [TP_RING_MIN_CAPACITY, TP_RING_MAX_CAPACITY], `rows` in [1, TP_RING_MAX_ROWS].
 * Writes a HELLO record.
 *
 * @return 0, or with one line for the operator in `why`: -EINVAL (a parameter), -EBUSY (another producer of that name
 *         lives), -ENOSPC (the file system is full), -errno of a failed call. */
int tp_ring_create(struct tp_ring_writer *writer, const char *path, const char *kind, uint64_t capacity, uint32_t rows,
                   char *why, size_t why_bytes);

/* Writes a BYE record, closes the rows still open, unmaps and unlocks. The file stays for its readers and successor. */
void tp_ring_close(struct tp_ring_writer *writer);

/* The same of a producer that failed: without the BYE, as when it is killed. */
void tp_ring_abandon(struct tp_ring_writer *writer);

/* @return true once a part of the file was found cut away under the mapping: what is written there reaches nobody. The
 *         producer goes on unharmed; a ring made anew under the same name would be read again. */
bool tp_ring_writer_truncated(const struct tp_ring_writer *writer);

/* Takes a row for a connection: one never used, else the one closed longest ago. `version`, `generation` and `state` of
 * `row` are the ring's own. Writes no record.
 *
 * @return the handle for tp_event.row, or TP_ROW_NONE (counted in TP_COUNT_ROWS_EXHAUSTED) when all are open. */
uint32_t tp_ring_row_open(struct tp_ring_writer *writer, const struct tp_row *row);

/* Replaces what an open row says. */
void tp_ring_row_update(struct tp_ring_writer *writer, uint32_t handle, const struct tp_row *row);

/* Marks a row closed; readers can still read it until it is taken again. */
void tp_ring_row_close(struct tp_ring_writer *writer, uint32_t handle, int64_t closed_ns);

/* Maps the ring file `path` read-only and puts the cursor at its head.
 *
 * @return 0, or with one line in `why`: -EINVAL (not a ring, another ABI version, sizes that do not agree with the
 *         file's), -EXDEV (the producer's CLOCK_MONOTONIC is not this process's: another time namespace), -errno of a
 *         failed call. */
int tp_ring_attach(struct tp_ring_reader *reader, const char *path, char *why, size_t why_bytes);

/* Puts the cursor before the first record ever written: for a ring that was made while its reader was already there to
 * look for it. What has been overwritten since then counts as lost. */
static inline void tp_ring_rewind(struct tp_ring_reader *reader) {
    reader->cursor = 0;
}

void tp_ring_detach(struct tp_ring_reader *reader);

/* Copies the row of `handle`.
 *
 * @return 0; -ENOENT: no such row, or nothing in it; -ESTALE: the row belongs to another connection by now; -EAGAIN: it
 * is being written.
 */
int tp_ring_row(const struct tp_ring_reader *reader, uint32_t handle, struct tp_row *out);

/* The same by index, whatever its generation; `handle` is what a record of it would carry. */
int tp_ring_row_at(const struct tp_ring_reader *reader, uint32_t index, struct tp_row *out, uint32_t *handle);

/* @return 1 while a producer holds the file's lock, 0 when none does, -errno. */
int tp_ring_alive(const struct tp_ring_reader *reader);

/* @return true while the newest record is a BYE: the last producer stopped of its own will. Until another one's HELLO,
 *         which it writes after it took the lock. */
bool tp_ring_stopped(const struct tp_ring_reader *reader);

/* @return true once a part of the file was found cut away under the mapping: it then reads as zeros, and the reader
 *         should be detached. */
bool tp_ring_truncated(const struct tp_ring_reader *reader);

/* Where a reader that was lapped goes on: the older half is left to the producer, which would lap it again at once. */
uint64_t tp_ring_resume(const struct tp_ring_reader *reader, uint64_t head);

static inline uint32_t tp_row_index(uint32_t handle) {
    return handle & 0xffffu;
}

static inline uint16_t tp_row_generation(uint32_t handle) {
    return (uint16_t)(handle >> 16);
}

/* Has the slot of the record that is `ahead` of the next one brought near, for who writes many: a ring is larger than
 * what a processor keeps near, and a slot was last touched a whole ring ago. At the end of the ring it asks for what is
 * behind it, which costs nothing, where finding the beginning would. */
static inline void tp_ring_prefetch(const struct tp_ring_writer *writer, unsigned ahead) {
    uintptr_t next = (uintptr_t)&writer->slots[writer->head & writer->mask];
    __builtin_prefetch((const void *)(next + ahead * sizeof(union tp_slot)), 1);
}

/* Appends a record; event->seq is ignored. Single producer: the caller's thread only. Never waits, never fails. */
static inline void tp_ring_write(struct tp_ring_writer *writer, const struct tp_event *event) {
    uint64_t number = ++writer->head;
    union tp_slot *slot = &writer->slots[(number - 1) & writer->mask];
    uint64_t words[TP_RECORD_BYTES / 8];
    memcpy(words, event, sizeof(words));
    atomic_store_explicit(&slot->words[0], 0, memory_order_relaxed);
    /* No word of the new record may be seen under the old number. */
    atomic_thread_fence(memory_order_release);
#pragma GCC unroll 8 /* so that a record put together in registers goes from there */
    for (unsigned word = 1; word < TP_RECORD_BYTES / 8; word++)
        atomic_store_explicit(&slot->words[word], words[word], memory_order_relaxed);
    atomic_store_explicit(&slot->words[0], number, memory_order_release);
    atomic_store_explicit(&writer->header->head, number, memory_order_release);
}

/* Adds to a running total. Single producer. */
static inline void tp_ring_count(struct tp_ring_writer *writer, enum tp_counter counter, uint64_t add) {
    _Atomic uint64_t *total = &writer->header->counters[counter];
    uint64_t before = atomic_load_explicit(total, memory_order_relaxed);
    atomic_store_explicit(total, before + add, memory_order_relaxed);
}

static inline uint64_t tp_ring_counter(const struct tp_ring_reader *reader, enum tp_counter counter) {
    return atomic_load_explicit(&reader->header->counters[counter], memory_order_relaxed);
}

/* Copies up to `max` records, in order, and moves the cursor past them. What was overwritten before it could be read is
 * added to reader->lost.
 *
 * @return the number copied; 0: nothing new. */
static inline size_t tp_ring_read(struct tp_ring_reader *reader, struct tp_event *out, size_t max) {
    size_t taken = 0;
    while (taken < max) {
        uint64_t wanted = reader->cursor + 1;
        const union tp_slot *slot = &reader->slots[(wanted - 1) & reader->mask];
        union tp_slot *into = (union tp_slot *)&out[taken];
        uint64_t seq = atomic_load_explicit(&slot->words[0], memory_order_acquire);
        if (seq == wanted) {
            for (unsigned word = 1; word < TP_RECORD_BYTES / 8; word++) {
                uint64_t value = atomic_load_explicit(&slot->words[word], memory_order_relaxed);
                atomic_store_explicit(&into->words[word], value, memory_order_relaxed);
            }
            /* The words must have been read before the number is looked at again. */
            atomic_thread_fence(memory_order_acquire);
            if (atomic_load_explicit(&slot->words[0], memory_order_relaxed) == wanted) {
                atomic_store_explicit(&into->words[0], wanted, memory_order_relaxed);
                reader->cursor = wanted;
                taken++;
                continue;
            }
        }
        /* Not there: not yet, or no longer. The head is stored after the slot, so a head at or past `wanted` means that
         * the record was whole once and its slot has been, or is being, taken for a later one. */
        uint64_t head = atomic_load_explicit(&reader->header->head, memory_order_acquire);
        if (head < wanted) {
            break;
        }
        if (atomic_load_explicit(&slot->words[0], memory_order_relaxed) == wanted) {
            continue; /* it came between the two looks */
        }
        uint64_t resume = tp_ring_resume(reader, head);
        if (resume <= reader->cursor) {
            break;
        }
        reader->lost += resume - reader->cursor;
        reader->cursor = resume;
    }
    return taken;
}

#endif
