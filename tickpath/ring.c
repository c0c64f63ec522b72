/* SPDX-License-Identifier: Apache-2.0
 *
 * What happens to a ring once: making, taking over, attaching, rows, and surviving a file that is cut away under those
 * who have it mapped.
 */
#define _GNU_SOURCE
#include "tickpath/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE_BYTES 4096u

static int fail(char *why, size_t why_bytes, int error, const char *format, ...) __attribute__((format(printf, 4, 5)));

static int fail(char *why, size_t why_bytes, int error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, why_bytes, format, arguments);
    va_end(arguments);
    return -error;
}

static int64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static size_t slots_offset(uint32_t rows) {
    size_t end = TP_RING_HEADER_BYTES + (size_t)rows * TP_ROW_BYTES;
    return (end + PAGE_BYTES - 1) & ~(size_t)(PAGE_BYTES - 1);
}

static size_t file_bytes(uint64_t capacity, uint32_t rows) {
    return slots_offset(rows) + (size_t)capacity * TP_RECORD_BYTES;
}

static int read_boot_id(uint8_t id[16]) {
    char text[64] = {0};
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    ssize_t got = read(fd, text, sizeof(text) - 1);
    close(fd);
    unsigned digits = 0;
    memset(id, 0, 16);
    for (ssize_t at = 0; at < got && digits < 32; at++) {
        char c = text[at];
        int value = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (value >= 0) {
            id[digits / 2] = (uint8_t)(id[digits / 2] << 4 | value);
            digits++;
        }
    }
    return digits == 32 ? 0 : -EIO;
}

/* How far this process's CLOCK_MONOTONIC is ahead of the host's (time_namespaces(7)), by which two processes can tell
 * whether they share a timeline. */
#define INITIAL_TIME_NAMESPACE 0xeffffffau /* its inode: linux/nsfs.h */
#define OFFSET_UNKNOWN INT64_MIN

static int64_t monotonic_offset_ns(void) {
    struct stat own, children;
    if (stat("/proc/self/ns/time", &own) != 0 || own.st_ino == INITIAL_TIME_NAMESPACE) {
        return 0; /* also before Linux 5.6, which has no others */
    }
    char text[256] = {0};
    long long seconds, ns;
    int fd = open("/proc/self/timens_offsets", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0) {
        close(fd);
    }
    /* The file tells of the namespace that children will be in. */
    if (got <= 0 || stat("/proc/self/ns/time_for_children", &children) != 0 || own.st_ino != children.st_ino ||
        sscanf(text, "monotonic %lld %lld", &seconds, &ns) != 2) {
        return OFFSET_UNKNOWN;
    }
    return seconds * 1000000000 + ns;
}

/* --- a file that is cut away under a mapping ---------------------------------------------------------------------
 *
 * Touching a page of a mapping that lies past the end of its file raises SIGBUS. A reader must outlive that, the
 * measured application all the more, and no check of the size beforehand can exclude it. So the handler puts an empty
 * page in the hole, marks the mapping, and lets the access go on: a reader reads zeros, a producer writes to nobody.
 * The registry is global because signal handlers are. */

#define MAPPINGS 256u

static struct {
    _Atomic uintptr_t begin; /* 0: free; 1: being filled */
    _Atomic uintptr_t end;
    _Atomic int protection; /* of the page that fills a hole */
    _Atomic bool truncated;
} mappings[MAPPINGS];
static struct sigaction previous_handler;
static _Atomic int handler_state; /* 0 none, 1 being installed, 2 there */

