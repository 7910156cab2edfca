/* The files that every page carries, embedded in the library as bytes: [begin, end). */
#ifndef SP_REPORT_ASSETS_H
#define SP_REPORT_ASSETS_H

extern const char sp_asset_page_css_begin[], sp_asset_page_css_end[];
extern const char sp_asset_page_js_begin[], sp_asset_page_js_end[];
#if SP_WITH_CHART_JS
extern const char sp_asset_chart_js_begin[], sp_asset_chart_js_end[];
#endif

#endif
