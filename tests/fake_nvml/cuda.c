/* A libcuda.so.1 that knows its version: FAKE_CUDA_VERSION, "12020" or "error 804", "hang", "crash". It has no device. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int cuDriverGetVersion(int *version) {
    const char *text = getenv("FAKE_CUDA_VERSION");
    if (!text) return 999;
    if (!strcmp(text, "hang")) for (;;) pause();
    if (!strcmp(text, "crash")) abort();
    if (!strncmp(text, "error ", 6)) return atoi(text + 6);
    *version = atoi(text);
    return 0;
}

int cuInit(unsigned flags) { (void)flags; return 100; }
