/* Result files to one HTML page.  May change in any release. */
#ifndef SOFTPICK_REPORT_H
#define SOFTPICK_REPORT_H

#include "softpick/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Reads results.json (docs/results.md) and writes one self-contained page: no network, no other file. */
SP_API SP_MUST_CHECK sp_status sp_report_write(const char *html_path, const char *results_path);

#ifdef __cplusplus
}
#endif
#endif
