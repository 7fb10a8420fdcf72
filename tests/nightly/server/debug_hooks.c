/* Makes Python's allocators in Triton's stub check every call: that the interpreter's lock is held, and that nobody wrote
   before or behind a block. PYTHONMALLOC=debug would do the same, but the stub's interpreter does not read it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>

__attribute__((constructor)) static void begin(void) {
    void (*hooks)(void) = (void (*)(void))dlsym(RTLD_DEFAULT, "PyMem_SetupDebugHooks");
    if (hooks && strcmp(program_invocation_short_name, "triton_python_backend_stub") == 0)
        hooks();
}
