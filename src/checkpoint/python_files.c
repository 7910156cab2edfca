/* The files of python/softpick_llama, embedded.  CMake says where they are, and compiles this file again when one of
 * them changes. */
#include "checkpoint/python_files.h"

#include <stdint.h>
#include <string.h>

#include "base/embed.h"
#include "base/file.h"
#include "base/json.h"
#include "checkpoint/folder_swap.h"

SP_EMBED(sp_python_configuration, SP_PYTHON_FOLDER "/configuration_softpick_llama.py");
SP_EMBED(sp_python_modeling, SP_PYTHON_FOLDER "/modeling_softpick_llama.py");

static const struct {
    const char *name, *begin, *end;
} files[] = {
    {"configuration_softpick_llama.py", sp_python_configuration_begin, sp_python_configuration_end},
    {"modeling_softpick_llama.py", sp_python_modeling_begin, sp_python_modeling_end},
};

sp_status sp_python_files_write(const char *folder, const char *config) {
    json_t *json;
    SP_TRY(sp_json_parse(&json, config, (int64_t)strlen(config), "the config of a checkpoint"));
    bool wanted = json_object_get(json, "auto_map") != NULL;
    json_decref(json);
    for (size_t i = 0; wanted && i < sizeof files / sizeof *files; i++) {
        char path[SP_PATH_BYTES];
        SP_TRY(sp_path_join(path, sizeof path, folder, files[i].name));
        SP_TRY(sp_file_write(path, files[i].begin, files[i].end - files[i].begin));
    }
    return SP_OK;
}
