// The part of the standard library that generated bindings and plugins need.
#ifndef REJOIN_STRING_H
#define REJOIN_STRING_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

void *memcpy(void *to, const void *from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int byte, size_t bytes);
int memcmp(const void *one, const void *other, size_t bytes);
size_t strlen(const char *text);

#ifdef __cplusplus
}
#endif

#endif
