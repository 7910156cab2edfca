/* One search in the runs of the table. */
#include "text/unicode_case.h"

#include "text/unicode_tables.h"

uint32_t sp_unicode_lower(uint32_t code) {
    if (code < 0x80) return code >= 'A' && code <= 'Z' ? code + 32 : code;
    if (code == 0x130) return 'i';
    int64_t low = 0, high = sp_n_lowercase_runs;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (sp_lowercase_runs[middle].last < code)
            low = middle + 1;
        else
            high = middle;
    }
    const sp_case_run *run = &sp_lowercase_runs[low];
    if (low == sp_n_lowercase_runs || code < run->first || (code - run->first) % run->step != 0) return code;
    return (uint32_t)((int64_t)code + run->distance);
}
