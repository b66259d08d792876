/* api/elements.h - what the files about elements share. Private to api/. */
#ifndef API_ELEMENTS_H
#define API_ELEMENTS_H

#include "api/resource.h"

enum { ELEMENT_BLOCK = 512 }; /* bytes: a file that plays a volume */

/** The body of POST /elements. */
struct element_input {
    char type[33], name[STORE_NAME], pool[STORE_WORD], address[STORE_ADDRESS];
    char credentials[STORE_WORD], of[UUID_TEXT];
    uint64_t size, offset;
    bool remote;
    bool has_type, has_name, has_pool, has_address, has_credentials, has_of, has_size,
            has_offset, has_remote;
};

/** A new element on its way. */
struct element_making {
    struct call *call;
    const struct element_input *input;
    struct store_element row;
    bool made; /* a file in the pool, not yet promised */
};

/** "StorageVolume" and its number; NULL, false for what is none. */
const char *element_type_name(int64_t type);
bool element_type_parse(const char *name, int64_t *type);

/** Fills address, size, identity... of the row, by opening the element. False: the
    outcome says why, and nothing was made. */
bool element_register(struct element_making *making);
/** The same for a fresh file in a pool; until the row is committed it is the caller's
    to unmake. */
bool element_allocate(struct element_making *making);
void element_unmake(struct element_making *making);

/** In the turn: an extent's row from its parent's. */
bool element_carve(struct element_making *making, struct clerk_turn *turn);

/** In the turn: false: somebody else is the same thing; the outcome names it. */
bool element_is_new(struct element_making *making, struct clerk_turn *turn);

/** The row's revision and what else its object shows, for the ETag. */
int64_t element_tag(struct store_reader *reader, const struct store_element *row);

#endif
