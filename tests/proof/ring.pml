/* SPDX-License-Identifier: Apache-2.0
 *
 * The ring's two protocols, checked over every interleaving and every reordering that C11 allows: records through a
 * slot (-DSLOTS; tp_ring_write, tp_ring_read of tickpath/ring.h) and rows through their seqlock (-DROWS; row_store,
 * tp_ring_row_at of tickpath/ring.c). With -DKILL the producer is killed anywhere once and a successor goes on.
 * -DWITHOUT_... takes one ordering or one step away; each such model must fail.
 *
 * Spin itself is sequentially consistent, so weak memory is written out here, by views: every location keeps all its
 * stores, and a load may take any of them that the loading thread is not yet obliged to be past. A thread is obliged by
 * what it read there before, and by what an acquire of its own learnt from a release. One thread stores and the other
 * only loads, so what is released is always "the first n stores of the writer": one number. No load of one side feeds a
 * store of the other, so nothing that C11 allows is left out (load buffering needs both).
 *
 * A line that stands for an atomic operation of the C source carries it after "C:"; test_ring_model.py compares these
 * with the source. "C (private):" is memory that no other thread touches.
 */

#ifdef WITHOUT_INVALIDATION_FENCE
#define RELEASE_INVALIDATION RELAXED
#else
#define RELEASE_INVALIDATION RELEASE
#endif
#ifdef WITHOUT_RELEASE_OF_NUMBER
#define RELEASE_NUMBER RELAXED
#else
#define RELEASE_NUMBER RELEASE
#endif
#ifdef WITHOUT_RELEASE_OF_HEAD
#define RELEASE_HEAD RELAXED
#else
#define RELEASE_HEAD RELEASE
#endif
#ifdef WITHOUT_ACQUIRE_OF_NUMBER
#define ACQUIRE_NUMBER RELAXED
#else
#define ACQUIRE_NUMBER ACQUIRE
#endif
#ifdef WITHOUT_RECHECK_FENCE
#define ACQUIRE_WORDS RELAXED
#else
#define ACQUIRE_WORDS ACQUIRE
#endif
#ifdef WITHOUT_ACQUIRE_OF_HEAD
#define ACQUIRE_HEAD RELAXED
#else
#define ACQUIRE_HEAD ACQUIRE
#endif

#define RELAXED 0
#define RELEASE 1
#define ACQUIRE 2

#ifdef SLOTS
#define CAPACITY 2
#ifndef RECORDS
#define RECORDS 5
#endif
#define NUMBER(slot) (slot)
#define FIRST(slot) (CAPACITY + (slot))
#define SECOND(slot) (2 * CAPACITY + (slot))
#define HEAD (3 * CAPACITY)
#define LOCATIONS (3 * CAPACITY + 1)
#define STORES 10
#else
#define CAPACITY 1
#ifndef RECORDS
#define RECORDS 3
#endif
#define VERSION 0
#define FIRST(slot) 1
#define SECOND(slot) 2
#define LOCATIONS 3
#define STORES 14
#endif
#define ATTEMPTS (RECORDS + 3)

/* --- memory: every store that was made to a location, with its place in the writer's order and what it releases --- */
byte value[LOCATIONS * STORES];
byte place[LOCATIONS * STORES];
byte releases[LOCATIONS * STORES];
byte latest[LOCATIONS];
byte stored;   /* stores of the writer so far */
byte released; /* how many of them its last release fence covers */

inline store(location, what, order) {
    d_step {
        stored++;
        latest[location]++;
        assert(latest[location] < STORES);
        value[(location) * STORES + latest[location]] = what;
        place[(location) * STORES + latest[location]] = stored;
        if
        :: (order) == RELEASE -> releases[(location) * STORES + latest[location]] = stored
        :: else -> releases[(location) * STORES + latest[location]] = released
        fi
    }
}

inline release_fence(order) {
    d_step {
        if
        :: (order) == RELEASE -> released = stored
        :: else
        fi
    }
}

/* The reader's view. */
byte seen[LOCATIONS]; /* per location: which store it last took */
byte obliged;         /* it is past the first so many stores of the writer, wherever they went */
byte pending;         /* what its loads have met and an acquire fence would oblige it to */
hidden byte at;

