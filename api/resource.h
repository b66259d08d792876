/* api/resource.h - what the resources have in common: a row by the path's {id}, a row
 * as the answer, refusals from problems, texts for rows. Private to api/.
 */
#ifndef API_RESOURCE_H
#define API_RESOURCE_H

#include "api/service.h"

/** Writes the members of an object that is open. */
typedef void render_f(struct call *call, struct store_reader *reader,
        struct writer *writer, const void *row);

/** True: the call is a CIM method: its errors have a ReturnValue. */
bool call_is_method(const struct call *call);

/**
 * The row that {id} of the path names. False: the outcome is NOT_FOUND (a method:
 * NO_REFERENCE with 5) or INTERNAL.
 */
bool call_find(struct call *call, struct store_reader *reader, enum store_table table,
        void *row);

/** The same inside a turn. */
bool turn_find(
        struct call *call, struct clerk_turn *turn, enum store_table table, void *row);

/** The outcome: 5, or 1 when nothing is worse, with every problem of the call. */
void call_refuse(struct call *call);

/** False: there is a parameter in the query; the outcome is MALFORMED. */
bool call_no_query(struct call *call);

/** @row as an object of its own and its tag; DONE, or NOT_MODIFIED for a READ whose tag
    agrees. @path: "/elements/ID". */
void call_answer(struct call *call, struct store_reader *reader, render_f *render,
        const void *row, int64_t revision);

/** MADE, with the object and its Location. */
void call_made(struct call *call, struct store_reader *reader, render_f *render,
        const void *row, int64_t revision, const char *collection, const char *id);

/** Serve GET of one row: find, render, tag. @revision: of the row that was found. */
void call_get(struct call *call, enum store_table table, void *row, render_f *render,
        int64_t *revision);

/** {"ReturnValue":0,"ReturnValueName":"...","Job":null}: a method that is done. */
void call_done(struct call *call);

/** MALFORMED: nothing was reached. */
void call_malformed(struct call *call, const char *format, ...)
        __attribute__((format(printf, 2, 3)));

/** Event of a row that has come, changed or gone. @changed: takes the writer of the
    members that changed; NULL: none. */
void event_row(struct clerk_turn *turn, const char *kind, const char *type,
        const char *collection, const char *id, struct writer *changed);

/** JSON text of an array of @count strings. False: it does not fit. */
bool texts_to_json(char *json, size_t room, size_t count, const char *const *texts);

/** "ElementName" left out: @type and the end of the id. */
void name_make(char name[STORE_NAME], const char *type, const struct uuid *id);

/** [A-Za-z0-9._-], 1..64, no leading dot: names a file and nothing else. */
bool word_is_plain(const char *word);

/** ReturnValueName as the method of that name spells it. */
const char *return_name(const char *method, int64_t value);

#endif
