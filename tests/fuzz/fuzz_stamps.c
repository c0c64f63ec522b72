/* SPDX-License-Identifier: Apache-2.0
 *
 * Any bytes as control messages of a receive, or out of an error queue: none is read past, and a stamp is a time or
 * none.
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
    struct tp_control whole;
    int error = tp_control_parse(control, size, &whole);
    must(error == 0 || error == -EBADMSG, "the result is 0 or a known error");
    must(whole.stamps.sw_ns >= 0 && whole.stamps.hw_ns >= 0, "no stamp lies before 1970");
    must(whole.has_error || (!whole.error && !whole.data), "no error, nothing of one");
    free(control);
    return 0;
}