static void on_bus_error(int number, siginfo_t *info, void *context) {
    uintptr_t address = (uintptr_t)info->si_addr;
    for (unsigned at = 0; at < MAPPINGS; at++) {
        uintptr_t begin = atomic_load_explicit(&mappings[at].begin, memory_order_acquire);
        if (begin > 1 && address >= begin && address < atomic_load(&mappings[at].end)) {
            void *page = (void *)(address & ~(uintptr_t)(PAGE_BYTES - 1));
            int protection = atomic_load(&mappings[at].protection);
            if (mmap(page, PAGE_BYTES, protection, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == page) {
                atomic_store(&mappings[at].truncated, true);
                return;
            }
        }
    }
    if (previous_handler.sa_flags & SA_SIGINFO) {
        previous_handler.sa_sigaction(number, info, context);
    } else if (previous_handler.sa_handler != SIG_DFL && previous_handler.sa_handler != SIG_IGN) {
        previous_handler.sa_handler(number);
    } else {
        signal(SIGBUS, SIG_DFL); /* the faulting access comes again and ends the process as it would have */
    }
}

static int register_mapping(void *begin, size_t bytes, int protection) {
    int none = 0;
    if (atomic_compare_exchange_strong(&handler_state, &none, 1)) {
        struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_NODEFER};
        sigemptyset(&action.sa_mask);
        if (sigaction(SIGBUS, &action, &previous_handler) != 0) {
            atomic_store(&handler_state, 0);
            return -errno;
        }
        atomic_store(&handler_state, 2);
    }
    for (unsigned at = 0; at < MAPPINGS; at++) {
        uintptr_t empty = 0;
        if (atomic_compare_exchange_strong(&mappings[at].begin, &empty, 1)) {
            atomic_store(&mappings[at].truncated, false);
            atomic_store(&mappings[at].protection, protection);
            atomic_store(&mappings[at].end, (uintptr_t)begin + bytes);
            atomic_store_explicit(&mappings[at].begin, (uintptr_t)begin, memory_order_release);
            return (int)at;
        }
    }
    return -EMFILE;
}

/* In this order: an address that another mapping takes next must not be found under this one. */
static void unmap(uint32_t mapping, const void *begin, size_t bytes) {
    atomic_store(&mappings[mapping].begin, 1);
    munmap((void *)(uintptr_t)begin, bytes);
    atomic_store(&mappings[mapping].begin, 0);
}

/* --- the producer's side --------------------------------------------------------------------------------------- */

static int lock_file(int fd) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0};
    return fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : -errno;
}

/* Whether the file behind `fd` is a ring that a producer with these parameters can go on with. */
static bool can_go_on(int fd, const struct stat *status, uint64_t capacity, uint32_t rows, const uint8_t boot_id[16],
                      const char *kind) {
    struct tp_ring_header header;
    if ((size_t)status->st_size != file_bytes(capacity, rows) ||
        pread(fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header)) {
        return false;
    }
    return header.magic == TP_RING_MAGIC && header.abi_version == TP_ABI_VERSION &&
           header.record_bytes == TP_RECORD_BYTES && header.row_bytes == TP_ROW_BYTES && header.rows == rows &&
           header.capacity == capacity && memcmp(header.boot_id, boot_id, 16) == 0 &&
           header.monotonic_offset_ns == monotonic_offset_ns() &&
           strncmp(header.kind, kind, sizeof(header.kind)) == 0 &&
           header.head <= INT64_MAX; /* no producer comes so far: numbers must not start anew */
}

/* Opens and locks `path`, replacing a file that is no ring of ours to go on with: it may still be mapped by readers, so
 * it is never changed in size. */
static int open_locked(const char *path, uint64_t capacity, uint32_t rows, const uint8_t boot_id[16], const char *kind,
                       bool *fresh, char *why, size_t why_bytes) {
    for (int attempt = 0; attempt < 16; attempt++) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
        if (fd < 0) {
            return fail(why, why_bytes, errno, "cannot open ring file %s: %s%s", path, strerror(errno),
                        errno == EACCES ? " (another user's? set TICKPATH_DIRECTORY to a directory of your own)" : "");
        }
        struct stat status, named;
        int error = lock_file(fd);
        if (error == -EAGAIN || error == -EACCES) {
            close(fd);
            return fail(why, why_bytes, EBUSY, "another producer holds %s: give this one another name", path);
        }
        if (error != 0 || fstat(fd, &status) != 0) {
            error = errno;
            close(fd);
            return fail(why, why_bytes, error, "cannot lock ring file %s: %s", path, strerror(error));
        }
        if (stat(path, &named) != 0 || named.st_ino != status.st_ino || named.st_dev != status.st_dev) {
            close(fd); /* replaced between opening and locking */
            continue;
        }
        if (status.st_size == 0) {
            *fresh = true;
            return fd;
        }
        if (can_go_on(fd, &status, capacity, rows, boot_id, kind)) {
            *fresh = false;
            return fd;
        }
        error = unlink(path) == 0 ? 0 : errno;
        close(fd);
        if (error != 0) {
            return fail(why, why_bytes, error, "cannot replace unusable ring file %s: %s", path, strerror(error));
        }
    }
    return fail(why, why_bytes, EBUSY, "ring file %s is being replaced over and over", path);
}

