/* SPDX-License-Identifier: Apache-2.0 */
#include "lab/shuttle/options.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct option {
    const char *name;
    size_t offset;
    bool is_probability;
};

#define NUMBER(type, field) {#field, offsetof(struct type, field), false}
#define TRIGGER(fault)                                                                                                 \
    {#fault ".probability", offsetof(struct tp_faults, fault.probability), true}, {                                    \
        #fault ".every", offsetof(struct tp_faults, fault.every), false                                                \
    }

static const struct option options_known[] = {
    NUMBER(tp_options, log_fd),    NUMBER(tp_options, parent_pid), NUMBER(tp_options, seed),
    NUMBER(tp_options, mtu_bytes), NUMBER(tp_options, gro),        {0},
};

static const struct option faults_known[] = {
    TRIGGER(drop),
    TRIGGER(corrupt),
    TRIGGER(duplicate),
    TRIGGER(swap),
    TRIGGER(hold),
    TRIGGER(delay),
    NUMBER(tp_faults, duplicate_copies),
    NUMBER(tp_faults, duplicate_apart_ns),
    NUMBER(tp_faults, swap_by),
    NUMBER(tp_faults, swap_wait_ns),
    NUMBER(tp_faults, hold_ns),
    NUMBER(tp_faults, hold_frames),
    NUMBER(tp_faults, delay_ns),
    NUMBER(tp_faults, delay_jitter_ns),
    NUMBER(tp_faults, only_payload),
    NUMBER(tp_faults, port),
    {0},
};

static int set(const struct option *known, void *into, const char *word) {
    size_t name_length = strcspn(word, "=");
    if (word[name_length] != '=')
        return -EINVAL;
    const char *value = word + name_length + 1;
    for (; known->name; known++) {
        if (strlen(known->name) != name_length || strncmp(known->name, word, name_length) != 0)
            continue;
        char *end;
        errno = 0;
        if (known->is_probability) {
            double probability = strtod(value, &end);
            memcpy((char *)into + known->offset, &probability, sizeof probability);
        } else {
            uint64_t number = strtoull(value, &end, 10);
            memcpy((char *)into + known->offset, &number, sizeof number);
        }
        return errno || end == value || *end ? -EINVAL : 0;
    }
    return -EINVAL;
}

int tp_options_parse(struct tp_options *options, char *const *words, const char **wrong) {
    static const char *const prefixes[] = {"to_client.", "to_server."};
    *options = (struct tp_options){0};
    for (; *words; words++) {
        *wrong = *words;
        int error = -EINVAL;
        for (size_t i = 0; i < 2 && error; i++) {
            size_t length = strlen(prefixes[i]);
            if (strncmp(*words, prefixes[i], length) == 0)
                error = set(faults_known, &options->faults[i], *words + length);
        }
        if (error)
            error = set(options_known, options, *words);
        if (error)
            return error;
    }
    return 0;
}
