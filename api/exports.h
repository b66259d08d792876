/* api/exports.h - what exports say to elements and pairs. Private to api/. */
#ifndef API_EXPORTS_H
#define API_EXPORTS_H

#include "api/resource.h"

/** The member "Export" of an element: an object, or null. */
void export_render_in(struct call *call, struct store_reader *reader,
        struct writer *writer, const struct uuid *id);

/** True: the element is exported; the outcome is 6 and names the export. */
bool export_holds(
        struct store_reader *reader, const char *id, struct api_outcome *outcome);

/** The initiators of a row as a list that points into @text. Returns how many. */
size_t export_names(char *text, const char **names, size_t room);

/** Serve @row as it is now: one that is not served yet; in place of what is served; or by new
    terms of it alone, which exporter->settle() puts in force. */
enum export_how { EXPORT_PUBLISH, EXPORT_REPLACE, EXPORT_CHANGE };

/** 0, or -ENODEV (nobody is there to serve), -ENOKEY, -ENOMEM, and as exporter->publish() and its
    kin. What is served is not touched before the rest of @row is at hand. May wait for the far
    side, and for sessions to end. */
int export_serve_row(struct service *service, const struct store_export *row,
        enum export_how how, struct fault *fault);

/* -- what hosts and copies have written (written.c) --------------------------------- */

/** In the turn that makes or removes a read-write export: its bytes are written by hosts. */
void export_written_note(struct clerk_turn *turn, const struct store_element *element);

/** A copy that wrote the LUN at @address has ended, and left writes there that may still be
    carried out (@loose), or it has not: then none of any copy before are left either. */
void written_loose(struct clerk_turn *turn, const char *address, bool loose);

/** Have hosts ever written some of its bytes, or may a copy's writes still come? Who writes
    them next opens with a barrier. */
bool written_before(struct store_reader *reader, const struct engine_element *element);

/* -- who has an export in hand (exports_hand.c) -------------------------------------------- */

/** Nobody else changes what is served of @id, an element. Waits for who has it, half a minute at
    most; @cancel: whose opening of it is not wanted any more. False: the outcome says why. */
bool export_hand_take(struct call *call, const struct uuid *id, bool cancel);
void export_hand_give(struct service *service, const struct uuid *id);

/** The same for who tries it again. Never waits. False: another has it, or it rests. */
bool export_hand_try(struct service *service, const struct uuid *id);
/** Instead of export_hand_give(), when it was in vain. */
void export_hand_rest(struct service *service, const struct uuid *id);

#endif