static void write_plain(struct tp_ring_writer *writer, enum tp_kind kind) {
    struct tp_event event = {
        .kind = (uint8_t)kind, .clock = TP_CLOCK_MONOTONIC, .row = TP_ROW_NONE, .time_ns = monotonic_ns()};
    tp_ring_write(writer, &event);
}

static struct tp_row row_copy(const struct tp_row *row) {
    struct tp_row copy;
    const _Atomic uint64_t *from = (const _Atomic uint64_t *)(const void *)row;
    uint64_t words[TP_ROW_BYTES / 8];
    for (unsigned word = 0; word < TP_ROW_BYTES / 8; word++) {
        words[word] = atomic_load_explicit(&from[word], memory_order_relaxed);
    }
    memcpy(&copy, words, sizeof(copy));
    return copy;
}

/* Writes a row under its seqlock; `row->version` is ignored. */
static void row_store(struct tp_row *shared, const struct tp_row *row) {
    _Atomic uint32_t *version = (_Atomic uint32_t *)(void *)&shared->version;
    uint32_t odd = atomic_load_explicit(version, memory_order_relaxed) | 1u;
    atomic_store_explicit(version, odd, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    uint64_t words[TP_ROW_BYTES / 8];
    struct tp_row with_version = *row;
    with_version.version = odd;
    memcpy(words, &with_version, sizeof(words));
    _Atomic uint64_t *into = (_Atomic uint64_t *)(void *)shared;
    for (unsigned word = 0; word < TP_ROW_BYTES / 8; word++) {
        atomic_store_explicit(&into[word], words[word], memory_order_relaxed);
    }
    atomic_store_explicit(version, odd + 1, memory_order_release);
}

/* Puts in order what a predecessor left: its last record may lack its head, its connections are gone, and a row that it
 * was writing is neither the one nor the other. */
static void take_over(struct tp_ring_writer *writer) {
    struct tp_ring_header *header = writer->header;
    uint64_t head = atomic_load(&header->head);
    if (atomic_load(&writer->slots[head & writer->mask].words[0]) == head + 1) {
        head++;
        atomic_store(&header->head, head);
    }
    writer->head = head;
    /* Who wrote into the head has left slots that are ahead of it: they would be read as records yet to come. */
    for (uint64_t slot = 0; slot <= writer->mask; slot++) {
        if (atomic_load_explicit(&writer->slots[slot].words[0], memory_order_relaxed) > head)
            atomic_store_explicit(&writer->slots[slot].words[0], 0, memory_order_relaxed);
    }
    for (uint32_t index = 0; index < writer->rows; index++) {
        struct tp_row row = row_copy(&writer->row_table[index]);
        if (row.version & 1u) {
            /* Half of one content and half of another. A new generation: who holds its handle is told that it is gone.
             */
            struct tp_row emptied = {.state = TP_ROW_FREE, .generation = (uint16_t)(row.generation + 1)};
            row_store(&writer->row_table[index], &emptied);
        } else if (row.state == TP_ROW_OPEN) {
            row.state = TP_ROW_CLOSED;
            row.closed_ns = monotonic_ns();
            row_store(&writer->row_table[index], &row);
        }
    }
}

static void file_name(const char *path, char name[TP_RING_NAME_BYTES]) {
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;
    size_t length = strlen(base), suffix = strlen(TP_RING_SUFFIX);
    if (length > suffix && strcmp(base + length - suffix, TP_RING_SUFFIX) == 0) {
        length -= suffix;
    }
    memset(name, 0, TP_RING_NAME_BYTES);
    memcpy(name, base, length < TP_RING_NAME_BYTES ? length : TP_RING_NAME_BYTES - 1);
}

int tp_ring_create(struct tp_ring_writer *writer, const char *path, const char *kind, uint64_t capacity, uint32_t rows,
                   char *why, size_t why_bytes) {
    memset(writer, 0, sizeof(*writer));
    writer->fd = -1;
    if (capacity < TP_RING_MIN_CAPACITY || capacity > TP_RING_MAX_CAPACITY || (capacity & (capacity - 1))) {
        return fail(why, why_bytes, EINVAL, "ring capacity %llu is not a power of two from %u to %u",
                    (unsigned long long)capacity, TP_RING_MIN_CAPACITY, TP_RING_MAX_CAPACITY);
    }
    if (rows < 1 || rows > TP_RING_MAX_ROWS) {
        return fail(why, why_bytes, EINVAL, "ring rows %u are not from 1 to %u", rows, TP_RING_MAX_ROWS);
    }
    if (strlen(kind) >= TP_RING_KIND_BYTES) {
        return fail(why, why_bytes, EINVAL, "ring kind '%s' is longer than %d bytes", kind, TP_RING_KIND_BYTES - 1);
    }
    uint8_t boot_id[16];
    int error = read_boot_id(boot_id);
    if (error != 0) {
        return fail(why, why_bytes, -error, "cannot read the boot id from /proc: %s", strerror(-error));
    }
    bool fresh;
    int fd = open_locked(path, capacity, rows, boot_id, kind, &fresh, why, why_bytes);
    if (fd < 0) {
        return fd;
    }
    size_t bytes = file_bytes(capacity, rows);
    void *base = MAP_FAILED;
    if (fresh) {
        fchmod(fd, 0640); /* whatever the umask: a reader of the group must be able to read */
        error = posix_fallocate(fd, 0, (off_t)bytes);
        if (error != 0) {
            fail(why, why_bytes, error, "cannot reserve %zu MiB for ring file %s: %s%s", bytes >> 20, path,
                 strerror(error), error == ENOSPC ? " (free space there, or set a smaller capacity)" : "");
            goto failed;
        }
    }
    base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        error = errno;
        fail(why, why_bytes, error, "cannot map ring file %s: %s", path, strerror(error));
        goto failed;
    }
    int mapping = register_mapping(base, bytes, PROT_READ | PROT_WRITE);
    if (mapping < 0) {
        munmap(base, bytes);
        error = -mapping;
        fail(why, why_bytes, error, "cannot make %s: more than %u rings are open in this process", path, MAPPINGS);
        goto failed;
    }
    writer->header = base;
    writer->mapping = (uint32_t)mapping;
    writer->cut = &mappings[mapping].truncated;
    writer->row_table = (struct tp_row *)((char *)base + TP_RING_HEADER_BYTES);
    writer->slots = (union tp_slot *)((char *)base + slots_offset(rows));
    writer->mask = capacity - 1;
    writer->rows = rows;
    writer->bytes = bytes;
    writer->fd = fd;
    struct tp_ring_header *header = writer->header;
    if (fresh) {
        header->abi_version = TP_ABI_VERSION;
        header->record_bytes = TP_RECORD_BYTES;
        header->row_bytes = TP_ROW_BYTES;
        header->rows = rows;
        header->capacity = capacity;
        memcpy(header->boot_id, boot_id, 16);
        header->monotonic_offset_ns = monotonic_offset_ns();
        file_name(path, header->name);
        strncpy(header->kind, kind, sizeof(header->kind) - 1);
    } else {
        take_over(writer);
    }
    atomic_fetch_add(&header->instance, 1);
    atomic_store(&header->started_ns, monotonic_ns());
    atomic_store(&header->pid, (uint32_t)getpid());
    atomic_store_explicit(&header->magic, TP_RING_MAGIC, memory_order_release);
    write_plain(writer, TP_KIND_HELLO);
    return 0;

failed:
    if (fresh) {
        unlink(path);
    }
    close(fd);
    return -error;
}

