#include "rejoin.h"

#include <stdlib.h>
#include <string.h>

// --- Memory -------------------------------------------------------------------------------------------------------

#define PAGE ((size_t)65536)
// A block begins with its class: it has `1 << class` bytes, these ones included.
#define HEADER ((size_t)16)
#define LEAST_CLASS 5
#define CLASSES 32

typedef struct block {
  size_t class;
  struct block *next;
} block;

// The linker's name for where the program's own data ends.
extern uint8_t __heap_base;

static uint8_t *heap_end;
static block *unused[CLASSES];

_Noreturn void abort(void) { __builtin_trap(); }

static block *new_block(size_t class) {
  if (heap_end == NULL) heap_end = (uint8_t *)(((uintptr_t)&__heap_base + HEADER - 1) & ~(HEADER - 1));
  size_t have = __builtin_wasm_memory_size(0) * PAGE - (size_t)heap_end, want = (size_t)1 << class;
  if (have < want && __builtin_wasm_memory_grow(0, (want - have + PAGE - 1) / PAGE) == SIZE_MAX) abort();
  block *made = (block *)heap_end;
  heap_end += want;
  return made;
}

void *malloc(size_t bytes) {
  size_t class = LEAST_CLASS;
  while (class < CLASSES && ((size_t)1 << class) - HEADER < bytes) class++;
  if (class == CLASSES) abort();
  block *found = unused[class];
  if (found != NULL) unused[class] = found->next;
  else found = new_block(class);
  found->class = class;
  return (uint8_t *)found + HEADER;
}

void free(void *memory) {
  if (memory == NULL) return;
  block *done = (block *)((uint8_t *)memory - HEADER);
  done->next = unused[done->class];
  unused[done->class] = done;
}

void *realloc(void *memory, size_t bytes) {
  if (memory == NULL) return malloc(bytes);
  size_t room = ((size_t)1 << ((block *)((uint8_t *)memory - HEADER))->class) - HEADER;
  if (bytes <= room) return memory;
  void *larger = malloc(bytes);
  memcpy(larger, memory, room);
  free(memory);
  return larger;
}

void *calloc(size_t count, size_t bytes) {
  size_t all;
  if (__builtin_mul_overflow(count, bytes, &all)) abort();
  return memset(malloc(all), 0, all);
}

// With bulk memory the first three are one instruction each.
void *memcpy(void *to, const void *from, size_t bytes) { return __builtin_memcpy(to, from, bytes); }

void *memmove(void *to, const void *from, size_t bytes) { return __builtin_memmove(to, from, bytes); }

void *memset(void *to, int byte, size_t bytes) { return __builtin_memset(to, byte, bytes); }

int memcmp(const void *one, const void *other, size_t bytes) {
  const uint8_t *a = one, *b = other;
  for (size_t i = 0; i < bytes; i++) {
    if (a[i] != b[i]) return a[i] - b[i];
  }
  return 0;
}

size_t strlen(const char *text) {
  size_t length = 0;
  while (text[length] != 0) length++;
  return length;
}

// --- Texts and arrays ---------------------------------------------------------------------------------------------

int rejoin_compare(rejoin_text one, rejoin_text other) {
  size_t shared = one.length < other.length ? one.length : other.length;
  int order = memcmp(one.bytes, other.bytes, shared);
  return order != 0 ? order : (one.length > other.length) - (one.length < other.length);
}

void *rejoin_grown(void *array, size_t count, size_t bytes) {
  bool full = (count & (count - 1)) == 0;
  return full ? realloc(array, (count == 0 ? 1 : 2 * count) * bytes) : array;
}

static bool is_sorted(const uint8_t *array, size_t count, size_t bytes, rejoin_order *order) {
  for (size_t i = 1; i < count; i++) {
    if (order(array + (i - 1) * bytes, array + i * bytes) > 0) return false;
  }
  return true;
}

// Merges two sorted runs, from `from` to `middle` and on to `end`.
static void merge_runs(uint8_t *to, const uint8_t *from, size_t middle, size_t end, size_t bytes, rejoin_order *order) {
  size_t left = 0, right = middle;
  for (; left < middle || right < end; to += bytes) {
    bool take_left = right == end || (left < middle && order(from + left * bytes, from + right * bytes) <= 0);
    memcpy(to, from + (take_left ? left++ : right++) * bytes, bytes);
  }
}

void rejoin_sort(void *array, size_t count, size_t bytes, rejoin_order *order) {
  if (is_sorted(array, count, bytes, order)) return;
  uint8_t *from = array, *spare = malloc(count * bytes), *to = spare;
  for (size_t run = 1; run < count; run *= 2) {
    for (size_t begin = 0; begin < count; begin += 2 * run) {
      size_t left = count - begin, middle = left < run ? left : run, end = left < 2 * run ? left : 2 * run;
      merge_runs(to + begin * bytes, from + begin * bytes, middle, end, bytes, order);
    }
    uint8_t *sorted = to;
    to = from, from = sorted;
  }
  if (from == spare) memcpy(array, spare, count * bytes);
  free(spare);
}

