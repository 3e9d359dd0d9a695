/* A libcuda.so.1 that knows its version: FAKE_CUDA_VERSION, "12020" or "error 804", "hang", "crash". It has no device.
 *
 * Where FAKE_NVML_FILE names a file, its line "libcuda=" says the same.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *told(void) {
    static char line[128];
    const char *path = getenv("FAKE_NVML_FILE");
    if (!path) return getenv("FAKE_CUDA_VERSION");
    FILE *file = fopen(path, "r");
    const char *found = NULL;
    while (file && !found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, "libcuda=", 8)) found = line + 8;
    }
    if (file) fclose(file);
    return found;
}

int cuDriverGetVersion(int *version) {
    const char *text = told();
    if (!text) return 999;
    if (!strcmp(text, "hang")) for (;;) pause();
    if (!strcmp(text, "crash")) abort();
    if (!strncmp(text, "error ", 6)) return atoi(text + 6);
    *version = atoi(text);
    return 0;
}

int cuInit(unsigned flags) { (void)flags; return 100; }
