/* How a folder is replaced so that a killed process leaves the old one or the new one, whole. */
#ifndef SP_CHECKPOINT_FOLDER_SWAP_H
#define SP_CHECKPOINT_FOLDER_SWAP_H

#include <stdbool.h>

#include "base/status.h"

enum { SP_PATH_BYTES = 4096 };

#define SP_SWAP_TEMPORARY ".swap-new"
#define SP_SWAP_OLD       ".swap-old"

/* Finishes what a killed swap left undone, refuses a `folder` that may not be replaced, and makes an empty
 * `temporary` beside it. */
SP_MUST_CHECK sp_status sp_swap_begin(const char *folder, bool replace, char temporary[SP_PATH_BYTES]);
/* Puts the temporary folder in the place of `folder`; on failure `folder` is what it was. */
SP_MUST_CHECK sp_status sp_swap_commit(const char *folder);
/* Removes the temporary folder, if there is one. */
void sp_swap_abandon(const char *folder);

/* The path under which the content of `folder` stands now: itself, or the old one in the middle of a killed
 * swap. */
SP_MUST_CHECK sp_status sp_swap_resolve(const char *folder, char path[SP_PATH_BYTES]);
/* Puts back, or removes, what a killed swap or a killed removal left beside `folder`. */
SP_MUST_CHECK sp_status sp_swap_recover(const char *folder);
/* Removes `folder`; killed at any moment it leaves it whole or gone under its name. */
SP_MUST_CHECK sp_status sp_swap_remove(const char *folder);

#endif
