/* SPDX-License-Identifier: Apache-2.0 */
#include "lab/shuttle/line.h"

#include "tickpath/packet.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Frames that wait in one direction. 4096 full-sized ones are 50 ms of a gigabit line. */
#define ROOM_FRAMES 4096u
#define TCP_CHECKSUM_OFFSET 16u

int64_t tp_now_ns(int clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000 + now.tv_nsec;
}

static void queue_init(struct tp_queue *queue) {
    *queue = (struct tp_queue){.last = &queue->first};
}

static void queue_put(struct tp_queue *queue, struct tp_frame *frame) {
    frame->next = NULL;
    *queue->last = frame;
    queue->last = &frame->next;
    queue->length++;
}

static struct tp_frame *queue_take(struct tp_queue *queue) {
    struct tp_frame *frame = queue->first;
    queue->first = frame->next;
    queue->length--;
    if (!queue->first)
        queue->last = &queue->first;
    return frame;
}

static void recycle(struct tp_line *line, struct tp_frame *frame) {
    frame->next = line->free;
    line->free = frame;
}

int tp_line_open(struct tp_line *line, uint32_t frame_bytes) {
    line->room_bytes = frame_bytes;
    size_t stride = (sizeof(struct tp_frame) + frame_bytes + 63) & ~(size_t)63;
    uint8_t *memory = calloc(ROOM_FRAMES, stride);
    if (!memory)
        return -ENOMEM;
    line->memory = memory;
    line->free = NULL;
    for (size_t i = ROOM_FRAMES; i-- > 0;)
        recycle(line, (struct tp_frame *)(void *)(memory + i * stride));
    queue_init(&line->delayed);
    queue_init(&line->swapped);
    queue_init(&line->held);
    queue_init(&line->copies);
    return 0;
}

static int write_frame(struct tp_line *line, struct tp_frame *frame) {
    struct tp_truth *record = &frame->record;
    record->before_ns = tp_now_ns(CLOCK_MONOTONIC);
    record->before_realtime_ns = tp_now_ns(CLOCK_REALTIME);
    ssize_t written = write(line->to, frame->bytes, record->length);
    record->after_realtime_ns = tp_now_ns(CLOCK_REALTIME);
    record->after_ns = tp_now_ns(CLOCK_MONOTONIC);
    uint16_t outcome = written == (ssize_t)record->length ? TP_FATE_FORWARDED : TP_FATE_REFUSED;
    record->fate |= outcome;
    int error = tp_log_append(line->log, record);
    record->fate &= (uint16_t)~outcome;
    return error;
}

static bool befalls(const struct tp_line *line, const struct tp_frame *frame, enum tp_fault fault,
                    const struct tp_trigger *trigger) {
    uint64_t candidate = frame->record.candidate;
    return candidate && tp_befalls(trigger, tp_draw(line->seed, line->direction, fault, candidate), candidate);
}

static void copy_later(struct tp_line *line, struct tp_frame *frame) {
    frame->due_ns = frame->record.after_ns + (int64_t)line->faults->duplicate_apart_ns;
    queue_put(&line->copies, frame);
}

/* Write the next copy, and those that follow it without a gap. */
static int write_copies(struct tp_line *line, struct tp_frame *frame) {
    const struct tp_faults *faults = line->faults;
    frame->record.fate |= TP_FATE_COPY;
    do {
        frame->record.copy++;
        int error = write_frame(line, frame);
        if (error)
            return error;
        if (frame->record.copy == faults->duplicate_copies) {
            recycle(line, frame);
            return 0;
        }
    } while (!faults->duplicate_apart_ns);
    copy_later(line, frame);
    return 0;
}

static int write_with_copies(struct tp_line *line, struct tp_frame *frame) {
    int error = write_frame(line, frame);
    if (error)
        return error;
    if (!befalls(line, frame, TP_FAULT_DUPLICATE, &line->faults->duplicate)) {
        recycle(line, frame);
        return 0;
    }
    if (!line->faults->duplicate_apart_ns)
        return write_copies(line, frame);
    copy_later(line, frame);
    return 0;
}

/* A frame in its turn; the swapped ones that waited for it come behind it. */
static int write_in_turn(struct tp_line *line, struct tp_frame *frame) {
    bool candidate = frame->record.candidate != 0;
    int error = write_with_copies(line, frame);
    if (error || !candidate)
        return error;
    for (struct tp_frame *waiting = line->swapped.first; waiting; waiting = waiting->next)
        waiting->passing_left--;
    while (!error && line->swapped.first && line->swapped.first->passing_left == 0)
        error = write_with_copies(line, queue_take(&line->swapped));
    return error;
}

static int release_burst(struct tp_line *line) {
    int error = 0;
    while (!error && line->held.first)
        error = write_in_turn(line, queue_take(&line->held));
    return error;
}

/* At the end of the delay line. */
static int arrive(struct tp_line *line, struct tp_frame *frame) {
    const struct tp_faults *faults = line->faults;
    if (befalls(line, frame, TP_FAULT_SWAP, &faults->swap)) {
        frame->record.fate |= TP_FATE_SWAPPED;
        frame->passing_left = faults->swap_by;
        frame->due_ns = tp_now_ns(CLOCK_MONOTONIC) + (int64_t)faults->swap_wait_ns;
        queue_put(&line->swapped, frame);
        return 0;
    }
    bool joins = line->held.length && frame->record.candidate;
    if (joins || befalls(line, frame, TP_FAULT_HOLD, &faults->hold)) {
        frame->record.fate |= TP_FATE_HELD;
        frame->due_ns = tp_now_ns(CLOCK_MONOTONIC) + (int64_t)faults->hold_ns;
        queue_put(&line->held, frame);
        return line->held.length >= faults->hold_frames ? release_burst(line) : 0;
    }
    return write_in_turn(line, frame);
}

