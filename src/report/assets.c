/* page.css and page.js of this folder, and Chart.js (MIT licence, its notice is its first comment) from the system.
 * CMake says where they are, and compiles this file again when one of them changes. */
#include "report/assets.h"

#define EMBED(name, path)                                                                                              \
    __asm__(".pushsection .rodata\n"                                                                                   \
            ".global " #name "_begin\n.hidden " #name "_begin\n" #name "_begin:\n"                                     \
            ".incbin \"" path "\"\n"                                                                                   \
            ".global " #name "_end\n.hidden " #name "_end\n" #name "_end:\n"                                           \
            ".byte 0\n.popsection\n")

EMBED(sp_asset_page_css, SP_PAGE_CSS_PATH);
EMBED(sp_asset_page_js, SP_PAGE_JS_PATH);
#if SP_WITH_CHART_JS
EMBED(sp_asset_chart_js, SP_CHART_JS_PATH);
#endif
