/* SPDX-License-Identifier: Apache-2.0
 *
 * The shuttle's command line: NAME=VALUE words, the faults of a direction as to_client.NAME and to_server.NAME.
 */
#ifndef TICKPATH_LAB_SHUTTLE_OPTIONS_H
#define TICKPATH_LAB_SHUTTLE_OPTIONS_H

#include "lab/shuttle/faults.h"

struct tp_options {
    uint64_t log_fd;
    uint64_t parent_pid;
    uint64_t seed;
    uint64_t mtu_bytes;
    uint64_t gro;
    struct tp_faults faults[2]; /* by enum tp_direction */
};

/* @return 0, or -EINVAL with *wrong set to the word that means nothing. */
int tp_options_parse(struct tp_options *options, char *const *words, const char **wrong);

#endif
