/* A driver without a GPU: as much of libcuda.so.1 as TensorFlow asks before it opens the CUDA libraries and lists the
   GPU. No context can be made, so that an operation fails, with an error of the driver's. */
#include <stddef.h>
#include <stdio.h>

enum { SUCCESS = 0, OUT_OF_MEMORY = 2, CAPABILITY_MAJOR = 75, CAPABILITY_MINOR = 76 };

int cuInit(unsigned flags) { (void)flags; return SUCCESS; }
int cuDriverGetVersion(int *version) { *version = 11080; return SUCCESS; }
int cuDeviceGetCount(int *count) { *count = 1; return SUCCESS; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return SUCCESS; }
int cuDeviceGetName(char *name, int size, int device) { (void)device; snprintf(name, size, "Fake"); return SUCCESS; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = (size_t)8 << 30; return SUCCESS; }
int cuDeviceGetPCIBusId(char *id, int size, int device) {
    (void)device;
    snprintf(id, size, "0000:00:00.0");
    return SUCCESS;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    *value = attribute == CAPABILITY_MAJOR ? 7 : attribute == CAPABILITY_MINOR ? 5 : 32;
    return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { (void)context; (void)device; return OUT_OF_MEMORY; }
int cuGetErrorName(int error, const char **text) { (void)error; *text = "CUDA_ERROR_OUT_OF_MEMORY"; return SUCCESS; }
int cuGetErrorString(int error, const char **text) { (void)error; *text = "out of memory"; return SUCCESS; }
