/* How this program was built.  The four words are defined by CMakeLists.txt for this file alone. */
#include "cli/cli.h"

const struct cli_build cli_build = {
    .commit = SP_BUILD_COMMIT,
    .compiler = SP_BUILD_COMPILER,
    .type = SP_BUILD_TYPE,
    .sanitizers = SP_BUILD_SANITIZERS,
};
