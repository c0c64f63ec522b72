/* SPDX-License-Identifier: Apache-2.0
 *
 * What the fuzzers share: the input taken apart into numbers, and rules that stop the fuzzer when they do not hold.
 */
#ifndef TICKPATH_TESTS_FUZZ_H
#define TICKPATH_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static inline void must(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "does not hold: %s\n", what);
        abort();
    }
}

struct input {
    const uint8_t *at;
    size_t left;
};

/* The next `bytes` of the input, zeros where it has ended. */
static inline void take(struct input *input, void *into, size_t bytes) {
    size_t there = input->left < bytes ? input->left : bytes;
    memset(into, 0, bytes);
    if (there)
        memcpy(into, input->at, there);
    input->at += there;
    input->left -= there;
}

static inline uint64_t take_number(struct input *input, size_t bytes) {
    uint64_t number = 0;
    take(input, &number, bytes);
    return number;
}

/* A copy in an allocation of exactly its size, so that the sanitizer sees one byte too far. */
static inline uint8_t *exact_copy(const uint8_t *bytes, size_t size) {
    uint8_t *copy = malloc(size ? size : 1);
    must(copy != NULL, "there is memory");
    if (size)
        memcpy(copy, bytes, size);
    return copy;
}

#endif