inline load(location, into, order) {
    atomic {
        at = seen[location];
        do
        :: at < latest[location] && place[(location) * STORES + at + 1] <= obliged -> at++
        :: else -> break
        od;
        do
        :: at < latest[location] -> at++
        :: break
        od;
        seen[location] = at;
        into = value[(location) * STORES + at];
        at = releases[(location) * STORES + at];
        if
        :: at > pending -> pending = at
        :: else
        fi;
        if
        :: (order) == ACQUIRE && at > obliged -> obliged = at
        :: else
        fi;
        at = 0
    }
}

inline acquire_fence(order) {
    d_step {
        if
        :: (order) == ACQUIRE && pending > obliged -> obliged = pending
        :: else
        fi
    }
}

/* --- what the properties speak of --- */
byte attempt;               /* a record or row being written, also one that a kill cuts off: its words carry this */
byte holds[ATTEMPTS];       /* the number of the record of an attempt */
byte begun;                 /* highest number whose slot has begun to be taken */
bool finished;              /* the writer is done */
bool killed, was_killed;

#ifdef KILL
active proctype kill() {
    killed = true
}
#endif

#ifdef SLOTS
/* --- tp_ring_write -------------------------------------------------------------------------------------------- */
byte head;

inline write() {
    d_step {
        number = head + 1;
        head = number;
        slot = (number - 1) % CAPACITY;
        attempt++;
        holds[attempt] = number;
        begun = number
    }
#ifdef WITHOUT_ORDER_OF_HEAD
    store(HEAD, number, RELEASE);
#endif
#ifndef WITHOUT_INVALIDATION
    store(NUMBER(slot), 0, RELAXED); /* C: atomic_store_explicit(&slot->words[0], 0, memory_order_relaxed) */
#endif
    release_fence(RELEASE_INVALIDATION); /* C: atomic_thread_fence(memory_order_release) */
    store(FIRST(slot), attempt, RELAXED); /* C: atomic_store_explicit(&slot->words[word], words[word], memory_order_relaxed) */
    store(SECOND(slot), attempt, RELAXED); /* again, the next word */
    store(NUMBER(slot), number, RELEASE_NUMBER); /* C: atomic_store_explicit(&slot->words[0], number, memory_order_release) */
#ifndef WITHOUT_ORDER_OF_HEAD
    store(HEAD, number, RELEASE_HEAD); /* C: atomic_store_explicit(&writer->header->head, number, memory_order_release) */
#endif
}
/* --- end --- */

/* take_over of ring.c. The kernel gave the lock up after the last store of the dead, so all of them are seen. */
inline take_over() {
    d_step {
        head = value[HEAD * STORES + latest[HEAD]];
        slot = head % CAPACITY;
        number = value[NUMBER(slot) * STORES + latest[NUMBER(slot)]]
    }
    if
    :: number == head + 1 -> head = number; store(HEAD, head, RELEASE)
    :: else
    fi
}

active proctype writer() {
    byte number, slot;
    do
    :: head < RECORDS ->
#ifdef KILL
        { write() } unless { killed && !was_killed };
        if
        :: killed && !was_killed -> was_killed = true; take_over()
        :: else
        fi
#else
        write()
#endif
    :: else -> break
    od;
    finished = true
}

/* --- tp_ring_read: one turn of its loop -------------------------------------------------------------------------- */
byte cursor, received, lost;

inline read() {
    wanted = cursor + 1;
    slot = (wanted - 1) % CAPACITY;
    load(NUMBER(slot), number, ACQUIRE_NUMBER); /* C: atomic_load_explicit(&slot->words[0], memory_order_acquire) */
    taken = false;
    if
    :: number == wanted ->
        load(FIRST(slot), one, RELAXED); /* C: atomic_load_explicit(&slot->words[word], memory_order_relaxed) */
        load(SECOND(slot), other, RELAXED); /* again, the next word */
        /* C (private): atomic_store_explicit(&into->words[word], value, memory_order_relaxed) */
        acquire_fence(ACQUIRE_WORDS); /* C: atomic_thread_fence(memory_order_acquire) */
#ifndef WITHOUT_RECHECK
        load(NUMBER(slot), number, RELAXED); /* C: atomic_load_explicit(&slot->words[0], memory_order_relaxed) */
#endif
        if
        :: number == wanted ->
            /* C (private): atomic_store_explicit(&into->words[0], wanted, memory_order_relaxed) */
            d_step {
                assert(one == other);          /* not torn */
                assert(holds[one] == wanted);  /* and the very record that was asked for */
                cursor = wanted;
                received++;
                taken = true
            }
        :: else
        fi
    :: else
    fi;
    if
    :: taken
    :: else ->
        load(HEAD, reached, ACQUIRE_HEAD); /* C: atomic_load_explicit(&reader->header->head, memory_order_acquire) */
        if
        :: reached >= wanted ->
#ifdef WITHOUT_SECOND_LOOK
            number = 0;
#else
            load(NUMBER(slot), number, RELAXED); /* C: atomic_load_explicit(&slot->words[0], memory_order_relaxed) */
#endif
            if
            :: number == wanted /* it came between the two looks: the next turn takes it */
            :: else ->
                d_step {
                    if
                    :: reached - cursor < CAPACITY -> resume = cursor + 1
                    :: else -> resume = reached - CAPACITY / 2
                    fi;
                    if
                    :: resume > cursor ->
                        assert(begun >= wanted + CAPACITY); /* given up only when its slot is taken for a later one */
                        assert(resume <= reached);          /* and nothing that is not written yet */
                        lost = lost + resume - cursor;
                        cursor = resume
                    :: else
                    fi
                }
            fi
        :: else
        fi
    fi
}
/* --- end --- */

