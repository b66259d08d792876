/* What the program carries in itself: its OpenAPI document and the pages of /problems/. */
#include <stdlib.h>

#include "server/http/exchange.h"
#include "server/http/text.h"

/* OPENAPI_FILE comes from CMakeLists.txt; the assembler reads it into the program. */
__asm__(".pushsection .rodata\n"
        ".global openapi_bytes\n"
        ".hidden openapi_bytes\n"
        "openapi_bytes:\n"
        ".incbin \"" OPENAPI_FILE "\"\n"
        ".global openapi_end\n"
        ".hidden openapi_end\n"
        "openapi_end:\n"
        ".byte 0\n"
        ".popsection\n");

extern const char openapi_bytes[], openapi_end[];

enum MHD_Result openapi_serve(struct exchange *x)
{
    return answer_static(x, 200, "application/json", openapi_bytes,
            (size_t)((uintptr_t)openapi_end - (uintptr_t)openapi_bytes));
}

enum MHD_Result problem_serve(struct exchange *x)
{
    const struct problem_page *page = problem_page_find(x->id);
    struct text text = { 0 };

    if (!page) {
        exchange_refuse(x, "not-found", "there is no such problem");
        return answer_refusal(x);
    }
    text_print(&text, "%s (HTTP %d)\n\n%s\n", page->title, page->status, page->text);
    if (text.failed) {
        text_release(&text);
        return MHD_NO;
    }
    return answer_bytes(x, 200, "text/plain; charset=utf-8", text.bytes, text.length);
}
