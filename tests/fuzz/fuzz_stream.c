/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as what a peer sends under TLS, read from a socket in any pieces: the records are cut where they are cut
 * when everything is there at once, and every byte is in its place.
 */
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "tickpath/socket_read.h"
#include "tickpath/tls_record.h"

/* Where the next record ends, from `at` on: 0, incomplete; or a negative errno. */
static ssize_t cut(const uint8_t *stream, size_t at, size_t size) {
    ssize_t record = tp_tls_record_cut(stream + at, size - at);
    must(record <= (ssize_t)(size - at) && record <= TP_TLS_RECORD_BYTES, "a record lies in what is there");
    must(record == 0 || record == -EPROTO || record >= TP_TLS_HEADER_BYTES, "a record has a header");
    return record;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    static uint8_t buffer[TP_TLS_RECORD_BYTES];
    struct input input = {bytes, size};
    size_t step = 1 + take_number(&input, 2) % 5000;
    int ends[2];
    if (input.left > 60000)
        return 0;
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0, "there are sockets");
    struct tp_socket_reader reader = {.fd = ends[0], .buffer = buffer, .capacity = sizeof(buffer)};
    size_t taken = 0; /* of the stream, in whole records */
    ssize_t record = 0;
    for (size_t sent = 0; sent < input.left && record >= 0;) {
        size_t piece = input.left - sent < step ? input.left - sent : step;
        ssize_t wrote = write(ends[1], input.at + sent, piece);
        must(wrote == (ssize_t)piece, "the socket takes it");
        sent += piece;
        while (record >= 0) {
            ssize_t got = tp_socket_read(&reader, 0, 0);
            must(got > 0 || got == -EAGAIN || got == -ENOBUFS, "bytes, or a reason");
            must(reader.end <= reader.capacity && reader.start <= reader.end, "the buffer's bounds hold");
            must(reader.received - (reader.end - reader.start) == taken, "an offset for every byte");
            must(memcmp(buffer + reader.start, input.at + taken, reader.end - reader.start) == 0, "every byte");
            while ((record = tp_tls_record_cut(buffer + reader.start, reader.end - reader.start)) > 0) {
                must(record == cut(input.at, taken, input.left), "the same record as in the whole");
                reader.start += (size_t)record;
                taken += (size_t)record;
            }
            must(got != -ENOBUFS || record != 0, "a full buffer holds a record");
            if (got < 0)
                break;
        }
    }
    must(record != 0 || taken + (reader.end - reader.start) == input.left, "nothing is left behind");
    must(record == cut(input.at, taken, input.left), "the same end");
    close(ends[0]);
    close(ends[1]);
    return 0;
}
