/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as control messages of a receive: none is read past, and a stamp is a time or none.
 */
#include "fuzz.h"
#include "tickpath/stamps.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    struct tp_stamps stamps;
    uint8_t *control = exact_copy(bytes, size);
    int found = tp_stamps_parse(control, size, &stamps);
    must(found >= 0 || found == -EBADMSG, "the result is a number of messages or a known error");
    must(stamps.sw_ns >= 0 && stamps.hw_ns >= 0, "no stamp lies before 1970");
    must(found != 0 || (stamps.sw_ns == 0 && stamps.hw_ns == 0), "no message, no stamp");
    free(control);
    return 0;
}