static bool is_candidate(const struct tp_line *line, const struct tp_truth *record) {
    const struct tp_faults *faults = line->faults;
    if (!line->armed || (faults->only_payload && !record->payload_bytes))
        return false;
    return !faults->port || record->source_port == faults->port || record->destination_port == faults->port;
}

static void describe(struct tp_line *line, struct tp_frame *frame, struct tp_packet *packet) {
    struct tp_truth *record = &frame->record;
    if (!tp_packet_parse_ethernet(frame->bytes, record->length, record->length, packet)) {
        memcpy(record->source, packet->source, sizeof record->source);
        memcpy(record->destination, packet->destination, sizeof record->destination);
        record->source_port = packet->source_port;
        record->destination_port = packet->destination_port;
        record->seq = packet->seq;
        record->ack = packet->ack;
        record->payload_bytes = packet->payload_length;
        record->tcp_flags = packet->tcp_flags;
        record->version = packet->version;
    }
    if (is_candidate(line, record))
        record->candidate = ++line->candidates;
}

int tp_line_receive(struct tp_line *line) {
    struct tp_frame *frame = line->free;
    ssize_t length = read(line->from, frame->bytes, line->room_bytes);
    if (length < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    line->free = frame->next;
    frame->record = (struct tp_truth){
        .number = ++line->frames,
        .read_ns = tp_now_ns(CLOCK_MONOTONIC),
        .length = (uint32_t)length,
        .direction = (uint8_t)line->direction,
    };
    struct tp_packet packet;
    describe(line, frame, &packet);

    const struct tp_faults *faults = line->faults;
    struct tp_truth *record = &frame->record;
    bool dropped = befalls(line, frame, TP_FAULT_DROP, &faults->drop);
    if (!dropped && record->version && befalls(line, frame, TP_FAULT_CORRUPT, &faults->corrupt)) {
        /* One bit: in ones' complement no single bit turns a right sum into another right one. */
        frame->bytes[packet.tcp_offset + TCP_CHECKSUM_OFFSET] ^= 1;
        record->fate |= TP_FATE_CORRUPTED;
    }
    record->hash = tp_frame_hash(frame->bytes, record->length);
    int error;
    if (dropped) {
        record->fate |= TP_FATE_DROPPED;
        recycle(line, frame);
        error = tp_log_append(line->log, record);
        return error ? error : 1;
    }
    frame->due_ns = record->read_ns;
    if (befalls(line, frame, TP_FAULT_DELAY, &faults->delay)) {
        uint64_t draw = tp_draw(line->seed, line->direction, TP_FAULT_JITTER, record->candidate);
        uint64_t jitter_ns = (uint64_t)((unsigned __int128)draw * faults->delay_jitter_ns >> 64);
        frame->due_ns += (int64_t)(faults->delay_ns + jitter_ns);
        record->fate |= TP_FATE_DELAYED;
    }
    /* Behind a delayed frame all wait, as behind a slow hop. */
    if (frame->due_ns > record->read_ns || line->delayed.length) {
        queue_put(&line->delayed, frame);
        return 1;
    }
    error = arrive(line, frame);
    return error ? error : 1;
}

static bool due(const struct tp_queue *queue, int64_t now_ns, int64_t *next_ns) {
    if (!queue->first)
        return false;
    if (queue->first->due_ns <= now_ns)
        return true;
    if (queue->first->due_ns < *next_ns)
        *next_ns = queue->first->due_ns;
    return false;
}

int tp_line_release(struct tp_line *line, int64_t *next_ns) {
    int64_t now_ns = tp_now_ns(CLOCK_MONOTONIC);
    int error = 0;
    while (!error && due(&line->delayed, now_ns, next_ns))
        error = arrive(line, queue_take(&line->delayed));
    if (!error && due(&line->held, now_ns, next_ns))
        error = release_burst(line);
    while (!error && due(&line->swapped, now_ns, next_ns))
        error = write_with_copies(line, queue_take(&line->swapped));
    while (!error && due(&line->copies, now_ns, next_ns))
        error = write_copies(line, queue_take(&line->copies));
    return error;
}

static int log_unsent(struct tp_line *line, struct tp_queue *queue) {
    int error = 0;
    while (!error && queue->first) {
        struct tp_truth *record = &queue_take(queue)->record;
        record->fate |= TP_FATE_UNSENT;
        if (queue == &line->copies) {
            record->fate |= TP_FATE_COPY;
            record->copy++;
            record->before_ns = record->after_ns = 0;
            record->before_realtime_ns = record->after_realtime_ns = 0;
        }
        error = tp_log_append(line->log, record);
    }
    return error;
}

int tp_line_close(struct tp_line *line) {
    struct tp_queue *queues[] = {&line->delayed, &line->held, &line->swapped, &line->copies};
    int error = 0;
    for (size_t i = 0; i < sizeof queues / sizeof *queues && !error; i++)
        error = log_unsent(line, queues[i]);
    free(line->memory);
    line->memory = NULL;
    return error;
}