active proctype reader() {
    byte wanted, slot, number, one, other, reached, resume, first, before;
    bool taken;
    load(HEAD, first, ACQUIRE); /* tp_ring_attach, at any moment of the writer's life */
    cursor = first;
    do
    :: !finished -> read()
    :: finished && obliged < stored -> obliged = stored /* in the end every store is seen */
    :: finished && obliged == stored && cursor < RECORDS ->
        before = cursor;
        read();
        assert(cursor > before) /* what was written is then received or counted lost, without fail */
    :: finished && obliged == stored && cursor == RECORDS -> break
    od;
    assert(received + lost == RECORDS - first)
}

#else
/* --- row_store ---------------------------------------------------------------------------------------------------- */

/* The version is the low half of word 0, so that the copy stores it once more, unchanged. */
inline write(tag) {
    attempt++;
    odd = value[VERSION * STORES + latest[VERSION]] | 1; /* C (private): atomic_load_explicit(version, memory_order_relaxed) */
#ifndef WITHOUT_INVALIDATION
    store(VERSION, odd, RELAXED); /* C: atomic_store_explicit(version, odd, memory_order_relaxed) */
#endif
    release_fence(RELEASE_INVALIDATION); /* C: atomic_thread_fence(memory_order_release) */
#ifndef WITHOUT_INVALIDATION
    store(VERSION, odd, RELAXED); /* C: atomic_store_explicit(&into[word], words[word], memory_order_relaxed) */
#endif
    store(FIRST(0), tag, RELAXED); /* again, the next word */
    store(SECOND(0), tag, RELAXED); /* again, the next word */
    store(VERSION, odd + 1, RELEASE_NUMBER); /* C: atomic_store_explicit(version, odd + 1, memory_order_release) */
}
/* --- end --- */

active proctype writer() {
    byte odd, done;
    do
    :: done < RECORDS ->
        done++;
#ifdef KILL
        { write(done) } unless { killed && !was_killed };
        if
        :: killed && !was_killed ->
            was_killed = true;
            if
            :: value[VERSION * STORES + latest[VERSION]] & 1 -> write(done) /* take_over: emptied */
            :: else
            fi
        :: else
        fi
#else
        write(done)
#endif
    :: else -> break
    od;
    finished = true
}

/* --- tp_ring_row_at: one attempt ---------------------------------------------------------------------------------- */
inline read() {
    load(VERSION, before, ACQUIRE_NUMBER); /* C: atomic_load_explicit(version, memory_order_acquire) */
    /* row_copy */
    load(VERSION, again, RELAXED); /* C: atomic_load_explicit(&from[word], memory_order_relaxed) */
    load(FIRST(0), one, RELAXED); /* again, the next word */
    load(SECOND(0), other, RELAXED); /* again, the next word */
    acquire_fence(ACQUIRE_WORDS); /* C: atomic_thread_fence(memory_order_acquire) */
    again = before;
#ifndef WITHOUT_RECHECK
    load(VERSION, again, RELAXED); /* C: atomic_load_explicit(version, memory_order_relaxed) */
#endif
    whole = !(before & 1) && again == before;
    assert(!whole || one == other)
}
/* --- end --- */

active proctype reader() {
    byte before, again, one, other;
    bool whole;
    do
    :: !finished -> read()
    :: finished -> obliged = stored; break
    od;
    read();
    assert(whole && one == value[FIRST(0) * STORES + latest[FIRST(0)]]) /* the last row is there to be read */
}
#endif
