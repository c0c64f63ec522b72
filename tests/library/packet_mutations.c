/* SPDX-License-Identifier: Apache-2.0
 *
 * Feeds the packet parser with damaged frames under the sanitizers: every truncation of each seed, then random
 * mutations for a given number of rounds. Each input lies in an allocation of exactly its size.
 *
 * Usage: packet_mutations SEEDS ROUNDS. SEEDS is a file of frames, each after its length as a 16-bit big-endian number.
 * ROUNDS "overread" reads one byte too many on purpose, to show that the sanitizer would tell.
 */
#include "packet_rules.h"

#define MAX_SEEDS 256
#define MAX_BYTES 65536

struct seed {
    uint8_t *bytes;
    uint32_t length;
    struct tp_packet packet;
    struct tp_packet_look look;
};

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

static uint32_t read_seeds(const char *path, struct seed *seeds) {
    FILE *file = fopen(path, "rb");
    require(file != NULL, "the seed file opens");
    uint32_t n = 0;
    for (int high; n < MAX_SEEDS && (high = fgetc(file)) != EOF; n++) {
        seeds[n].length = (uint32_t)(high << 8 | fgetc(file));
        seeds[n].bytes = malloc(seeds[n].length);
        require(fread(seeds[n].bytes, 1, seeds[n].length, file) == seeds[n].length, "the seed file is whole");
        tp_packet_look_none(&seeds[n].look);
        if (tp_packet_parse_ethernet(seeds[n].bytes, seeds[n].length, seeds[n].length, &seeds[n].packet) == 0)
            tp_packet_look_learn(&seeds[n].look, seeds[n].bytes, &seeds[n].packet);
    }
    fclose(file);
    return n;
}

int main(int argc, char **argv) {
    static struct seed seeds[MAX_SEEDS];
    static uint8_t bytes[MAX_BYTES];
    static const int ethertypes[] = {-1, -1, TP_ETHERTYPE_IPV4, TP_ETHERTYPE_IPV6, 0x8100};
    static const uint8_t telling[] = {0, 1, 4, 6, 43, 44, 51, 60, 0x45, 0x4f, 0x60, 0x50, 0xf0, 0x81, 0x88, 0xff};
    uint64_t counts[1 - TP_PACKET_TOO_DEEP] = {0};
    uint64_t state = 88172645463325252u, alike = 0;

    require(argc == 3, "usage: packet_mutations SEEDS ROUNDS");
    uint32_t n = read_seeds(argv[1], seeds);
    require(n > 0, "there are seeds");
    if (strcmp(argv[2], "overread") == 0) {
        uint8_t *exact = malloc(seeds[0].length);
        memcpy(exact, seeds[0].bytes, seeds[0].length);
        return *(volatile uint8_t *)(exact + seeds[0].length);
    }
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t captured = 0; captured <= seeds[i].length; captured++) {
            counts[-tp_packet_try(seeds[i].bytes, captured, seeds[i].length, -1)]++;
            counts[-tp_packet_try(seeds[i].bytes, captured, captured, -1)]++;
        }
    }
    for (long round = atol(argv[2]); round > 0; round--) {
        const struct seed *seed = &seeds[next_random(&state) % n];
        memcpy(bytes, seed->bytes, seed->length);
        for (uint64_t hits = next_random(&state) % 6; hits > 0; hits--) {
            uint64_t r = next_random(&state);
            uint32_t headers = seed->length < 120 ? seed->length : 120;
            bytes[(r >> 16) % headers] = r & 1 ? telling[(r >> 8) % sizeof telling] : (uint8_t)(r >> 8);
        }
        uint64_t r = next_random(&state);
        uint32_t captured = r & 1 ? seed->length : (uint32_t)(r >> 8) % (seed->length + 1);
        uint32_t original = r & 2 ? seed->length : r & 4 ? captured : captured + (uint32_t)(r >> 40) % 200000;
        uint32_t shift = r & 8 && captured >= 14 ? 14 : 0;
        if (original < captured)
            original = captured;
        counts[-tp_packet_try(bytes + shift, captured - shift, original - shift, ethertypes[(r >> 4) % 5])]++;
        alike += tp_packet_try_look(&seed->look, &seed->packet, bytes, captured);
    }
    printf("alike %llu\n", (unsigned long long)alike);
    for (uint32_t i = 0; i < sizeof counts / sizeof *counts; i++)
        printf("%d %llu\n", -(int)i, (unsigned long long)counts[i]);
    for (uint32_t i = 0; i < n; i++)
        free(seeds[i].bytes);
    return 0;
}
