/* How a folder is replaced so that a killed process leaves the old one or the new one, whole.
 *
 * Beside FOLDER two more names may stand, FOLDER.swap-new and FOLDER.swap-old.  At every moment:
 *   1. FOLDER and FOLDER.swap-old are complete when they exist; FOLDER.swap-new is never read and may always
 * be removed;
 *   2. once a FOLDER was written, FOLDER or FOLDER.swap-old exists; FOLDER counts when both do.
 * A swap fills FOLDER.swap-new, syncs it, renames FOLDER to FOLDER.swap-old, FOLDER.swap-new to FOLDER, syncs
 * the parent, and only then removes FOLDER.swap-old.  Removal renames to FOLDER.swap-new first, so that a
 * half-empty folder has no other name. Two processes that write the same folder at once are not catered for.
 */
#define _POSIX_C_SOURCE 200809L
#include "checkpoint/folder_swap.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"

/* `folder` without slashes at its end, and `suffix`. */
static sp_status name_beside(char out[SP_PATH_BYTES], const char *folder, const char *suffix) {
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/') length--;
    int written = snprintf(out, SP_PATH_BYTES, "%.*s%s", (int)length, folder, suffix);
    SP_REQUIRE(length > 0 && written < SP_PATH_BYTES, SP_IO, "%.200s: not a usable path", folder);
    return SP_OK;
}

static bool stands(const char *path) {
    struct stat facts;
    return lstat(path, &facts) == 0;
}

static sp_status rename_folder(const char *from, const char *to) {
    SP_REQUIRE(rename(from, to) == 0, SP_IO, "%s: cannot be renamed to %s: %s", from, to, strerror(errno));
    return SP_OK;
}

static bool is_empty(const char *folder) {
    DIR *entries = opendir(folder);
    if (!entries) return false;
    int n = 0;
    while (n < 3 && readdir(entries)) n++; /* "." and ".." are always there */
    closedir(entries);
    return n == 2;
}

/* Only what this library would have written may be replaced: nobody's documents. */
static sp_status check_replaceable(const char *folder, bool replace) {
    if (!stands(folder)) return SP_OK;
    char config[SP_PATH_BYTES];
    SP_REQUIRE(replace, SP_IO, "%s: exists already", folder);
    SP_TRY(sp_path_join(config, sizeof config, folder, "config.json"));
    SP_REQUIRE(sp_file_exists(config) || is_empty(folder), SP_IO,
               "%s: exists and is not a checkpoint: it is not replaced", folder);
    return SP_OK;
}

sp_status sp_swap_begin(const char *folder, bool replace, char temporary[SP_PATH_BYTES]) {
    char place[SP_PATH_BYTES];
    SP_TRY(name_beside(place, folder, ""));
    SP_TRY(name_beside(temporary, folder, SP_SWAP_TEMPORARY));
    SP_TRY(sp_swap_recover(folder));
    SP_TRY(check_replaceable(place, replace));
    return sp_folder_make(temporary);
}

sp_status sp_swap_commit(const char *folder) {
    char place[SP_PATH_BYTES], temporary[SP_PATH_BYTES], old[SP_PATH_BYTES];
    SP_TRY(name_beside(place, folder, ""));
    SP_TRY(name_beside(temporary, folder, SP_SWAP_TEMPORARY));
    SP_TRY(name_beside(old, folder, SP_SWAP_OLD));
    SP_TRY(sp_folder_sync(temporary));
    bool replaces = stands(place);
    if (replaces) SP_TRY(rename_folder(place, old));
    sp_status status = rename_folder(temporary, place);
    if (status != SP_OK && replaces && rename(old, place) != 0)
        return sp_fail(SP_IO, "%s: cannot be replaced, and what it held is now in %s", place, old);
    SP_TRY(status);
    SP_TRY(sp_folder_sync_parent(place));
    return replaces ? sp_swap_recover(folder) : SP_OK;
}

void sp_swap_abandon(const char *folder) {
    char temporary[SP_PATH_BYTES];
    if (name_beside(temporary, folder, SP_SWAP_TEMPORARY) == SP_OK && sp_folder_remove(temporary) != SP_OK)
        sp_log(SP_LOG_WARNING, "%s: cannot be removed", temporary);
}

sp_status sp_swap_resolve(const char *folder, char path[SP_PATH_BYTES]) {
    char old[SP_PATH_BYTES];
    SP_TRY(name_beside(path, folder, ""));
    SP_TRY(name_beside(old, folder, SP_SWAP_OLD));
    if (!stands(path) && sp_folder_exists(old)) memcpy(path, old, sizeof old);
    return SP_OK;
}

sp_status sp_swap_recover(const char *folder) {
    char place[SP_PATH_BYTES], temporary[SP_PATH_BYTES], old[SP_PATH_BYTES];
    SP_TRY(name_beside(place, folder, ""));
    SP_TRY(name_beside(temporary, folder, SP_SWAP_TEMPORARY));
    SP_TRY(name_beside(old, folder, SP_SWAP_OLD));
    SP_TRY(sp_folder_remove(temporary));
    if (!stands(old)) return SP_OK;
    if (!stands(place)) return rename_folder(old, place);
    SP_TRY(rename_folder(old, temporary));
    return sp_folder_remove(temporary);
}

sp_status sp_swap_remove(const char *folder) {
    char place[SP_PATH_BYTES], temporary[SP_PATH_BYTES];
    SP_TRY(name_beside(place, folder, ""));
    SP_TRY(name_beside(temporary, folder, SP_SWAP_TEMPORARY));
    SP_TRY(sp_folder_remove(temporary));
    SP_TRY(rename_folder(place, temporary));
    return sp_folder_remove(temporary);
}
