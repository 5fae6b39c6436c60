// The cart of `plugins/cart`, in JavaScript: an observed-remove set of tagged adds, whose removals are summarised by a
// clock. Format and rules stand in plugins/cart/src/lib.rs; equal inputs give equal bytes in both.

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encode = (text) => new TextEncoder().encode(text);

// The largest whole number that every JSON reader represents exactly, 2^53.
const MAX_COUNTER = 2 ** 53;

// The engine interprets, and fuel is limited: the loops over tags use neither iterators nor destructuring, and call
// little.
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isCounter = (value) => typeof value === "number" && value >= 0 && value <= MAX_COUNTER && value % 1 === 0;

// Reads a cart, and calls `visit(item, tag, writer, counter, quantity)` for each of its adds. Returns its clock.
function read(bytes, visit) {
  let text, value;
  try {
    text = utf8.decode(bytes);
    value = JSON.parse(text);
  } catch {
    throw "malformed";
  }
  const { clock, items, ...others } = value ?? {};
  if (!isObject(clock) || !isObject(items) || Object.keys(others).length > 0) throw "malformed";
  for (const writer in clock) if (!isCounter(clock[writer])) throw "malformed";
  for (const item in items) {
    const tags = items[item];
    if (!isObject(tags)) throw "malformed";
    for (const tag in tags) {
      const quantity = tags[tag];
      const parts = tag.split(":");
      const counter = Number(parts.pop());
      const writer = parts.length === 1 ? parts[0] : parts.join(":");
      // A counter has one spelling, otherwise one add could count as two. A quantity is a whole number of 32 bits.
      const spelled = counter >= 1 && counter % 1 === 0 && `${writer}:${counter}` === tag;
      if (!spelled || !(clock[writer] >= counter) || quantity >>> 0 !== quantity || quantity === 0) throw "malformed";
      visit(item, tag, writer, counter, quantity);
    }
  }
  if (!isUnambiguous(text, value)) throw "malformed";
  return clock;
}

