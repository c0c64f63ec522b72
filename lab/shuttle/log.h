/* SPDX-License-Identifier: Apache-2.0
 *
 * The log's writing end: records go into a mapped window that moves along the file, so that one costs a copy.
 */
#ifndef TICKPATH_LAB_SHUTTLE_LOG_H
#define TICKPATH_LAB_SHUTTLE_LOG_H

#include "lab/shuttle/record.h"

struct tp_log {
    int fd;
    struct tp_truth_header *header;
    struct tp_truth *window;
    uint64_t records;
};

/* Take over an empty file. @return 0 or a negative errno. */
int tp_log_open(struct tp_log *log, int fd);

/* @return 0, or a negative errno when there is no memory for more: the record is not in the log. */
int tp_log_append(struct tp_log *log, const struct tp_truth *record);

void tp_log_close(struct tp_log *log);

#endif