const void *rejoin_find(const void *wanted, const void *array, size_t count, size_t bytes, rejoin_order *order) {
  for (size_t low = 0, high = count; low < high;) {
    size_t middle = low + (high - low) / 2;
    const void *here = (const uint8_t *)array + middle * bytes;
    int side = order(wanted, here);
    if (side == 0) return here;
    if (side < 0) high = middle;
    else low = middle + 1;
  }
  return NULL;
}

int rejoin_by_text(const void *one, const void *other) {
  return rejoin_compare(*(const rejoin_text *)one, *(const rejoin_text *)other);
}

// --- Reading JSON -------------------------------------------------------------------------------------------------

rejoin_reader rejoin_open(const uint8_t *json, size_t length) { return (rejoin_reader){json, json + length, false}; }

static bool fail(rejoin_reader *reader) {
  reader->bad = true;
  return false;
}

static bool is_space(uint8_t byte) { return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r'; }

static void skip_space(rejoin_reader *reader) {
  while (reader->at < reader->end && is_space(*reader->at)) reader->at++;
}

// Takes a sign if it is the next one.
static bool take(rejoin_reader *reader, uint8_t sign) {
  skip_space(reader);
  if (reader->at == reader->end || *reader->at != sign) return false;
  reader->at++;
  return true;
}

// Whether a name comes twice. In canonical JSON the names are in order, and nothing need be sorted.
static bool has_twins(rejoin_object *object) {
  if (object->unordered) rejoin_sort(object->names, object->count, sizeof *object->names, rejoin_by_text);
  bool twins = false;
  for (size_t i = 1; i < object->count; i++) {
    twins = twins || rejoin_compare(object->names[i - 1], object->names[i]) == 0;
  }
  free(object->names);
  return twins;
}

bool rejoin_next(rejoin_reader *reader, rejoin_object *object, rejoin_text *name) {
  if (reader->bad) return false;
  if (!object->open && !take(reader, '{')) return fail(reader);
  if (take(reader, '}')) return has_twins(object) ? fail(reader) : false;
  if (object->open && !take(reader, ',')) return fail(reader);
  object->open = true;
  *name = rejoin_string(reader);
  if (reader->bad || !take(reader, ':')) return fail(reader);
  if (object->count > 0 && rejoin_compare(object->names[object->count - 1], *name) > 0) object->unordered = true;
  *REJOIN_PUSH(object->names, object->count) = *name;
  return true;
}

uint64_t rejoin_number(rejoin_reader *reader, uint64_t most) {
  skip_space(reader);
  const uint8_t *begin = reader->at;
  uint64_t number = 0;
  while (!reader->bad && reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9') {
    if (number > most) return fail(reader);
    number = 10 * number + (*reader->at++ - '0');
  }
  bool spelled = reader->at > begin && (*begin != '0' || reader->at == begin + 1);
  return !reader->bad && spelled && number <= most ? number : fail(reader);
}

// The bytes of a character in UTF-8 from its first byte, or 0 if they are none. Overlong spellings and surrogates are
// none.
static size_t character(const uint8_t *at, const uint8_t *end) {
  uint8_t first = *at;
  if (first < 0x80) return 1;
  size_t bytes = first < 0xc2 || first > 0xf4 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (bytes == 0 || (size_t)(end - at) < bytes) return 0;
  uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
  uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
  if (at[1] < low || at[1] > high) return 0;
  for (size_t i = 2; i < bytes; i++) {
    if ((at[i] & 0xc0) != 0x80) return 0;
  }
  return bytes;
}

// Reads the four digits behind \u. More than 0xffff: they are none.
static uint32_t four_digits(rejoin_reader *reader) {
  uint32_t unit = 0;
  for (size_t i = 0; i < 4; i++) {
    uint8_t digit = reader->at < reader->end ? *reader->at++ : 0, letter = digit | 0x20;
    if (digit >= '0' && digit <= '9') unit = 16 * unit + (digit - '0');
    else if (letter >= 'a' && letter <= 'f') unit = 16 * unit + (letter - 'a' + 10);
    else return UINT32_MAX;
  }
  return unit;
}

static void write_character(rejoin_writer *to, uint32_t point) {
  uint8_t bytes[4] = {(uint8_t)point};
  size_t more = point < 0x80 ? 0 : point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
  if (more > 0) bytes[0] = (uint8_t)((0xff00 >> (more + 1)) | (point >> (6 * more)));
  for (size_t i = 1; i <= more; i++) bytes[i] = 0x80 | ((point >> (6 * (more - i))) & 0x3f);
  rejoin_write(to, (rejoin_text){bytes, more + 1});
}

// Reads what stands behind a backslash. False: it is no escape.
static bool escape(rejoin_reader *reader, rejoin_writer *to) {
  static const uint8_t signs[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
  uint8_t sign = reader->at < reader->end ? *reader->at++ : 0;
  for (size_t i = 0; i < sizeof signs - 1; i++) {
    if (sign == signs[i]) return rejoin_write(to, (rejoin_text){&meant[i], 1}), true;
  }
  uint32_t unit = sign == 'u' ? four_digits(reader) : UINT32_MAX;
  if (unit > 0xffff || (unit >= 0xdc00 && unit < 0xe000)) return false;
  if (unit < 0xd800 || unit >= 0xe000) return write_character(to, unit), true;
  if (reader->end - reader->at < 2 || *reader->at++ != '\\' || *reader->at++ != 'u') return false;
  uint32_t second = four_digits(reader);
  if (second < 0xdc00 || second >= 0xe000) return false;
  write_character(to, 0x10000 + ((unit - 0xd800) << 10) + (second - 0xdc00));
  return true;
}

// Goes to the end of a text, or to its first backslash.
static bool plain(rejoin_reader *reader) {
  while (reader->at < reader->end && *reader->at != '"' && *reader->at != '\\') {
    size_t bytes = *reader->at < 0x20 ? 0 : character(reader->at, reader->end);
    if (bytes == 0) return fail(reader);
    reader->at += bytes;
  }
  return reader->at < reader->end || fail(reader);
}

rejoin_text rejoin_string(rejoin_reader *reader) {
  if (reader->bad || !take(reader, '"')) return fail(reader), (rejoin_text){0};
  const uint8_t *begin = reader->at;
  if (!plain(reader)) return (rejoin_text){0};
  if (*reader->at == '"') return (rejoin_text){begin, (size_t)(reader->at++ - begin)};
  rejoin_writer text = {0};
  for (;;) {
    rejoin_write(&text, (rejoin_text){begin, (size_t)(reader->at - begin)});
    if (*reader->at++ == '"') return (rejoin_text){text.bytes, text.length};
    if (!escape(reader, &text)) return fail(reader), (rejoin_text){0};
    begin = reader->at;
    if (!plain(reader)) return (rejoin_text){0};
  }
}

bool rejoin_close(rejoin_reader *reader) {
  skip_space(reader);
  return !reader->bad && reader->at == reader->end;
}

// --- Writing JSON -------------------------------------------------------------------------------------------------

void rejoin_write(rejoin_writer *writer, rejoin_text text) {
  if (writer->room - writer->length < text.length) {
    writer->room = 2 * (writer->length + text.length);
    writer->bytes = realloc(writer->bytes, writer->room);
  }
  memcpy(writer->bytes + writer->length, text.bytes, text.length);
  writer->length += text.length;
}

void rejoin_write_string(rejoin_writer *writer, rejoin_text text) {
  static const char digits[] = "0123456789abcdef", signs[] = "btn\0fr";
  rejoin_write(writer, REJOIN_TEXT("\""));
  size_t begin = 0;
  for (size_t i = 0; i < text.length; i++) {
    uint8_t byte = text.bytes[i];
    if (byte >= 0x20 && byte != '"' && byte != '\\') continue;
    rejoin_write(writer, (rejoin_text){text.bytes + begin, i - begin});
    begin = i + 1;
    uint8_t shorter = byte >= 0x20 ? byte : byte >= '\b' && byte <= '\r' ? (uint8_t)signs[byte - '\b'] : 0;
    uint8_t two[] = {'\\', shorter};
    uint8_t six[] = {'\\', 'u', '0', '0', (uint8_t)digits[byte >> 4], (uint8_t)digits[byte & 15]};
    rejoin_write(writer, shorter != 0 ? (rejoin_text){two, sizeof two} : (rejoin_text){six, sizeof six});
  }
  rejoin_write(writer, (rejoin_text){text.bytes + begin, text.length - begin});
  rejoin_write(writer, REJOIN_TEXT("\""));
}

void rejoin_write_number(rejoin_writer *writer, uint64_t number) {
  uint8_t digits[20];
  size_t first = sizeof digits;
  do {
    digits[--first] = (uint8_t)('0' + number % 10);
    number /= 10;
  } while (number > 0);
  rejoin_write(writer, (rejoin_text){digits + first, sizeof digits - first});
}

void rejoin_write_member(rejoin_writer *writer, bool first, rejoin_text name) {
  if (!first) rejoin_write(writer, REJOIN_TEXT(","));
  rejoin_write_string(writer, name);
  rejoin_write(writer, REJOIN_TEXT(":"));
}

// --- Random numbers -----------------------------------------------------------------------------------------------

uint64_t rejoin_draw(rejoin_random *random) {
  uint64_t mixed = random->state += 0x9e3779b97f4a7c15;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
  return mixed ^ (mixed >> 31);
}

uint64_t rejoin_below(rejoin_random *random, uint64_t bound) { return bound == 0 ? 0 : rejoin_draw(random) % bound; }