// Whether all readers of JSON read a cart alike. `JSON.parse` takes the last of two members with one name, and rounds
// large numbers.
function isUnambiguous(text, value) {
  // What is written again as it was read has lost nothing. Lone surrogates are written as `\u...`.
  if (JSON.stringify(value) === text && !text.includes("\\u")) return true;
  // All texts of a cart are names, and each name stands before a colon.
  const bare = text.replace(/"[^"\\]*(?:\\[^][^"\\]*)*"/g, "");
  const others = /[^\s\d{}:,]|\d{17}|9007199254740993/;
  return !others.test(bare) && bare.split(":").length - 1 === countNames(value);
}

// How many names an object has, with those inside of it. Lone surrogates are none.
function countNames(value) {
  if (!isObject(value)) return 0;
  const names = Object.keys(value);
  if (!names.every((name) => name.isWellFormed())) return NaN;
  return names.reduce((count, name) => count + countNames(value[name]), names.length);
}

// Joins carts: a tag survives if every cart whose clock covers it still has it.
function join(values) {
  const joined = { clock: new Map(), items: new Map() };
  const owned = new Map();
  const counters = new Map();
  let [adds, last] = [null, null];
  values.forEach((value, cart) => {
    const clock = read(value, (item, tag, writer, counter, quantity) => {
      if (item !== last || adds === null) {
        last = item;
        adds = joined.items.get(item);
        if (adds === undefined) joined.items.set(item, (adds = new Map()));
      }
      let known = owned.get(tag);
      if (known === undefined) owned.set(tag, (known = { writer, counter, owners: 0, cart: -1 }));
      if (known.cart !== cart) known.owners += 1;
      known.cart = cart;
      // Two quantities for one tag are a writer's mistake. All replicas keep the larger one.
      if (!(adds.get(tag) >= quantity)) adds.set(tag, quantity);
    });
    for (const writer in clock) {
      if (!counters.has(writer)) counters.set(writer, []);
      counters.get(writer).push(clock[writer]);
    }
  });
  counters.forEach((seen, writer) => {
    seen.sort((a, b) => b - a);
    // A writer that has added nothing is not named.
    if (seen[0] > 0) joined.clock.set(writer, seen[0]);
  });
  joined.items.forEach((tags, item) => {
    tags.forEach((_, tag) => {
      const known = owned.get(tag);
      // All owners of a tag cover it. If one cart more does, that one has removed it.
      if (counters.get(known.writer)[known.owners] >= known.counter) tags.delete(tag);
    });
    if (tags.size === 0) joined.items.delete(item);
  });
  return joined;
}

// Sorts names as UTF-8, which is the order of code points. The order of JavaScript differs where surrogates are.
function sort(names) {
  names.sort();
  if (!/[\ud800-\udfff]/.test(names.join(""))) return;
  const rank = (name) => name.replace(/[\ud800-\uffff]/g, (unit) => (unit < "\ue000" ? "\uffff" : "\ue000") + unit);
  names.sort((a, b) => (rank(a) < rank(b) ? -1 : 1));
}

// A map as JSON. (An object would put names that look like numbers first.)
function write(map, show) {
  const names = [];
  map.forEach((_, name) => names.push(name));
  if (names.length > 1) sort(names);
  let json = "{";
  for (let i = 0; i < names.length; i += 1) {
    json += `${i > 0 ? "," : ""}${JSON.stringify(names[i])}:${show(map.get(names[i]))}`;
  }
  return json + "}";
}

// The cart as JSON. Equal carts give equal bytes.
function toJson({ clock, items }) {
  return `{"clock":${write(clock, Number)},"items":${write(items, (adds) => write(adds, Number))}}`;
}

export const merger = { merge: (_key, siblings) => encode(toJson(join(siblings.map(({ value }) => value)))) };

export const validator = { validate: (_key, value) => void read(value, () => {}) };

export const presenter = {
  show(value) {
    try {
      const sums = new Map();
      read(value, (item, _tag, _writer, _counter, quantity) => sums.set(item, (sums.get(item) ?? 0) + quantity));
      return encode(write(sums, Number));
    } catch {
      return encode('{"error":"this is no cart"}');
    }
  },
};

export const about = {
  describe: () => ({ name: encode("cart"), version: encode("0.1.0"), schema: 1, selfCausal: true }),
};

// Draws from few writers and items, so that carts of different seeds share tags, also with different items and
// quantities. Larger carts have more items. The draws are those of plugins/cart/src/plugin.rs.
export const sampler = {
  sample(seed, size) {
    const cart = { clock: new Map(), items: new Map() };
    const below = random(seed);
    for (let step = 0; step < size; step += 1) {
      const number = below(3 + Math.floor(size / 8));
      const item = ["apples", '"fi\u00e9"', "pears"][number] ?? `item ${number}`;
      const writer = ["ann", "bob", "cy:1"][below(3)];
      const quantity = below(3);
      if (quantity === 0) {
        cart.items.delete(item);
        continue;
      }
      const counter = (cart.clock.get(writer) ?? 0) + 1;
      cart.clock.set(writer, counter);
      if (!cart.items.has(item)) cart.items.set(item, new Map());
      cart.items.get(item).set(`${writer}:${counter}`, quantity);
    }
    return encode(toJson(cart));
  },
};

// SplitMix64: the same seed gives the same numbers. Returns a function that draws a number below its argument.
function random(state) {
  return (bound) => {
    state = BigInt.asUintN(64, state + 0x9e3779b97f4a7c15n);
    let mixed = BigInt.asUintN(64, (state ^ (state >> 30n)) * 0xbf58476d1ce4e5b9n);
    mixed = BigInt.asUintN(64, (mixed ^ (mixed >> 27n)) * 0x94d049bb133111ebn);
    return Number((mixed ^ (mixed >> 31n)) % BigInt(bound));
  };
}
