/* A libnvidia-ml.so.1 that answers what the environment variable FAKE_NVML says. README.md beside this file tells how.
 *
 * FAKE_NVML_FILE names a file to be read in its stead, each time that the library is loaded: what it says may change.
 * FAKE_NVML holds lines "key=value", the first one begun by a newline too. A handle is a number: the GPU's index plus
 * one, and for a MIG device its own index plus one in the next byte; its keys begin with "g<GPU>." or "g<GPU>.m<MIG>.".
 * -DOLD leaves out the functions that a driver of 2019 does not have.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, ARGUMENT_VERSION_MISMATCH = 25 };
typedef unsigned u32;
typedef unsigned long long u64;
typedef void *Handle;

/* ---- the scenario */

/* The scenario: the file's text, read once, or the variable's. */
static const char *scenario_text(void) {
    static char text[1 << 16];
    const char *path = getenv("FAKE_NVML_FILE");
    if (!path) return getenv("FAKE_NVML");
    FILE *file = text[0] ? NULL : fopen(path, "r");
    if (file) {
        text[fread(text, 1, sizeof text - 1, file)] = 0;
        fclose(file);
    }
    return text;
}

/* The text after "key=", up to its newline; NULL when there is no such key. */
static const char *value_of(const char *key) {
    char needle[160];
    int length = snprintf(needle, sizeof needle, "\n%s=", key);
    const char *scenario = scenario_text();
    const char *found = scenario ? strstr(scenario, needle) : NULL;
    return found ? found + length : NULL;
}

static const char *of(Handle handle, const char *name) {
    unsigned long id = (unsigned long)handle;
    char key[160];
    if (id >> 8) snprintf(key, sizeof key, "g%lu.m%lu.%s", (id & 255) - 1, (id >> 8) - 1, name);
    else if (id) snprintf(key, sizeof key, "g%lu.%s", id - 1, name);
    else snprintf(key, sizeof key, "%s", name);
    return value_of(key);
}

static int happens(const char *outcome) {
    if (!strncmp(outcome, "hang", 4)) for (;;) pause();
    if (!strncmp(outcome, "crash", 5)) raise(SIGSEGV);
    return atoi(outcome);
}

/* What is to befall this function: 0, a return code, or never coming back. */
static int outcome(Handle handle, const char *function) {
    char name[128];
    const char *suffix = strstr(function, "_v");
    snprintf(name, sizeof name, "!%.*s", (int)(suffix ? suffix - function : (long)strlen(function)), function);
    const char *text = of(0, name);
    int code = text ? happens(text) : 0;
    if (code || !handle) return code;
    text = of((Handle)((unsigned long)handle & 255), name);
    return text ? happens(text) : 0;
}

static int number(Handle handle, const char *function, const char *key, u64 *into) {
    int code = outcome(handle, function);
    const char *text = code ? NULL : of(handle, key);
    if (text) *into = strtoull(text, NULL, 10);
    return code ? code : text ? 0 : NOT_SUPPORTED;
}

static int text(Handle handle, const char *function, const char *key, char *into, u32 size) {
    int code = outcome(handle, function);
    const char *found = code ? NULL : of(handle, key);
    if (!found) return code ? code : NOT_SUPPORTED;
    u32 length = (u32)strcspn(found, "\n");
    if (length >= size) return INSUFFICIENT_SIZE;
    memcpy(into, found, length);
    into[length] = 0;
    return 0;
}

