/* One spelling of a body: for fingerprints, InParameters and patches. */
#include <errno.h>
#include <string.h>

#include "api/json/decode.h"

char *body_canonical(const char *bytes, size_t length)
{
    struct body_problems ignored = { 0 };
    json_auto_t *object = NULL;

    if (length == 0)
        return strdup("{}");
    object = scan_object(bytes, length, HUGE_AS_STRING, "", &ignored);
    return object ? scan_canonical(object) : NULL;
}

/* RFC 7396, section 2. Depth is bounded: both sides came through scan_object(). */
static int patch_apply(json_t *target, json_t *patch)
{
    const char *key;
    json_t *value, *old;
    int result = 0;

    json_object_foreach(patch, key, value)
    {
        if (json_is_null(value)) {
            (void)json_object_del(target, key);
            continue;
        }
        if (!json_is_object(value)) {
            result |= json_object_set(target, key, value);
            continue;
        }
        old = json_object_get(target, key);
        if (!json_is_object(old)) {
            result |= json_object_set_new(target, key, json_object());
            old = json_object_get(target, key);
        }
        result |= old ? patch_apply(old, value) : -1;
    }
    return result;
}

char *body_patch(const char *text, const char *patch, size_t length)
{
    struct body_problems ignored = { 0 };
    json_auto_t *target = scan_object(text, strlen(text), HUGE_AS_STRING, "", &ignored);
    json_auto_t *change = scan_object(patch, length, HUGE_AS_STRING, "", &ignored);

    if (!target || !change || patch_apply(target, change) != 0)
        return NULL;
    return scan_canonical(target);
}
