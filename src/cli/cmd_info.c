/* softpick info: what this machine and this build can do. */
#include "cli/cli.h"

#include <stdio.h>

#include "softpick/device.h"

int cmd_info(int argc, char **argv) {
    static const struct argp argp = {.doc = "Shows what this machine and this build can do."};
    cli_parse(&argp, argc, argv, NULL);
    printf("softpick  %s, commit %s\n", sp_version(), cli_build.commit);
    printf("build     %s, %s, sanitizers: %s\n", cli_build.type, cli_build.compiler,
           *cli_build.sanitizers ? cli_build.sanitizers : "none");
    printf("CUDA      %s, %d devices\n", sp_cuda_built() ? "built in" : "not in this build", sp_cuda_device_count());
    return CLI_DONE;
}
