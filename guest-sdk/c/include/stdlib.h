// The part of the standard library that generated bindings and plugins need. A plugin has no operating system and no
// imports, so there is no other.
#ifndef REJOIN_STDLIB_H
#define REJOIN_STDLIB_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// Memory comes in blocks of powers of two. A call that gets no memory traps: a plugin must not return another result
// because memory is short.
void *malloc(size_t bytes);
void *calloc(size_t count, size_t bytes);
void *realloc(void *memory, size_t bytes);
void free(void *memory);

// Traps. The merge then has no result, and the siblings stay.
_Noreturn void abort(void);

#ifdef __cplusplus
}
#endif

#endif