static void let_go(struct tp_ring_writer *writer, bool goodbye) {
    if (writer->header == NULL) {
        return;
    }
    for (uint32_t index = 0; index < writer->rows; index++) {
        const struct tp_row *row = &writer->row_table[index];
        if (row->state == TP_ROW_OPEN) {
            tp_ring_row_close(writer, index | (uint32_t)row->generation << 16, monotonic_ns());
        }
    }
    if (goodbye) {
        write_plain(writer, TP_KIND_BYE);
    }
    unmap(writer->mapping, writer->header, writer->bytes);
    close(writer->fd);
    memset(writer, 0, sizeof(*writer));
    writer->fd = -1;
}

void tp_ring_close(struct tp_ring_writer *writer) {
    let_go(writer, true);
}

void tp_ring_abandon(struct tp_ring_writer *writer) {
    let_go(writer, false);
}

bool tp_ring_writer_truncated(const struct tp_ring_writer *writer) {
    return atomic_load_explicit(writer->cut, memory_order_relaxed);
}

uint32_t tp_ring_row_open(struct tp_ring_writer *writer, const struct tp_row *row) {
    for (uint32_t tried = 0; tried < writer->rows; tried++) {
        uint32_t index = (writer->next_row + tried) % writer->rows;
        struct tp_row *shared = &writer->row_table[index];
        if (shared->state == TP_ROW_OPEN) {
            continue;
        }
        struct tp_row taken = *row;
        taken.generation = (uint16_t)(shared->generation + 1);
        if ((index | (uint32_t)taken.generation << 16) == TP_ROW_NONE) {
            taken.generation = 0;
        }
        taken.state = TP_ROW_OPEN;
        taken.closed_ns = 0;
        row_store(shared, &taken);
        writer->next_row = (index + 1) % writer->rows;
        return index | (uint32_t)taken.generation << 16;
    }
    tp_ring_count(writer, TP_COUNT_ROWS_EXHAUSTED, 1);
    return TP_ROW_NONE;
}

