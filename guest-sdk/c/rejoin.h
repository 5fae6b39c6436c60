// What a plugin in C needs beside its generated bindings: texts, arrays that grow, and a strict JSON reader.
//
// Compile rejoin.c together with the plugin, with `include` beside this file on the path of includes: it has the few
// functions of the standard library that the generated bindings call.
//
// Two replicas must read the same value from the same bytes, and so must a client. The reader therefore refuses what
// readers take differently: a name that comes twice in one object, also when it is spelled with escapes; numbers with a
// sign, a fraction or an exponent; broken UTF-8 and lone surrogates; and bytes behind the value.
#ifndef REJOIN_H
#define REJOIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The largest whole number that every JSON reader represents exactly, 2^53.
#define REJOIN_MAX_NUMBER ((uint64_t)1 << 53)

// Bytes that are not owned, mostly UTF-8.
typedef struct {
  const uint8_t *bytes;
  size_t length;
} rejoin_text;

// The text of a string literal.
#define REJOIN_TEXT(literal) ((rejoin_text){(const uint8_t *)(literal), sizeof(literal) - 1})

// Less than, equal to or greater than 0. The order is that of bytes, which is that of code points.
int rejoin_compare(rejoin_text one, rejoin_text other);

// Makes room for one more element of an array that was only ever changed by this, and returns the place.
#define REJOIN_PUSH(array, count) \
  ((array) = rejoin_grown((array), (count), sizeof *(array)), &(array)[(count)++])
void *rejoin_grown(void *array, size_t count, size_t bytes);

// Sorts an array. Equal elements keep their order.
typedef int rejoin_order(const void *one, const void *other);
void rejoin_sort(void *array, size_t count, size_t bytes, rejoin_order *order);
// An element of a sorted array that is equal to `wanted`, or NULL.
const void *rejoin_find(const void *wanted, const void *array, size_t count, size_t bytes, rejoin_order *order);
// The order of arrays of texts.
int rejoin_by_text(const void *one, const void *other);

// Reads a JSON value: open it, read the value, and ask `rejoin_close` whether all was well. After the first mistake the
// other functions return nothing.
typedef struct {
  const uint8_t *at, *end;
  bool bad;
} rejoin_reader;

// One object that is being read. Begins as {0}.
typedef struct {
  rejoin_text *names;
  size_t count;
  bool open, unordered;
} rejoin_object;

rejoin_reader rejoin_open(const uint8_t *json, size_t length);
// Goes to the next member of an object and reads its name. The member's value must be read next. False at the end.
bool rejoin_next(rejoin_reader *reader, rejoin_object *object, rejoin_text *name);
// Reads a whole number from 0 to `most`, which is at most REJOIN_MAX_NUMBER.
uint64_t rejoin_number(rejoin_reader *reader, uint64_t most);
// Reads a text.
rejoin_text rejoin_string(rejoin_reader *reader);
// Whether the value was read without a mistake, and nothing stands behind it.
bool rejoin_close(rejoin_reader *reader);

// Bytes that are being written. Begins as {0}.
typedef struct {
  uint8_t *bytes;
  size_t length, room;
} rejoin_writer;

void rejoin_write(rejoin_writer *writer, rejoin_text text);
// Writes a text in quotes, as JSON.
void rejoin_write_string(rejoin_writer *writer, rejoin_text text);
void rejoin_write_number(rejoin_writer *writer, uint64_t number);
// Writes what stands before the value of an object's member: its name, and a comma before all but the first.
void rejoin_write_member(rejoin_writer *writer, bool first, rejoin_text name);

// A stream of random numbers for samplers: SplitMix64, the same seed gives the same numbers. Begins with the seed.
typedef struct {
  uint64_t state;
} rejoin_random;

uint64_t rejoin_draw(rejoin_random *random);
// A number below `bound`.
uint64_t rejoin_below(rejoin_random *random, uint64_t bound);

#endif
