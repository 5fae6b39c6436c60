// The cart of `plugins/cart`, in C: an observed-remove set of tagged adds, whose removals are summarised by a clock.
// Format and rules stand in plugins/cart/src/lib.rs; equal inputs give equal bytes in both.
#include "cart.h"

#include <stdlib.h>

#include "generated/cart.h"

static int by_name(const void *one, const void *other) {
  const entry *a = one, *b = other;
  int order = rejoin_compare(a->name, b->name);
  return order != 0 ? order : rejoin_compare(a->tag, b->tag);
}

static void read_numbers(rejoin_reader *in, entries *into, const rejoin_text *item, uint64_t most) {
  rejoin_text name;
  for (rejoin_object members = {0}; rejoin_next(in, &members, &name);) {
    entry one = {item ? *item : name, item ? name : (rejoin_text){0}, .number = rejoin_number(in, most)};
    // A writer that has added nothing is not named.
    if (item || one.number > 0) *REJOIN_PUSH(into->list, into->count) = one;
  }
}

// A tag's counter has one spelling, without zeros or a sign before it. Otherwise one add could count as two.
static bool split(entry *one) {
  size_t digits = one->tag.length;
  while (digits > 0 && one->tag.bytes[digits - 1] != ':') digits--;
  if (digits == 0 || digits == one->tag.length || one->tag.bytes[digits] <= ' ') return false;
  one->writer_length = digits - 1;
  rejoin_reader in = rejoin_open(one->tag.bytes + digits, one->tag.length - digits);
  one->counter = rejoin_number(&in, REJOIN_MAX_NUMBER);
  return one->counter > 0 && in.at == in.end;
}

static bool covers(const cart *cart, const entry *one) {
  entry wanted = {.name = {one->tag.bytes, one->writer_length}};
  const entry *known = rejoin_find(&wanted, cart->clock.list, cart->clock.count, sizeof wanted, by_name);
  return known != NULL && known->number >= one->counter;
}

// Whether a cart has a tag, under any item.
static bool has(cart *cart, const entry *one) {
  size_t count = cart->adds.count;
  if (cart->tags == NULL) {
    cart->tags = malloc(count * sizeof *cart->tags);
    for (size_t i = 0; i < count; i++) cart->tags[i] = cart->adds.list[i].tag;
    rejoin_sort(cart->tags, count, sizeof *cart->tags, rejoin_by_text);
  }
  return rejoin_find(&one->tag, cart->tags, count, sizeof *cart->tags, rejoin_by_text) != NULL;
}

bool cart_parse(rejoin_text json, cart *into) {
  rejoin_reader in = rejoin_open(json.bytes, json.length);
  rejoin_object top = {0}, items = {0};
  rejoin_text name, item;
  bool has_clock = false, has_items = false;
  *into = (cart){0};
  while (rejoin_next(&in, &top, &name)) {
    if (rejoin_compare(name, REJOIN_TEXT("clock")) == 0) {
      read_numbers(&in, &into->clock, NULL, REJOIN_MAX_NUMBER);
      has_clock = true;
    } else if (!has_items && rejoin_compare(name, REJOIN_TEXT("items")) == 0) {
      while (rejoin_next(&in, &items, &item)) read_numbers(&in, &into->adds, &item, UINT32_MAX);
      has_items = true;
    } else {
      return false;
    }
  }
  if (!rejoin_close(&in) || !has_clock || !has_items) return false;
  cart_sort(into);
  bool good = true;
  for (size_t i = 0; i < into->adds.count; i++) {
    entry *one = &into->adds.list[i];
    good = good && one->number > 0 && split(one) && covers(into, one);
  }
  return good;
}

void cart_sort(cart *cart) {
  rejoin_sort(cart->clock.list, cart->clock.count, sizeof *cart->clock.list, by_name);
  rejoin_sort(cart->adds.list, cart->adds.count, sizeof *cart->adds.list, by_name);
}

// The entries of both. Of two numbers for one name the larger one stays: a writer's later counter, or, for a tag, one
// of two quantities, which are a writer's mistake. Given the carts, without the adds that one has seen and removed.
static entries merged(entries one, entries other, cart *left, cart *right) {
  entries made = {0};
  for (size_t i = 0, j = 0; i < one.count || j < other.count;) {
    int side = i == one.count ? 1 : j == other.count ? -1 : by_name(&one.list[i], &other.list[j]);
    entry here = side > 0 ? other.list[j] : one.list[i];
    if (side == 0 && other.list[j].number > here.number) here.number = other.list[j].number;
    cart *lacks = side < 0 ? right : left;
    bool stays = side == 0 || lacks == NULL || !covers(lacks, &here) || has(lacks, &here);
    if (stays) *REJOIN_PUSH(made.list, made.count) = here;
    i += side <= 0, j += side >= 0;
  }
  return made;
}

static cart join(cart *one, cart *other) {
  entries adds = merged(one->adds, other->adds, one, other);
  cart made = {merged(one->clock, other->clock, NULL, NULL), adds, NULL};
  void *done[] = {one->clock.list, one->adds.list, one->tags, other->clock.list, other->adds.list, other->tags};
  for (size_t i = 0; i < sizeof done / sizeof *done; i++) free(done[i]);
  return made;
}

rejoin_text cart_to_json(const cart *cart) {
  rejoin_writer out = {0};
  rejoin_write(&out, REJOIN_TEXT("{\"clock\":{"));
  for (size_t i = 0; i < cart->clock.count; i++) {
    rejoin_write_member(&out, i == 0, cart->clock.list[i].name);
    rejoin_write_number(&out, cart->clock.list[i].number);
  }
  rejoin_write(&out, REJOIN_TEXT("},\"items\":{"));
  for (size_t i = 0; i < cart->adds.count; i++) {
    const entry *one = &cart->adds.list[i];
    bool first = i == 0 || rejoin_compare(one->name, one[-1].name) != 0;
    if (first && i > 0) rejoin_write(&out, REJOIN_TEXT("}"));
    if (first) rejoin_write_member(&out, i == 0, one->name);
    if (first) rejoin_write(&out, REJOIN_TEXT("{"));
    rejoin_write_member(&out, first, one->tag);
    rejoin_write_number(&out, one->number);
  }
  rejoin_write(&out, cart->adds.count > 0 ? REJOIN_TEXT("}}}") : REJOIN_TEXT("}}"));
  return (rejoin_text){out.bytes, out.length};
}

bool exports_rejoin_plugin_merger_merge(cart_list_u8_t *key, exports_rejoin_plugin_merger_list_sibling_t *siblings,
                                        cart_list_u8_t *result, exports_rejoin_plugin_merger_fault_t *fault) {
  (void)key;
  cart so_far = {0}, next;
  *fault = EXPORTS_REJOIN_PLUGIN_MERGER_FAULT_MALFORMED;
  for (size_t i = 0; i < siblings->len; i++) {
    cart_list_u8_t *value = &siblings->ptr[i].value;
    if (!cart_parse((rejoin_text){value->ptr, value->len}, &next)) return false;
    so_far = join(&so_far, &next);
  }
  rejoin_text json = cart_to_json(&so_far);
  *result = (cart_list_u8_t){(uint8_t *)json.bytes, json.length};
  return true;
}