static struct tp_row *open_row(struct tp_ring_writer *writer, uint32_t handle) {
    uint32_t index = tp_row_index(handle);
    if (handle == TP_ROW_NONE || index >= writer->rows) {
        return NULL;
    }
    struct tp_row *shared = &writer->row_table[index];
    return shared->state == TP_ROW_OPEN && shared->generation == tp_row_generation(handle) ? shared : NULL;
}

void tp_ring_row_update(struct tp_ring_writer *writer, uint32_t handle, const struct tp_row *row) {
    struct tp_row *shared = open_row(writer, handle);
    if (shared != NULL) {
        struct tp_row next = *row;
        next.generation = shared->generation;
        next.state = TP_ROW_OPEN;
        next.closed_ns = 0;
        row_store(shared, &next);
    }
}

void tp_ring_row_close(struct tp_ring_writer *writer, uint32_t handle, int64_t closed_ns) {
    struct tp_row *shared = open_row(writer, handle);
    if (shared != NULL) {
        struct tp_row next = *shared;
        next.state = TP_ROW_CLOSED;
        next.closed_ns = closed_ns;
        row_store(shared, &next);
    }
}

/* --- the reader's side ----------------------------------------------------------------------------------------- */

int tp_ring_attach(struct tp_ring_reader *reader, const char *path, char *why, size_t why_bytes) {
    memset(reader, 0, sizeof(*reader));
    reader->fd = -1;
    int error = EINVAL;
    struct tp_ring_header header;
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return fail(why, why_bytes, errno, "cannot open ring file %s: %s", path, strerror(errno));
    }
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        fail(why, why_bytes, error, "%s is not a regular file", path);
        goto failed;
    }
    if (pread(fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header) || header.magic != TP_RING_MAGIC) {
        fail(why, why_bytes, error, "%s is not a ring file (or its producer has not made it yet)", path);
        goto failed;
    }
    if (header.abi_version != TP_ABI_VERSION || header.record_bytes != TP_RECORD_BYTES ||
        header.row_bytes != TP_ROW_BYTES) {
        fail(why, why_bytes, error,
             "%s is of ABI version %u, this tickpath reads %u: run the same version on both sides", path,
             header.abi_version, TP_ABI_VERSION);
        goto failed;
    }
    if (header.capacity < TP_RING_MIN_CAPACITY || header.capacity > TP_RING_MAX_CAPACITY ||
        (header.capacity & (header.capacity - 1)) || header.rows < 1 || header.rows > TP_RING_MAX_ROWS ||
        (size_t)status.st_size < file_bytes(header.capacity, header.rows)) {
        fail(why, why_bytes, error, "%s says %llu slots and %u rows, which its %lld bytes cannot hold", path,
             (unsigned long long)header.capacity, header.rows, (long long)status.st_size);
        goto failed;
    }
    int64_t offset_ns = monotonic_offset_ns();
    if (header.monotonic_offset_ns != offset_ns || offset_ns == OFFSET_UNKNOWN) {
        error = EXDEV;
        fail(why, why_bytes, error,
             "%s is stamped on a monotonic clock that is not this one's (its producer runs in another time namespace): "
             "run both in the same",
             path);
        goto failed;
    }
    size_t bytes = file_bytes(header.capacity, header.rows);
    void *base = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        error = errno;
        fail(why, why_bytes, error, "cannot map ring file %s: %s", path, strerror(error));
        goto failed;
    }
    int mapping = register_mapping(base, bytes, PROT_READ);
    if (mapping < 0) {
        munmap(base, bytes);
        error = -mapping;
        fail(why, why_bytes, error, "cannot attach %s: more than %u rings are attached", path, MAPPINGS);
        goto failed;
    }
    reader->header = base;
    reader->row_table = (const struct tp_row *)((const char *)base + TP_RING_HEADER_BYTES);
    reader->slots = (const union tp_slot *)((const char *)base + slots_offset(header.rows));
    reader->mask = header.capacity - 1;
    reader->cursor = atomic_load_explicit(&reader->header->head, memory_order_acquire);
    reader->rows = header.rows;
    reader->mapping = (uint32_t)mapping;
    reader->cut = &mappings[mapping].truncated;
    reader->bytes = bytes;
    reader->inode = status.st_ino;
    reader->fd = fd;
    return 0;

