/* page.css and page.js of this folder, and Chart.js (MIT licence, its notice is its first comment) from the system.
 * CMake says where they are, and compiles this file again when one of them changes. */
#include "report/assets.h"

#include "base/embed.h"

SP_EMBED(sp_asset_page_css, SP_PAGE_CSS_PATH);
SP_EMBED(sp_asset_page_js, SP_PAGE_JS_PATH);
#if SP_WITH_CHART_JS
SP_EMBED(sp_asset_chart_js, SP_CHART_JS_PATH);
#endif
