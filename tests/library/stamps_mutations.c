/* SPDX-License-Identifier: Apache-2.0
 *
 * Feeds the readers of timestamp control messages and of TLS record headers with damaged bytes under the sanitizers,
 * each input in an allocation of exactly its size. Prints how many of the inputs were read and how many refused.
 *
 * Usage: stamps_mutations ROUNDS; "overread" reads one byte too many on purpose, to show that the sanitizer would tell.
 */
#include "tickpath/stamps.h"
#include "tickpath/tls_record.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_BYTES 200

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void require(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "violated: %s\n", what);
        exit(2);
    }
}

/* One or two messages, the first a timestamp in its 32 or 64 bit form, with full-range numbers. */
static size_t make(uint8_t *into, uint64_t *random) {
    size_t payload = next_random(random) % 2 ? 48 : 24;
    struct cmsghdr header = {.cmsg_len = CMSG_LEN(payload),
                             .cmsg_level = SOL_SOCKET,
                             .cmsg_type = next_random(random) % 2 ? TP_SO_TIMESTAMPING_OLD : TP_SO_TIMESTAMPING_NEW};
    for (size_t i = 0; i < MAX_BYTES; i++)
        into[i] = (uint8_t)next_random(random);
    memcpy(into, &header, sizeof header);
    size_t bytes = CMSG_SPACE(payload);
    if (next_random(random) % 2) {
        header.cmsg_len = CMSG_LEN(next_random(random) % 16);
        memcpy(into + bytes, &header, sizeof header);
        bytes += CMSG_SPACE(16);
    }
    return bytes;
}

int main(int argc, char **argv) {
    uint64_t random = 0x9e3779b97f4a7c15u, read = 0, refused = 0, complete = 0;
    if (argc != 2)
        return 64;
    if (!strcmp(argv[1], "overread")) {
        uint8_t *exact = calloc(1, 15);
        struct tp_stamps stamps;
        return tp_stamps_parse(exact, 16, &stamps);
    }
    for (long rounds = atol(argv[1]); rounds > 0; rounds--) {
        uint8_t whole[MAX_BYTES];
        size_t bytes = make(whole, &random);
        for (uint64_t damage = next_random(&random) % 4; damage; damage--)
            whole[next_random(&random) % bytes] = (uint8_t)next_random(&random);
        if (next_random(&random) % 4 == 0)
            bytes = next_random(&random) % (bytes + 1);
        uint8_t *exact = malloc(bytes ? bytes : 1);
        if (bytes)
            memcpy(exact, whole, bytes);

        struct tp_stamps stamps = {-1, -1};
        int found = tp_stamps_parse(exact, bytes, &stamps);
        require(found >= 0 || found == -EBADMSG, "the result is a count or -EBADMSG");
        require(stamps.sw_ns >= 0 && stamps.hw_ns >= 0, "a stamp is a time or none");
        *(found < 0 ? &refused : &read) += 1;
        struct tp_control control;
        int error = tp_control_parse(exact, bytes, &control);
        require(error == 0 || error == -EBADMSG, "the whole is read, or -EBADMSG");
        require(found >= 0 || error, "what has no stamps to be read cannot be read whole");

        if (bytes > 2 && next_random(&random) % 2) {
            exact[0] = 20 + exact[0] % 5;
            exact[1] = 3;
            if (bytes > 4)
                exact[3] = 0;
        }
        ssize_t record = tp_tls_record_cut(exact, bytes);
        require(record == -EPROTO || (record >= 0 && (size_t)record <= bytes), "a record lies within its bytes");
        require(record <= 0 || (record >= TP_TLS_HEADER_BYTES && record <= TP_TLS_RECORD_BYTES),
                "and within TLS's limits");
        complete += record > 0;
        free(exact);
    }
    printf("%llu %llu %llu\n", (unsigned long long)read, (unsigned long long)refused, (unsigned long long)complete);
    return 0;
}