failed:
    close(fd);
    return -error;
}

void tp_ring_detach(struct tp_ring_reader *reader) {
    if (reader->header == NULL) {
        return;
    }
    unmap(reader->mapping, reader->header, reader->bytes);
    close(reader->fd);
    memset(reader, 0, sizeof(*reader));
    reader->fd = -1;
}

uint64_t tp_ring_resume(const struct tp_ring_reader *reader, uint64_t head) {
    uint64_t capacity = reader->mask + 1;
    if (head - reader->cursor < capacity) {
        return reader->cursor + 1; /* not lapped: one slot that its producer never finished */
    }
    return head - capacity / 2;
}

int tp_ring_row_at(const struct tp_ring_reader *reader, uint32_t index, struct tp_row *out, uint32_t *handle) {
    if (index >= reader->rows) {
        return -ENOENT;
    }
    const struct tp_row *shared = &reader->row_table[index];
    const _Atomic uint32_t *version = (const _Atomic uint32_t *)(const void *)&shared->version;
    for (int attempt = 0; attempt < 64; attempt++) {
        uint32_t before = atomic_load_explicit(version, memory_order_acquire);
        *out = row_copy(shared);
        atomic_thread_fence(memory_order_acquire);
        if (!(before & 1u) && atomic_load_explicit(version, memory_order_relaxed) == before) {
            if (out->state == TP_ROW_FREE) {
                return -ENOENT; /* never used, or emptied after its producer was killed in the middle of it */
            }
            *handle = index | (uint32_t)out->generation << 16;
            return 0;
        }
    }
    return -EAGAIN;
}

int tp_ring_row(const struct tp_ring_reader *reader, uint32_t handle, struct tp_row *out) {
    uint32_t found;
    if (handle == TP_ROW_NONE) {
        return -ENOENT;
    }
    int error = tp_ring_row_at(reader, tp_row_index(handle), out, &found);
    return error != 0 ? error : found == handle ? 0 : -ESTALE;
}

int tp_ring_alive(const struct tp_ring_reader *reader) {
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0};
    if (fcntl(reader->fd, F_OFD_GETLK, &lock) != 0) {
        return -errno;
    }
    return lock.l_type == F_UNLCK ? 0 : 1;
}

bool tp_ring_stopped(const struct tp_ring_reader *reader) {
    struct tp_ring_reader last = *reader; /* with a cursor of its own */
    struct tp_event newest;
    uint64_t head = atomic_load_explicit(&reader->header->head, memory_order_acquire);
    last.cursor = head - 1;
    return head > 0 && tp_ring_read(&last, &newest, 1) == 1 && newest.kind == TP_KIND_BYE;
}

bool tp_ring_truncated(const struct tp_ring_reader *reader) {
    return atomic_load_explicit(reader->cut, memory_order_relaxed);
}
