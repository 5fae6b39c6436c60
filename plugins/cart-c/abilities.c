// What the cart exports beside its merge: the validator, the presenter, the description, and the sampler of the law
// checker.
#include "cart.h"
#include "generated/cart.h"

#include <stdlib.h>

bool exports_rejoin_plugin_validator_validate(cart_list_u8_t *key, cart_list_u8_t *value,
                                              exports_rejoin_plugin_validator_fault_t *fault) {
  (void)key;
  cart read;
  *fault = EXPORTS_REJOIN_PLUGIN_VALIDATOR_FAULT_MALFORMED;
  return cart_parse((rejoin_text){value->ptr, value->len}, &read);
}

void exports_rejoin_plugin_presenter_show(cart_list_u8_t *value, cart_list_u8_t *shown) {
  cart read;
  rejoin_writer out = {0};
  bool good = cart_parse((rejoin_text){value->ptr, value->len}, &read);
  rejoin_write(&out, good ? REJOIN_TEXT("{") : REJOIN_TEXT("{\"error\":\"this is no cart\""));
  for (size_t i = 0; good && i < read.adds.count;) {
    size_t first = i;
    uint64_t sum = 0;
    for (; i < read.adds.count && rejoin_compare(read.adds.list[i].name, read.adds.list[first].name) == 0; i++) {
      sum += read.adds.list[i].number;
    }
    rejoin_write_member(&out, first == 0, read.adds.list[first].name);
    rejoin_write_number(&out, sum);
  }
  rejoin_write(&out, REJOIN_TEXT("}"));
  *shown = (cart_list_u8_t){out.bytes, out.length};
}

// The caller frees what it is given, so it gets copies.
static cart_list_u8_t copy(rejoin_text text) {
  rejoin_writer out = {0};
  rejoin_write(&out, text);
  return (cart_list_u8_t){out.bytes, out.length};
}

void exports_rejoin_plugin_about_describe(exports_rejoin_plugin_about_card_t *card) {
  *card = (exports_rejoin_plugin_about_card_t){copy(REJOIN_TEXT("cart")), copy(REJOIN_TEXT("0.1.0")), 1, true};
}

static rejoin_text item_of(uint64_t number) {
  rejoin_text known[] = {REJOIN_TEXT("apples"), REJOIN_TEXT("\"fi\xc3\xa9\""), REJOIN_TEXT("pears")};
  if (number < 3) return known[number];
  rejoin_writer name = {0};
  rejoin_write(&name, REJOIN_TEXT("item "));
  rejoin_write_number(&name, number);
  return (rejoin_text){name.bytes, name.length};
}

static rejoin_text tag_of(rejoin_text writer, uint64_t counter) {
  rejoin_writer tag = {0};
  rejoin_write(&tag, writer);
  rejoin_write(&tag, REJOIN_TEXT(":"));
  rejoin_write_number(&tag, counter);
  return (rejoin_text){tag.bytes, tag.length};
}

// Draws from few writers and items, so that carts of different seeds share tags, also with different items and
// quantities. Larger carts have more items. The draws are those of plugins/cart/src/plugin.rs.
void exports_rejoin_plugin_sampler_sample(uint64_t seed, uint32_t size, cart_list_u8_t *sample) {
  rejoin_text writers[] = {REJOIN_TEXT("ann"), REJOIN_TEXT("bob"), REJOIN_TEXT("cy:1")};
  uint64_t counters[3] = {0}, items = 3 + size / 8;
  rejoin_random random = {seed};
  entries *of_item = calloc(items, sizeof *of_item);
  for (uint32_t i = 0; i < size; i++) {
    uint64_t item = rejoin_below(&random, items), writer = rejoin_below(&random, 3);
    uint64_t quantity = rejoin_below(&random, 3);
    if (quantity == 0) {
      free(of_item[item].list);
      of_item[item] = (entries){0};
      continue;
    }
    entry one = {.name = item_of(item), .tag = tag_of(writers[writer], ++counters[writer]), .number = quantity};
    *REJOIN_PUSH(of_item[item].list, of_item[item].count) = one;
  }
  cart drawn = {0};
  for (size_t i = 0; i < 3; i++) {
    entry one = {.name = writers[i], .number = counters[i]};
    if (counters[i] > 0) *REJOIN_PUSH(drawn.clock.list, drawn.clock.count) = one;
  }
  for (uint64_t item = 0; item < items; item++) {
    entries *adds = &of_item[item];
    for (size_t i = 0; i < adds->count; i++) *REJOIN_PUSH(drawn.adds.list, drawn.adds.count) = adds->list[i];
  }
  cart_sort(&drawn);
  rejoin_text json = cart_to_json(&drawn);
  *sample = (cart_list_u8_t){(uint8_t *)json.bytes, json.length};
}
