/* SPDX-License-Identifier: Apache-2.0
 *
 * Which programs run: for each hook the best way of attaching that this kernel lets us have, found by trying.
 *
 * What is kept of a socket lies where typed programs and kprobes cannot share it. So the stream's hooks are all typed
 * (tp_btf or fentry, each the best it can) or all kprobes: the family that gives more of them, typed first.
 */
#ifndef TICKPATH_RUNGS_H
#define TICKPATH_RUNGS_H

#include <stdbool.h>
#include <stddef.h>

#include "kernel.h"

enum tp_hook { TP_HOOK_READABLE, TP_HOOK_COPIED, TP_HOOK_STATE, TP_HOOK_ASKED, TP_HOOKS };

/* Best first. */
enum tp_mode { TP_MODE_TP_BTF, TP_MODE_FENTRY, TP_MODE_KPROBE, TP_MODE_BCC, TP_MODES, TP_MODE_NONE = TP_MODES };

#define TP_HOOK_PROGRAMS 2 /* at most: the entry and the return of a function; or one that stands in for the other */
#define TP_WHY_BYTES 256

struct bpf_object;
struct bpf_link;

struct tp_attached {
    enum tp_mode mode;
    bool stands_in;            /* each program for the other, where the kernel leaves that one out */
    struct bpf_object *object; /* of its own: it holds no program but these; NULL where mode is none */
    struct bpf_link *links[TP_HOOK_PROGRAMS];
    int programs[TP_HOOK_PROGRAMS]; /* descriptors, the object's; -1 */
    char why[TP_WHY_BYTES];         /* why none; one line */
    int error;
};

/* Maps that the objects share, by number. */
enum tp_shared { TP_SHARED_EVENTS, TP_SHARED_COUNTERS, TP_SHARED_SOCKETS, TP_SHARED_ASKING, TP_SHARED };

/* What bcc attached of the hook state: descriptors, -1 where there are fewer. */
#define TP_ADOPTED 8
struct tp_adopted {
    int events; /* maps, as the others' are */
    int counters;
    int programs[TP_HOOK_PROGRAMS];
    int tracepoints[TP_ADOPTED]; /* attached as long as they are open */
};

struct tp_rungs {
    struct tp_attached hooks[TP_HOOKS];
    int tracepoints[TP_ADOPTED]; /* descriptors of our own; -1 */
    int maps[TP_SHARED];         /* descriptors of our own; -1 */
};

struct tp_rungs_wanted {
    const char *typed_path; /* the object files */
    const char *kprobe_path;
    const char *btf_path; /* types of this kernel for one that publishes none; NULL: its own */
    struct tp_kernel_config config;
    uint32_t buffer_bytes; /* a power of two and a multiple of the page size */
    uint32_t hooks;        /* set of 1 << enum tp_hook */
    enum tp_mode only;     /* TP_MODE_NONE: the best */
};

#define TP_HOOKS_ALL ((1u << TP_HOOKS) - 1)

/* "readable", "tp_btf": as operators and metrics know them. */
const char *tp_hook_name(enum tp_hook);
const char *tp_mode_name(enum tp_mode);

/* Loads and attaches: from then on the programs run, and records wait in the buffer. A hook that cannot be had has mode
 * none and says why.
 *
 * @return 0 where readable or copied can be had; where neither is wanted, any that is; with `only`, all but asked. Else
 *         with one line in `why`: -ENOENT (the kernel has no types), -EOPNOTSUPP (it has no such hook), -EPERM, -errno
 *         of a failed call. All is closed then. */
int tp_rungs_attach(struct tp_rungs *, const struct tp_rungs_wanted *, char *why, size_t why_bytes);

/* Takes the descriptors over. The hooks that bcc cannot serve have mode none. */
void tp_rungs_adopt(struct tp_rungs *, const struct tp_adopted *);

/* No program runs after it; the maps stay. Harmless on one that is detached. */
void tp_rungs_detach(struct tp_rungs *);

/* Harmless on one that is closed, not on one that is all zero. */
void tp_rungs_close(struct tp_rungs *);

/* Makes a socket of this process one of a wanted process's; by bcc, which knows attempts alone, nothing. 0, -errno. */
int tp_rungs_claim(const struct tp_rungs *, int socket_fd);

#endif