#define U32(function, key)                                                                                             \
    int function(Handle handle, u32 *out) {                                                                            \
        u64 read = 0;                                                                                                  \
        int code = number(handle, #function, key, &read);                                                              \
        if (!code) *out = (u32)read;                                                                                   \
        return code;                                                                                                   \
    }
#define U64(function, key)                                                                                             \
    int function(Handle handle, u64 *out) { return number(handle, #function, key, out); }

/* ---- the library and the system */

int nvmlInitWithFlags(u32 flags) { (void)flags; return outcome(0, "nvmlInit"); }
int nvmlInit_v2(void) { return outcome(0, "nvmlInit"); }
int nvmlShutdown(void) { return outcome(0, "nvmlShutdown"); }

const char *nvmlErrorString(int code) {
    switch (code) {
    case 0: return "Success";
    case 2: return "Invalid Argument";
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 6: return "Not Found";
    case 8: return "Insufficient External Power";
    case 9: return "Driver Not Loaded";
    case 10: return "Timeout";
    case 11: return "Interrupt Request Issue";
    case 13: return "Function Not Found";
    case 14: return "Corrupted infoROM";
    case 15: return "GPU is lost";
    case 16: return "GPU requires reset";
    case 17: return "The operating system has blocked the request";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *into, u32 size) { return text(0, "nvmlSystemGetDriverVersion", "driver", into, size); }
int nvmlSystemGetCudaDriverVersion(u32 *out) {
    u64 read = 0;
    int code = number(0, "nvmlSystemGetCudaDriverVersion", "cuda", &read);
    *out = (u32)read;
    return code;
}
int nvmlSystemGetCudaDriverVersion_v2(u32 *out) { return nvmlSystemGetCudaDriverVersion(out); }
int nvmlDeviceGetCount_v2(u32 *out) {
    u64 read = 0;
    int code = number(0, "nvmlDeviceGetCount", "gpus", &read);
    *out = (u32)read;
    return code;
}
int nvmlDeviceGetHandleByIndex_v2(u32 index, Handle *out) {
    *out = (Handle)(unsigned long)(index + 1);
    return outcome(*out, "nvmlDeviceGetHandleByIndex");
}

/* ---- one GPU */

int nvmlDeviceGetName(Handle h, char *into, u32 size) { return text(h, "nvmlDeviceGetName", "name", into, size); }
int nvmlDeviceGetUUID(Handle h, char *into, u32 size) { return text(h, "nvmlDeviceGetUUID", "uuid", into, size); }

typedef struct { char legacy[16]; u32 domain, bus, device, id, subsystem; char address[32]; } Pci;
int nvmlDeviceGetPciInfo_v3(Handle handle, Pci *out) {
    char address[32];
    u32 function = 0;
    int code = text(handle, "nvmlDeviceGetPciInfo", "pci", address, sizeof address);
    if (code) return code;
    memset(out, 0, sizeof *out);
    sscanf(address, "%x:%x:%x.%x", &out->domain, &out->bus, &out->device, &function);
    snprintf(out->address, sizeof out->address, "%08X:%02X:%02X.%X", out->domain, out->bus, out->device, function);
    return 0;
}

typedef struct { u64 total, reserved, free, used; } Memory;
static int memory(Handle handle, Memory *out) {
    int code = number(handle, "nvmlDeviceGetMemoryInfo", "total", &out->total);
    if (code) return code;
    const char *reserved = of(handle, "reserved"), *free_ = of(handle, "free"), *used = of(handle, "used");
    out->reserved = reserved ? strtoull(reserved, NULL, 10) : 0;
    out->free = free_ ? strtoull(free_, NULL, 10) : 0;
    out->used = used ? strtoull(used, NULL, 10) : 0;
    return 0;
}
int nvmlDeviceGetMemoryInfo(Handle handle, u64 out[3]) { /* total, free, used; used includes what is reserved */
    Memory m;
    int code = memory(handle, &m);
    if (!code) out[0] = m.total, out[1] = m.free, out[2] = m.used + m.reserved;
    return code;
}

int nvmlDeviceGetCudaComputeCapability(Handle handle, int *major, int *minor) {
    char version[16];
    int code = text(handle, "nvmlDeviceGetCudaComputeCapability", "cc", version, sizeof version);
    if (!code) sscanf(version, "%d.%d", major, minor);
    return code;
}

typedef struct { u32 gpu, memory; } Utilization;
int nvmlDeviceGetUtilizationRates(Handle handle, Utilization *out) {
    u64 read = 0;
    int code = number(handle, "nvmlDeviceGetUtilizationRates", "utilization", &read);
    out->gpu = out->memory = (u32)read;
    return code;
}

U32(nvmlDeviceGetComputeMode, "compute_mode")
U32(nvmlDeviceGetPersistenceMode, "persistence")
U32(nvmlDeviceGetDisplayActive, "display_active")
U32(nvmlDeviceGetCurrPcieLinkGeneration, "pcie_generation")
U32(nvmlDeviceGetMaxPcieLinkGeneration, "pcie_generation_max")
U32(nvmlDeviceGetCurrPcieLinkWidth, "pcie_width")
U32(nvmlDeviceGetMaxPcieLinkWidth, "pcie_width_max")
U32(nvmlDeviceGetPowerUsage, "power_draw")
U32(nvmlDeviceGetEnforcedPowerLimit, "power_limit")
U32(nvmlDeviceGetVirtualizationMode, "virtualization")
U64(nvmlDeviceGetCurrentClocksThrottleReasons, "throttle")

int nvmlDeviceGetTemperature(Handle handle, int sensor, u32 *out) {
    u64 read = 0;
    int code = number(handle, "nvmlDeviceGetTemperature", "temperature", &read);
    (void)sensor;
    *out = (u32)read;
    return code;
}
int nvmlDeviceGetTotalEccErrors(Handle handle, int type, int counter, u64 *out) {
    (void)type, (void)counter;
    return number(handle, "nvmlDeviceGetTotalEccErrors", "ecc_uncorrected", out);
}

/* A list "pid:bytes,pid:bytes"; all ones is NVML's "not available". */
typedef struct { u32 pid; u64 used; u32 gpu_instance, compute_instance; } Process;
static int processes(Handle handle, const char *function, const char *key, u32 *count, Process *into) {
    int code = outcome(handle, function);
    const char *list = code ? NULL : of(handle, key);
    if (!list) return code ? code : NOT_SUPPORTED;
    u32 room = *count;
    for (*count = 0; *list != '\n' && *list; ++*count) {
        char *rest;
        Process one = {(u32)strtoul(list, &rest, 10), 0, ~0u, ~0u};
        one.used = strtoull(rest + 1, &rest, 10);
        if (into && *count < room) into[*count] = one;
        list = *rest == ',' ? rest + 1 : rest;
    }
    return *count > room ? INSUFFICIENT_SIZE : 0;
}
#define PROCESSES(function, key)                                                                                       \
    int function(Handle handle, u32 *count, Process *into) { return processes(handle, #function, key, count, into); }
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v2, "compute")
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, "graphics")

/* ---- what drivers learnt later */
#ifndef OLD
PROCESSES(nvmlDeviceGetComputeRunningProcesses_v3, "compute")
PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, "graphics")
U64(nvmlDeviceGetCurrentClocksEventReasons, "throttle")
U32(nvmlDeviceGetMaxMigDeviceCount, "mig_max")

typedef struct { u32 version; Memory memory; } MemoryV2;
int nvmlDeviceGetMemoryInfo_v2(Handle handle, MemoryV2 *out) {
    return out->version == 0x02000028 ? memory(handle, &out->memory) : ARGUMENT_VERSION_MISMATCH;
}
int nvmlDeviceGetMigMode(Handle handle, u32 *current, u32 *pending) {
    u64 now = 0, later = 0;
    int code = number(handle, "nvmlDeviceGetMigMode", "mig", &now);
    if (!code) code = number(handle, "nvmlDeviceGetMigMode", "mig_pending", &later);
    *current = (u32)now, *pending = (u32)later;
    return code;
}
int nvmlDeviceGetMigDeviceHandleByIndex(Handle handle, u32 index, Handle *out) {
    *out = (Handle)((unsigned long)handle | (unsigned long)(index + 1) << 8);
    int code = outcome(handle, "nvmlDeviceGetMigDeviceHandleByIndex");
    return code ? code : of(*out, "uuid") ? 0 : NOT_FOUND;
}
int nvmlDeviceGetRemappedRows(Handle handle, u32 *corrected, u32 *uncorrected, u32 *pending, u32 *failed) {
    u64 waits = 0, failure = 0;
    int code = number(handle, "nvmlDeviceGetRemappedRows", "remap_pending", &waits);
    if (!code) code = number(handle, "nvmlDeviceGetRemappedRows", "remap_failed", &failure);
    *corrected = *uncorrected = 0, *pending = (u32)waits, *failed = (u32)failure;
    return code;
}
typedef struct { unsigned char cluster[16]; u32 status, clique; unsigned char state; } Fabric;
int nvmlDeviceGetGpuFabricInfo(Handle handle, Fabric *out) { /* 103 is "completed" with an error */
    u64 state = 0;
    int code = number(handle, "nvmlDeviceGetGpuFabricInfo", "fabric", &state);
    out->state = (unsigned char)(state % 100), out->status = state / 100 ? 999 : 0;
    return code;
}
typedef struct { u32 version; Fabric info; u32 health; } FabricV;
int nvmlDeviceGetGpuFabricInfoV(Handle handle, FabricV *out) {
    int code = outcome(handle, "nvmlDeviceGetGpuFabricInfoV");
    return code ? code : nvmlDeviceGetGpuFabricInfo(handle, &out->info);
}
typedef struct { u32 supported, count, code, state; char info[128], product[128]; u32 enabled; } Licences;
int nvmlDeviceGetGridLicensableFeatures_v4(Handle handle, Licences *out) {
    int code = outcome(handle, "nvmlDeviceGetGridLicensableFeatures");
    const char *licensed = of(handle, "vgpu_licensed");
    out->supported = 0;
    if (code || !licensed) return code;
    out->supported = out->count = out->code = 1;
    out->state = out->enabled = (u32)atoi(licensed);
    return 0;
}
#endif
