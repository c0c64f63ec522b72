/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a TLS record ends: the cut that lets one complete record at a time be handed to the TLS engine.
 */
#ifndef TICKPATH_TLS_RECORD_H
#define TICKPATH_TLS_RECORD_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TP_TLS_HEADER_BYTES 5
/* TLS 1.2 allows 2^14 + 2048 bytes of ciphertext (RFC 5246, 6.2.3), TLS 1.3 less (RFC 8446, 5.2). */
#define TP_TLS_RECORD_BYTES (TP_TLS_HEADER_BYTES + 16384 + 2048)

/* @return the bytes of the complete record at `at`; 0 while it is not complete; -EPROTO when these bytes cannot begin
 * a TLS record (type 20 to 24, version 3.x, a length within the limit) */
static inline ssize_t tp_tls_record_cut(const uint8_t *at, size_t bytes) {
    if (bytes >= 1 && (at[0] < 20 || at[0] > 24))
        return -EPROTO;
    if (bytes >= 2 && at[1] != 3)
        return -EPROTO;
    if (bytes < TP_TLS_HEADER_BYTES)
        return 0;
    size_t record = TP_TLS_HEADER_BYTES + ((size_t)at[3] << 8 | at[4]);
    if (record > TP_TLS_RECORD_BYTES)
        return -EPROTO;
    return bytes >= record ? (ssize_t)record : 0;
}

#endif
