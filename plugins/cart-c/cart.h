// The cart as a data type.
#ifndef CART_H
#define CART_H

#include "rejoin.h"

// In the clock: up to which counter (`number`) the adds of the writer `name` have been seen. Among the adds: the tag
// `writer:counter` under the item `name`, and its quantity (`number`).
typedef struct {
  rejoin_text name, tag;
  size_t writer_length;
  uint64_t counter, number;
} entry;

typedef struct {
  entry *list;
  size_t count;
} entries;

// Both lists are in the order of names and tags.
typedef struct {
  entries clock, adds;
  // All tags in order, made when they are first asked for.
  rejoin_text *tags;
} cart;

// False if the bytes are no cart.
bool cart_parse(rejoin_text json, cart *into);
// The cart as JSON. Equal carts give equal bytes.
rejoin_text cart_to_json(const cart *cart);
// Puts lists in order that were filled by other means.
void cart_sort(cart *cart);

#endif
